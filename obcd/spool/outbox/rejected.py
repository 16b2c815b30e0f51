"""Publish drops that do not become jobs: rejected ones and repeated ones. Each becomes a folder of the outbox.

They go through `jobs/` with a manifest, like every job: the claim is removed only when that is committed.
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
from obcd.spool.inbox.drops import Drop
from obcd.spool.inbox.submitters import Submitter, find_submitter
from obcd.spool.job.job_folder import FORMAT, JobHeader
from obcd.spool.job.repeat_index import Earlier
from obcd.spool.outbox.publish_rename import MANIFEST, show, shown_submitter
from obcd.text import printable


def publish_rejected(layout: Layout, job: str, drop: Drop, claim: Path, why: str, api: int | None = None) -> Path:
    """Publish a claimed file, byte for byte, with the reason for its rejection; safe to repeat after a crash.

    It is called `input`, with its original ending, so that programs recognize its type. The reason is in why.txt, for
    people, and in the manifest.

    Args:
        api: The API's user, who may drop for others; None: nobody may.

    Returns:
        The folder, `<stem>.rejected`.
    """
    temporary = layout.jobs / f"{job}.tmp"
    if os.path.lexists(claim) and not (layout.jobs / job / MANIFEST).exists():
        disk.remove_tree(temporary)
        disk.make_folder(temporary)
        with disk.whole_file(temporary / kept_name(drop.key.name)) as target, open(claim, "rb") as source:
            submitter = _submitter(os.fstat(source.fileno()).st_uid, drop, api)
            shutil.copyfileobj(source, target, 2**20)
        drop_id = drop.marker.drop_id if drop.marker else ""
        manifest = _manifest(job, drop.key.name, drop.key.profile, drop_id, submitter) | {"rejected": why}
        disk.write_json(temporary / MANIFEST, manifest)
        with disk.whole_file(temporary / "why.txt") as file:
            file.write(f"{printable(drop.key.name)}: {why}\n".encode("utf-8", "backslashreplace"))
        disk.rename(temporary, layout.jobs / job)
    return show(layout, job)


def publish_repeated(layout: Layout, header: JobHeader, earlier: Earlier) -> Path:
    """Publish that the same drop was answered before; safe to repeat after a crash.

    The dropped file is not kept a second time: it is the input of the earlier job, byte for byte.

    Returns:
        The folder, `<stem>.repeated`.
    """
    temporary = layout.jobs / f"{header.id}.tmp"
    disk.remove_tree(temporary)
    disk.make_folder(temporary)
    manifest = _manifest(
        header.id, header.name, header.profile, header.drop_id, Submitter(header.uid, header.dropped_by)
    ) | {
        "repeats": asdict(earlier),
        "input": {"sha256": header.sha256, "bytes": header.size},
    }
    disk.write_json(temporary / MANIFEST, manifest)
    disk.rename(temporary, layout.jobs / header.id)
    return show(layout, header.id)


def _submitter(owner: int, drop: Drop, api: int | None) -> Submitter:
    try:
        return find_submitter(owner, drop.marker, api)
    except ValueError:  # this is why it was rejected
        return Submitter(owner)


def _manifest(job: str, name: str, profile: str, drop_id: str, submitter: Submitter) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "obcd": __version__,
        "job": job,
        "name": name,
        "profile": profile,
        "drop_id": drop_id,
        **shown_submitter(submitter.uid, submitter.dropped_by),
        "times": {"published_at": timestamp(wall())},
    }
