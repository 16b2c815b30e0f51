"""How far the job of a dropped batch is, by the folders of the outbox; it lists none, because it may not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from obcd.api.batch_records import BatchRecord
from obcd.clock import seconds_of, wall
from obcd.core.tables.file_format import stem_of
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.outbox.publish_rename import MANIFEST

#: Largest document of the outbox that is read, in bytes.
MAX_BYTES = 2**22


def is_in_inbox(layout: Layout, record: BatchRecord) -> bool:
    """Return whether the coordinator has not claimed the file of a batch yet."""
    return os.path.lexists(layout.inbox / record.profile / record.name)


def find_end(layout: Layout, record: BatchRecord, uid: int) -> BatchRecord | None:
    """Return the record of a batch that is over; None while it is not.

    Args:
        uid: The user whose batch it is.
    """
    for folder, manifest in _documents(layout, record, uid, "", MANIFEST):
        batch = manifest.get("batch")
        if isinstance(batch, dict):
            return replace(record.published(folder, batch), job=str(manifest.get("job", "")))
        return record.failed("invalid_file", NO_BATCH, _published_at(manifest))
    for _, manifest in _documents(layout, record, uid, ".rejected", MANIFEST):
        why = str(manifest.get("rejected", ""))
        return record.failed("invalid_file", f"the file was rejected: {why}", _published_at(manifest))
    return None


#: Why a batch failed whose job had other lines than those of a batch.
NO_BATCH = "its first line is not that of a batch: each line needs custom_id, method, url and body"


def find_progress(layout: Layout, record: BatchRecord, uid: int) -> tuple[str, Mapping[str, object]] | None:
    """Return the id of a batch's job and its progress as a batch object; None while it shows none."""
    for _, document in _documents(layout, record, uid, ".partial", "progress.json"):
        batch = document.get("batch")
        if isinstance(batch, dict):
            return str(document.get("job", "")), batch
    return None


def _documents(
    layout: Layout, record: BatchRecord, uid: int, kind: str, file: str
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the documents of this drop in folders of one kind; another one may have the same name."""
    stem = stem_of(record.name)
    names = [stem + kind, *([f"{stem}.{record.job}{kind}"] if record.job else [])]
    for place in find_places(layout.outbox, uid, record.profile):
        for name in names:
            folder = place / name
            try:
                if (folder / file).stat().st_size > MAX_BYTES:
                    continue
                document = disk.read_json(folder / file)
            except (OSError, ValueError):
                continue
            if isinstance(document, dict) and document.get("drop_id") == record.drop_id:
                yield folder, document


def _published_at(manifest: Mapping[str, Any]) -> float:
    try:
        return seconds_of(manifest["times"]["published_at"])
    except (KeyError, TypeError, ValueError):
        return wall()
