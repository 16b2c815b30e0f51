"""Drops that become no job, and are one folder of the outbox all the same: rejected ones, and repeated ones.

They take the way of every job, through `jobs/` and by their manifest: the claim goes only when that is committed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from obcd import __version__
from obcd.clock import timestamp, wall
from obcd.core.tables.file_format import kept_name
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Drop
from obcd.spool.job.job_folder import FORMAT, JobHeader
from obcd.spool.job.repeat_index import Earlier
from obcd.spool.outbox.publish_rename import MANIFEST, show
from obcd.text import printable
from obcd.users import find_user_name


def publish_rejected(layout: Layout, job: str, drop: Drop, claim: Path, why: str) -> Path:
    """Put a claimed file into the outbox, byte for byte, and the reason; safe to repeat after a crash.

    It is called `input`, with the ending that it came with, so that what opens it takes it for what it is. The reason
    stands in why.txt, for people, and in the manifest.

    Returns:
        The folder, `<stem>.rejected`.
    """
    temporary = layout.jobs / f"{job}.tmp"
    if os.path.lexists(claim) and not (layout.jobs / job / MANIFEST).exists():
        disk.remove_tree(temporary)
        disk.make_folder(temporary)
        with disk.whole_file(temporary / kept_name(drop.key.name)) as target, open(claim, "rb") as source:
            uid = os.fstat(source.fileno()).st_uid
            shutil.copyfileobj(source, target, 2**20)
        drop_id = drop.marker.drop_id if drop.marker else ""
        manifest = _manifest(job, drop.key.name, drop.key.profile, drop_id, uid) | {"rejected": why}
        disk.write_json(temporary / MANIFEST, manifest)
        with disk.whole_file(temporary / "why.txt") as file:
            file.write(f"{printable(drop.key.name)}: {why}\n".encode("utf-8", "backslashreplace"))
        disk.rename(temporary, layout.jobs / job)
    return show(layout, job)


def publish_repeated(layout: Layout, header: JobHeader, earlier: Earlier) -> Path:
    """Show in the outbox that the same drop was answered before; safe to repeat after a crash.

    What was dropped is not kept a second time: it is the earlier job's input, byte for byte.

    Returns:
        The folder, `<stem>.repeated`.
    """
    temporary = layout.jobs / f"{header.id}.tmp"
    disk.remove_tree(temporary)
    disk.make_folder(temporary)
    manifest = _manifest(header.id, header.name, header.profile, header.drop_id, header.uid) | {
        "repeats": asdict(earlier),
        "input": {"sha256": header.sha256, "bytes": header.size},
    }
    disk.write_json(temporary / MANIFEST, manifest)
    disk.rename(temporary, layout.jobs / header.id)
    return show(layout, header.id)


def _manifest(job: str, name: str, profile: str, drop_id: str, uid: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "obcd": __version__,
        "job": job,
        "name": name,
        "profile": profile,
        "drop_id": drop_id,
        "submitter": {"uid": uid, "name": find_user_name(uid)},
        "times": {"published_at": timestamp(wall())},
    }
