"""Showing a finished job in the outbox by one rename: the last step of a published job and of a rejected one.

A folder in `jobs/` with a manifest is finished; whatever happens from there on, the same steps are taken again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from obcd.spool import disk, ledger
from obcd.spool.layout import Layout

MANIFEST = "manifest.json"
#: Files of a running job that a published one has no use for.
WORKING_FILES = (ledger.NAME, "index", "job.json")


def show(layout: Layout, job: str) -> Path:
    """Move a finished job's folder to the outbox; safe to repeat after a crash at any step.

    Returns:
        The folder in the outbox. Where it was shown before and somebody took it away since, the outbox itself.
    """
    folder = layout.jobs / job
    try:
        document = disk.read_json(folder / MANIFEST)
    except FileNotFoundError:  # whoever did this before us ended between the rename and its report
        return find_shown(layout.outbox, job) or layout.outbox
    disk.remove_tree(layout.claim(job, document["profile"]))
    if layout.claims.exists():
        disk.sync_folder(layout.claims)
    for name in WORKING_FILES:
        disk.remove(folder / name)
    _open_to_readers(folder)
    disk.sync_folder(folder)
    name = document["name"].removesuffix(".jsonl") + (".rejected" if "rejected" in document else "")
    target = free_name(layout.outbox, document["profile"], name, job)
    disk.rename(folder, target)
    return target


def find_shown(outbox: Path, job: str) -> Path | None:
    """Find a job's folder in the outbox by its id, or None. Reads every manifest there is: for repairs only."""
    for manifest in (*outbox.glob(f"*/{MANIFEST}"), *outbox.glob(f"*/*/{MANIFEST}")):
        try:
            document: Any = disk.read_json(manifest)
        except (OSError, ValueError):  # a stranger's file
            continue
        if isinstance(document, dict) and document.get("job") == job:
            return manifest.parent
    return None


def free_name(outbox: Path, profile: str, name: str, job: str) -> Path:
    """Return where a folder of this name goes: `outbox/[<profile>/]<name>`, with `.<id>` when that is taken."""
    parent = outbox / profile if profile else outbox
    disk.make_folder(parent, 0o750)
    taken = os.path.lexists(parent / name)
    return parent / (f"{name}.{job}" if taken else name)


def _open_to_readers(folder: Path) -> None:
    """Give the group its rights before the folder is shown: 2750, files 0640."""
    for path in folder.iterdir():
        path.chmod(0o640)
    folder.chmod(0o2750)
