"""Drop the failed lines of a published job again, with the same profile; `obcd retry` and `jobs.Job.retry` do so."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obcd.config.settings import Settings
from obcd.core.tables.file_format import stem_of
from obcd.errors import InputError
from obcd.results.reading.answers import read_tally
from obcd.results.reading.sources import PublishedFolder
from obcd.results.reading.with_retries import RETRY, Retries
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.outbox.publish_rename import MANIFEST, find_shown
from obcd.spool.submit.dropping import Submitted, drop, open_source, submit
from obcd.spool.submit.exactly_once import DropRecord, key_of
from obcd.spool.submit.target import find_target
from obcd.text import plural, printable
from obcd.text_files import shown_path


@dataclass(frozen=True, slots=True)
class RetryDrop:
    """The drop that retries a job: its name in the inbox, and its id."""

    name: str
    drop_id: str


def retry_job(layout: Layout, settings: Settings, folder: Path, *, runs: bool) -> Submitted | str:
    """Drop the failed lines of a published job.

    Args:
        folder: The published folder.
        runs: Whether a coordinator runs on the spool.

    Returns:
        The drop, or the sentence that says why there is nothing to drop: nothing failed, or it is retried already.

    Raises:
        InputError: If the folder is not that of a job, or its lines cannot be dropped.
    """
    manifest, label = _read_manifest(folder), printable(shown_path(folder))
    if "rejected" in manifest:
        raise InputError(f"{label} never became a job: {printable(str(manifest['rejected']))}")
    if "repeats" in manifest:
        raise InputError(f"{label} points to job {printable(str(manifest['repeats']['job']))}: retry that one")
    failed = folder / RETRY
    if not failed.exists():
        return "nothing failed, so there is nothing to retry"
    job = str(manifest.get("job", ""))
    if tried := _find_retry(folder) or _find_running(folder, job):
        return tried
    if not runs and layout.outbox.resolve() not in folder.resolve().parents:
        raise InputError(
            f"{label} is not in the outbox {printable(str(layout.outbox))}, and no coordinator runs: obcd batch "
            f"{printable(shlex.quote(shown_path(failed)))} answers these lines without one"
        )
    name = stem_of(str(manifest["name"])).removesuffix(".retry") + ".retry"
    profile = str(manifest["profile"])
    return submit(
        layout.inbox, failed, profile, name, settings.spool.max_line_bytes,
        reading=settings.reading_of(profile), parent=job,
    )  # fmt: skip


def _find_retry(folder: Path) -> str:
    """Return the message for a job that has a published retry; "" if it has none."""
    found = Retries().of(PublishedFolder(folder, folder.name))
    if not found:
        return ""
    newest = found[0]
    shown = printable(shown_path(newest.path))
    if not (newest.path / "retry.jsonl").exists():
        return f"its failed lines were answered in {shown}: obcd merge and obcd verify include them"
    tally = read_tally(newest)
    failed = f"{tally.failures} of {plural(tally.requests, 'line')} failed"
    return f"retried in {shown}, where {failed}: retry that one (obcd retry {shlex.quote(shown)})"


def _find_running(folder: Path, job: str) -> str:
    """Return the message for a job whose retry is running; "" if there is none."""
    for path in folder.parent.glob("*.partial/progress.json") if job else ():
        with contextlib.suppress(OSError, ValueError):
            document = disk.read_json(path)
            if isinstance(document, dict) and document.get("parent") == job:
                name = printable(str(document.get("name")))
                return f"its retry {name} is running: wait until it is finished (obcd status)"
    return ""


def retry_once(layout: Layout, settings: Settings, folder: Path, state: Path) -> RetryDrop | None:
    """Drop the failed lines of a published job once, however often this is called.

    Args:
        state: From `find_state_folder`.

    Returns:
        The drop, of now or before; None if nothing failed.

    Raises:
        InputError: As `retry_job`, and if the record of the drop cannot be kept; nothing was dropped then.
        AlreadyRunningError: If another program retries the job at this moment.
    """
    manifest = _read_manifest(folder)
    if not (folder / RETRY).exists() and "repeats" not in manifest:
        return None
    found = Retries().of(PublishedFolder(folder, folder.name))
    if found:  # the newest
        retried = _read_manifest(found[0].path)
        return RetryDrop(str(retried["name"]), str(retried.get("drop_id", "")))
    job = str(manifest.get("job", ""))
    profile, name = str(manifest["profile"]), f"{stem_of(str(manifest['name'])).removesuffix('.retry')}.retry"
    target = replace(find_target(layout.inbox, profile, name, settings.reading_of(profile)), parent=job)
    path = state / "submitted" / f"{key_of(os.path.realpath(layout.inbox), profile, target.path.name, job)}.log"
    with DropRecord(path, target.path.parent) as record, open_source(folder / RETRY) as reader:
        if not record.settle():
            record.begin(target)
            drop(reader, str(folder / RETRY), target, settings.spool.max_line_bytes, record)
        return RetryDrop(target.path.name, record.drop_id)


def find_published_job(layout: Layout, word: str) -> Path:
    """Return the folder of a published job, by that folder, its id, or the name it was dropped with.

    Raises:
        InputError: If there is none.
    """
    stem = stem_of(word)
    places = (Path(word), *(place / stem for place in find_places(layout.outbox, os.geteuid(), "")))
    folder = next((place for place in places if os.path.isfile(place / MANIFEST)), None)
    folder = folder or find_shown(layout.outbox, word)
    if folder is None:
        raise InputError(
            f"there is no published job '{printable(word)}' in {printable(str(layout.outbox))}: "
            "give its folder, or wait until it is finished (obcd status)"
        )
    return folder


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = disk.read_json(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(str(folder / MANIFEST))} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or not {"name", "profile"} <= manifest.keys():
        raise InputError(f"{printable(str(folder))} is not a folder of obcd: its manifest names no job")
    return manifest
