"""Run one file in the foreground (`obcd batch`): the coordinator has its own root inside the output folder.

    responses/.obcd/     the root: jobs/, lock
    responses/<stem>/    the published folder

The run ends when its job is published. An interrupted run that is started again continues where it stopped. A file
that already has responses from the same settings is not sent again.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.core.request.records import JobSettings
from obcd.core.tables.file_format import SUFFIX, form_of
from obcd.core.tables.foreign_files import OTHER_ENCODING
from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.inbox.arrivals import Drop, Identity, Key
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import accept_copy
from obcd.spool.intake.reading import AcceptOrder, RejectedError
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, new_job_id
from obcd.text import printable


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The work of a batch run.

    Attributes:
        header: The job to run, new or resumed; None when the file already has its responses.
        published: The folder that already holds these responses, else None.
        resumed: Whether an interrupted run is continued.
        settings_differ: Whether the job is resumed although the configuration has changed.
        lock: Held, so that no other run can take the job; the coordinator keeps it.
    """

    layout: Layout
    lock: SpoolLock
    header: JobHeader | None = None
    published: Path | None = None
    resumed: bool = False
    settings_differ: bool = False


def batch_layout(output: Path) -> Layout:
    """Return the folders of a batch run into `output`."""
    root = output.absolute() / ".obcd"
    return Layout(root, root / "inbox", output.absolute())


def plan_batch(settings: Settings, prompts: Path, output: Path, profile: str, *, again: bool) -> BatchPlan:
    """Decide what to run, and accept the file as a job if it is new.

    Args:
        again: Send the requests even if the file already has its responses.

    Raises:
        InputError: If the file cannot become a job, or changed since an interrupted run.
        AlreadyRunningError: If another run works in the same output folder.
    """
    if prompts.is_dir():
        raise InputError(
            f"{prompts} is a folder: to make a prompt file of its texts, obcd prepare {prompts} -o prompts.jsonl"
        )
    if not prompts.name.isprintable():  # as in the inbox: the job's folder and many messages have this name
        raise InputError(f"the name of {printable(str(prompts))} has characters that cannot be shown: rename it")
    if not prompts.is_file():
        hint = ": obcd batch can be resumed and needs a file for that" if str(prompts) == "-" else ""
        raise InputError(f"no prompt file at {prompts}{hint}")
    layout = batch_layout(output)
    try:
        digest = disk.file_sha256(prompts)
    except OSError as error:
        raise InputError(f"cannot read {prompts}: {error.strerror}") from None
    layout.create([], "--output-dir DIR")
    lock = SpoolLock(layout)
    lock.acquire()
    try:
        return _plan(settings, lock, layout, prompts, digest, profile, again=again)
    except BaseException:
        lock.release()
        raise


def _plan(
    settings: Settings, lock: SpoolLock, layout: Layout, prompts: Path, digest: str, profile: str, *, again: bool
) -> BatchPlan:
    wanted = settings.job_settings(profile)
    unfinished = _find_unfinished(layout, prompts)
    if unfinished is not None and _is_untouched(layout, unfinished, digest, wanted):
        disk.remove_tree(layout.jobs / unfinished.id)
        unfinished = None
    if unfinished is not None:
        _check_unchanged(layout, unfinished, prompts, digest)
        return BatchPlan(layout, lock, unfinished, resumed=True, settings_differ=unfinished.settings != wanted)
    published = None if again else _find_published(layout, prompts, digest, wanted)
    if published is not None:
        return BatchPlan(layout, lock, published=published)
    return BatchPlan(layout, lock, _take_in(settings, layout, prompts, wanted))


def _find_unfinished(layout: Layout, prompts: Path) -> JobHeader | None:
    found = recovery.recover(layout)
    mine = [header for header in found.jobs if header.source == str(prompts.absolute())]
    for job in found.unpublished:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            manifest = disk.read_json(layout.jobs / job / "manifest.json")
            if manifest.get("source") == str(prompts.absolute()):
                return JobHeader(id=job, name=manifest["name"], settings=JobSettings.from_json(manifest["settings"]))
    return mine[-1] if mine else None


def _is_untouched(layout: Layout, header: JobHeader, digest: str, settings: JobSettings) -> bool:
    """Return whether an interrupted run has no response and had other prompts or settings than this one.

    Such a run is abandoned: otherwise a run that ended because a model was missing could never be repaired by a change
    of the configuration.
    """
    if not header.sha256 or (header.sha256 == digest and header.settings == settings):
        return False
    return recovery.load_job(layout, header.id).replay.counts.responses == 0


def _check_unchanged(layout: Layout, header: JobHeader, prompts: Path, digest: str) -> None:
    if header.sha256 and header.sha256 != digest:
        raise InputError(
            f"{prompts} changed after its interrupted run: restore the old content to continue, "
            f"or delete {layout.jobs / header.id} to discard its results"
        )


def _find_published(layout: Layout, prompts: Path, digest: str, settings: JobSettings) -> Path | None:
    """Return the newest folder with the responses to this file, from the same content and settings."""
    found: dict[str, Path] = {}
    for path in layout.outbox.glob("*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            manifest: dict[str, Any] = disk.read_json(path)
            same = manifest["input"]["sha256"] == digest and manifest["source"] == str(prompts.absolute())
            if same and JobSettings.from_json(manifest["settings"]) == settings:
                found[manifest["times"]["published_at"]] = path.parent
    return found[max(found)] if found else None


def _take_in(settings: Settings, layout: Layout, prompts: Path, job_settings: JobSettings) -> JobHeader:
    name = prompts.name if form_of(prompts.name) is not None else prompts.name + SUFFIX
    order = AcceptOrder(
        drop=Drop(Key("", name), Identity.of(prompts.stat()), None),
        job=new_job_id(wall()),
        settings=job_settings,
        max_line_bytes=settings.spool.max_line_bytes,
        max_expanded_bytes=settings.spool.max_expanded_bytes,
        reject_torn=True,
    )
    try:
        header = accept_copy(layout, order, prompts.absolute()).header
    except RejectedError as error:
        raise InputError(f"{prompts} cannot be accepted: {error}") from None
    except OSError as error:
        raise InputError(f"{prompts} cannot be accepted: {error.strerror} ({error.filename or layout.root})") from None
    if header.bad_lines == header.requests:
        raise InputError(_no_prompts(layout, header, prompts))
    return header


def _no_prompts(layout: Layout, header: JobHeader, prompts: Path) -> str:
    """Delete the job again and return the reason as a sentence: the fault of its first line."""
    folder = layout.jobs / header.id
    _, raw = next(ledger.read_valid(folder / ledger.NAME))
    first = json.loads(raw)
    disk.remove_tree(folder)
    hint = ""
    if "not UTF-8" in first["message"]:
        return f"{prompts} is {OTHER_ENCODING}; line {first['line']}: {first['message']}"
    if prompts.suffix.lower() in (".csv", ".tsv"):
        hint = f"; to make a prompt file of one column: obcd prepare {prompts} --column NAME -o prompts.jsonl"
    return f"{prompts}: no line is a valid prompt; line {first['line']}: {first['message']}{hint}"
