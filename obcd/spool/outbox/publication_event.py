"""The event of a job that is published: what its manifest says, and of the failures their classes alone."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from obcd.clock import wall
from obcd.core.answer.openai.openai_response import to_record
from obcd.core.events import EventKind, NotableEvent, job_event_id
from obcd.errors import ObcdError
from obcd.spool.folders.disk_space import FULL
from obcd.spool.folders.event_files import folder_of, write_event
from obcd.spool.folders.layout import Layout
from obcd.text import plural, printable

logger = logging.getLogger(__name__)

#: Most failures that are classified, and the longest line of them, in bytes: a line may hold a whole answer.
MOST_FAILURES, MAX_LINE = 10_000, 2**20
#: Keys of the manifest that the event has as they are.
KEYS = ("name", "drop_id", "parent", "counts", "tokens", "times")


def note_publication(layout: Layout, manifest: Mapping[str, Any], folder: Path, target: Path) -> None:
    """Write the event of a job that is published next; safe to repeat after a crash. Rejected drops and trials
    (`obcd try`) make none.

    Answers are worth more than a notification: an event that cannot be written stops a publication only where the disk
    is full, and so the publication is repeated anyway.

    Args:
        folder, target: Where the job is, and where it will be.

    Raises:
        OSError: If the disk is full.
    """
    if not folder_of(layout.root).is_dir() or {"rejected", "repeats", "trial"} & manifest.keys():
        return
    try:
        write_event(layout.root, _event(manifest, folder, target))
    except OSError as error:
        if error.errno in FULL:
            raise
        _log(manifest, error.strerror or type(error).__name__)
    except (ObcdError, ValueError, KeyError, TypeError, AttributeError) as error:  # a manifest that obcd did not write
        _log(manifest, type(error).__name__)


def _log(manifest: Mapping[str, Any], why: str) -> None:
    job = manifest.get("job")
    logger.error("no notification of job %s is sent: %s", job, why, extra={"action": "event_lost", "job": job})


def _event(manifest: Mapping[str, Any], folder: Path, target: Path) -> NotableEvent:
    counts, job, submitter = manifest["counts"], manifest["job"], manifest["submitter"]
    is_cancelled, failures = "cancelled_by" in manifest, counts["failures"]
    kind = EventKind.FAILURES if failures and not is_cancelled else EventKind.PUBLISHED
    label = f"{manifest['profile']}/{manifest['name']}" if manifest["profile"] else manifest["name"]
    said = f"{plural(counts['responses'], 'response')}, {plural(failures, 'failure')}"
    facts: dict[str, object] = {key: manifest[key] for key in KEYS}
    facts |= {"folder": str(target), "submitter": submitter, "host": socket.gethostname()}
    if failures:
        facts["failures_by_class"] = _classes(folder / "errors.jsonl")
    if is_cancelled:
        facts["cancelled_by"] = manifest["cancelled_by"]
    if "batch" in manifest:
        facts["batch"] = {"id": manifest["batch"]["id"], "status": manifest["batch"]["status"]}
    return NotableEvent(
        id=job_event_id(kind, job),
        kind=kind,
        at=round(wall(), 3),
        text=f"{printable(label)} is {'cancelled' if is_cancelled else 'published'}: {said}",
        profile=manifest["profile"],
        job=job,
        uid=submitter["uid"],
        facts=facts,
    )


def _classes(path: Path) -> dict[str, int]:
    """Return `{class: number of failures}`, the most frequent first; of a large file, for its beginning."""
    found: Counter[str] = Counter()
    with contextlib.suppress(OSError), open(path, "rb") as file:
        for _ in range(MOST_FAILURES):
            line = file.readline(MAX_LINE)
            if not line:
                break
            if line.endswith(b"\n"):
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    found[str(to_record(json.loads(line))["class"])] += 1
                continue
            while line and not line.endswith(b"\n"):  # the rest of a line that is too long
                line = file.readline(MAX_LINE)
            found["other"] += 1
    return dict(found.most_common())
