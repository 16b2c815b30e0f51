"""Run files in the foreground (`obcd batch`): the coordinator has its own root inside the output folder.

    responses/.obcd/     the root: jobs/, lock, read/ (what came through pipes)
    responses/<stem>/    the published folder of each file

The run ends when its jobs are published. An interrupted run that is started again continues where it stopped. A file
that already has responses from the same settings is not sent again. What comes through a pipe is kept as a file first,
under a name with its digest: after that it is a file like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.core.request.records import JobSettings
from obcd.core.request.templates import fields_of
from obcd.core.tables.file_format import SUFFIX, form_of, stem_of
from obcd.core.tables.foreign_files import OTHER_ENCODING
from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.intake import pipes, recovery
from obcd.spool.intake.acceptance import accept_copy
from obcd.spool.intake.reading import AcceptOrder, RejectedError
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, new_job_id
from obcd.text import printable

#: The columns of which a table needs one, without a template.
PROMPT_COLUMNS = ("prompt", "messages", "complete", "embed")
#: Standard input in place of a file.
STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """The work that the command line names.

    Attributes:
        prompts: The files; `-` is standard input.
        stdin: Standard input, if a file is `-`.
        limit: How many requests of each file are sent, the first ones; 0: all.
        again: Send the requests even if a file already has its responses.
    """

    prompts: Sequence[Path]
    output: Path
    profile: str = ""
    stdin: IO[bytes] | None = None
    limit: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class BatchJob:
    """The work on one file.

    Attributes:
        label: The file, for people.
        header: The job to run, new or resumed; None when the file already has its responses.
        published: The folder that already holds these responses, else None.
        resumed: Whether an interrupted run is continued.
        settings_differ: Whether the job is resumed although the configuration has changed.
        kept: If the file is a pipe: where its content is kept until the job is published.
    """

    label: str
    header: JobHeader | None = None
    published: Path | None = None
    resumed: bool = False
    settings_differ: bool = False
    kept: Path | None = None


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The work of a batch run.

    Attributes:
        lock: Held, so that no other run can take the jobs; the coordinator keeps it.
        jobs: One for each file that can be answered, in the order of the command line.
        refused: Why the other files cannot be answered.
        left: Kept content of pipes whose jobs an earlier run began and this one does not continue.
        others: The files of such jobs.
    """

    layout: Layout
    lock: SpoolLock
    jobs: tuple[BatchJob, ...]
    refused: tuple[str, ...] = ()
    left: tuple[Path, ...] = ()
    others: frozenset[str] = frozenset()


def batch_layout(output: Path) -> Layout:
    """Return the folders of a batch run into `output`."""
    root = output.absolute() / ".obcd"
    return Layout(root, root / "inbox", output.absolute())


def plan_batch(settings: Settings, order: BatchOrder) -> BatchPlan:
    """Decide what to run, and accept the files as jobs if they are new.

    Raises:
        InputError: If a file is missing or cannot be read, or if none can become a job; nothing was sent then.
        AlreadyRunningError: If another run works in the same output folder.
    """
    # A file that is given twice is answered once.
    sources = list({os.path.abspath(path): path for path in map(_checked, order.prompts)}.values())
    if os.path.exists(order.output) and not os.path.isdir(order.output):
        raise InputError(f"{order.output} is a file: choose a folder for the answers (--output-dir DIR)")
    layout = batch_layout(order.output)
    layout.create([], "--output-dir DIR")
    lock = SpoolLock(layout)
    lock.acquire()
    try:
        return _plan(settings, order, layout, lock, sources)
    except BaseException:
        lock.release()
        raise


def _checked(prompts: Path) -> Path:
    """Return the path of a file that can be opened, `STDIN` for standard input.

    Raises:
        InputError: If it is not a readable file.
    """
    if is_stdin(prompts):
        return STDIN
    shown = printable(str(prompts))
    try:
        if prompts.is_dir():
            raise InputError(
                f"{shown} is a folder: to make a prompt file of its texts, obcd prepare {shown} -o prompts.jsonl"
            )
        if not prompts.name.isprintable():  # as in the inbox: the job's folder and many messages have this name
            raise InputError(f"the name of {shown} has characters that cannot be shown: rename it")
        if not pipes.is_pipe(prompts):
            disk.open_regular(prompts).close()
    except ValueError:
        raise InputError(f"{shown} is neither a file nor a pipe: give a file with prompts") from None
    except FileNotFoundError:
        raise InputError(f"no prompt file at {shown}") from None
    except OSError as error:
        raise InputError(f"cannot read {shown}: {error.strerror}") from None
    return prompts


def forget_kept(plan: BatchPlan, unfinished: Container[str]) -> None:
    """Delete the kept content of pipes whose jobs are published.

    Args:
        plan: The plan of a run that has ended.
        unfinished: The ids of its jobs that are not published.
    """
    for job in plan.jobs:
        is_done = job.header is None or job.header.id not in unfinished
        if job.kept is not None and is_done and str(job.kept) not in plan.others:
            disk.remove_tree(job.kept.parent)


def is_stdin(path: Path) -> bool:
    """Return whether a path of the command line is standard input."""
    return path == STDIN or os.path.abspath(path) == "/dev/stdin"


def _plan(settings: Settings, order: BatchOrder, layout: Layout, lock: SpoolLock, sources: Sequence[Path]) -> BatchPlan:
    _discard_pipes(layout)
    found = recovery.recover(layout)
    jobs: list[BatchJob] = []
    refused: list[InputError] = []
    for prompts in sources:
        try:
            jobs.append(_plan_one(settings, order, layout, found, prompts))
        except InputError as error:
            refused.append(error)
    mine = {str(job.kept) for job in jobs}
    run = {job.header.id for job in jobs if job.header is not None}
    others = frozenset(header.source for header in found.jobs if header.id not in run)
    pipes.forget(layout, others | mine | set(_unpublished_sources(layout, found)))
    if not jobs:
        raise refused[0] if len(refused) == 1 else InputError("; ".join(map(str, refused)))
    left = [path for path in pipes.kept_files(layout) if str(path) not in mine]
    return BatchPlan(layout, lock, tuple(jobs), tuple(map(str, refused)), tuple(left), others)


def _discard_pipes(layout: Layout) -> None:
    """Remove the jobs of pipes whose kept content a person has deleted, to be rid of them."""
    for folder in layout.jobs.iterdir():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            source = disk.read_json(folder / "job.json")["source"]
            is_complete = (folder / "manifest.json").exists()
            if source and pipes.is_kept(layout, Path(source)) and not os.path.lexists(source) and not is_complete:
                disk.remove_tree(folder)


def _plan_one(
    settings: Settings, order: BatchOrder, layout: Layout, found: recovery.Recovery, prompts: Path
) -> BatchJob:
    label = "standard input" if prompts == STDIN else printable(str(prompts))
    try:
        is_file = prompts != STDIN and not pipes.is_pipe(prompts)
        if is_file and not prompts.stat().st_size:
            raise InputError(f"{label} is empty: it holds no prompt")
        file = prompts if is_file else _keep(settings, order, layout, prompts, label)
        kept = file if pipes.is_kept(layout, file.absolute()) else None
        digest = disk.file_sha256(file)
    except OSError as error:  # it went meanwhile
        raise InputError(f"cannot read {label}: {error.strerror}") from None
    source = _Source(file, label, digest, _job_name(file, order.limit))
    wanted = settings.job_settings(order.profile)
    unfinished = _find_unfinished(layout, found, source)
    if unfinished is not None and _is_untouched(layout, unfinished, digest, wanted):
        disk.remove_tree(layout.jobs / unfinished.id)
        unfinished = None
    if unfinished is not None:
        _check_unchanged(layout, unfinished, source)
        differ = unfinished.settings != wanted
        return BatchJob(label, unfinished, resumed=True, settings_differ=differ, kept=kept)
    published = None if order.again else _find_published(layout, source, wanted)
    if published is not None:
        return BatchJob(label, published=published, kept=kept)
    return BatchJob(label, _take_in(settings, layout, source, wanted, order.limit), kept=kept)


def _keep(settings: Settings, order: BatchOrder, layout: Layout, prompts: Path, label: str) -> Path:
    if prompts == STDIN and order.stdin is None:
        raise InputError("standard input is closed: give a file, or prompts through a pipe")
    try:
        with order.stdin if prompts == STDIN and order.stdin is not None else open(prompts, "rb") as stream:
            name = pipes.name_of(Path("/dev/stdin") if prompts == STDIN else prompts)
            template = settings.job_settings(order.profile).template
            columns = PROMPT_COLUMNS if template is None else [field.name for field in fields_of(template)]
            kept = pipes.keep(layout, stream, name, columns, settings.spool.min_free_bytes)
    except OSError as error:
        raise InputError(f"{label} cannot be kept in {layout.root}: {error.strerror}; nothing was sent") from None
    if not kept.stat().st_size:
        raise InputError(f"{label} is empty: no prompt came through the pipe")
    return kept


@dataclass(frozen=True, slots=True)
class _Source:
    """A file with prompts, its digest, and the name of its job."""

    file: Path
    label: str
    digest: str
    job_name: str

    @property
    def path(self) -> str:
        return str(self.file.absolute())


def _job_name(file: Path, limit: int) -> str:
    """Return the name of a file's job; a part of it has another name, because it is another job."""
    name = file.name if form_of(file.name) is not None else file.name + SUFFIX
    if not limit:
        return name
    stem = stem_of(name)
    return f"{stem}.first-{limit}{name.removeprefix(stem)}"


def _unpublished_sources(layout: Layout, found: recovery.Recovery) -> Iterator[str]:
    for job in found.unpublished:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            yield str(disk.read_json(layout.jobs / job / "manifest.json")["source"])


def _find_unfinished(layout: Layout, found: recovery.Recovery, source: _Source) -> JobHeader | None:
    mine = [header for header in found.jobs if (header.source, header.name) == (source.path, source.job_name)]
    for job in found.unpublished:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            manifest = disk.read_json(layout.jobs / job / "manifest.json")
            if (manifest["source"], manifest["name"]) == (source.path, source.job_name):
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


def _check_unchanged(layout: Layout, header: JobHeader, source: _Source) -> None:
    if header.sha256 and header.sha256 != source.digest:
        raise InputError(
            f"{source.label} changed after its interrupted run: restore the old content to continue, "
            f"or delete {layout.jobs / header.id} to discard its results"
        )


def _find_published(layout: Layout, source: _Source, settings: JobSettings) -> Path | None:
    """Return the newest folder with the responses to this file, from the same content and settings."""
    found: dict[str, Path] = {}
    for path in layout.outbox.glob("*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            manifest: dict[str, Any] = disk.read_json(path)
            facts = manifest["source"], manifest["name"], manifest["input"]["sha256"]
            is_same = facts == (source.path, source.job_name, source.digest)
            if is_same and JobSettings.from_json(manifest["settings"]) == settings:
                found[manifest["times"]["published_at"]] = path.parent
    return found[max(found)] if found else None


def _take_in(settings: Settings, layout: Layout, source: _Source, job_settings: JobSettings, limit: int) -> JobHeader:
    file, label = source.file, source.label
    order = AcceptOrder(
        drop=Drop(Key("", source.job_name), Identity.of(file.stat()), None),
        job=new_job_id(wall()),
        settings=job_settings,
        max_line_bytes=settings.spool.max_line_bytes,
        max_expanded_bytes=settings.spool.max_expanded_bytes,
        reject_torn=True,
        most_requests=limit,
    )
    try:
        header = accept_copy(layout, order, file.absolute()).header
    except RejectedError as error:
        disk.remove_tree(layout.jobs / f"{order.job}.tmp")
        raise InputError(f"{label} cannot be accepted: {error}") from None
    except OSError as error:
        raise InputError(f"{label} cannot be accepted: {error.strerror} ({error.filename or layout.root})") from None
    if header.bad_lines == header.requests:
        raise InputError(_no_prompts(layout, header, source))
    return header


def _no_prompts(layout: Layout, header: JobHeader, source: _Source) -> str:
    """Delete the job again and return the reason as a sentence: the fault of its first line."""
    folder = layout.jobs / header.id
    _, raw = next(ledger.read_valid(folder / ledger.NAME))
    first = json.loads(raw)
    disk.remove_tree(folder)
    hint = ""
    if "not UTF-8" in first["message"]:
        return f"{source.label} is {OTHER_ENCODING}; line {first['line']}: {first['message']}"
    if source.file.suffix.lower() in (".csv", ".tsv"):
        hint = f"; to make a prompt file of one column: obcd prepare {source.label} --column NAME -o prompts.jsonl"
    return f"{source.label}: no line is a valid prompt; line {first['line']}: {first['message']}{hint}"
