"""Recover after an earlier coordinator: continue unfinished jobs, accept claims, remove incomplete files."""

from __future__ import annotations

import contextlib
import logging
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.faults import Fault, bad_line
from obcd.core.forecasting.work_left import sizes_of
from obcd.core.pending.lanes import LaneIndex
from obcd.core.pending.longest_first import MOST_REQUESTS, sort_sizes
from obcd.core.request.context import Gauge
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, signature_of
from obcd.core.request.request_key import times_of
from obcd.core.request.structure import MOSTLY_STRUCTURE, is_mostly_structure
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import LineError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import JobControls, finish_binding, read_job_controls
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.inbox.markers import Marker, read_marker
from obcd.spool.inbox.names import MARKER_SUFFIX, marker_of
from obcd.spool.intake.acceptance import claim_marker
from obcd.spool.job import crash_count, ledger
from obcd.spool.job.job_folder import (
    JobHeader,
    Place,
    length_column,
    read_firsts,
    read_header,
    read_places,
    signature_column,
)
from obcd.spool.job.lane_index import read_lanes
from obcd.spool.job.quarantine_event import note_quarantine
from obcd.text import printable

logger = logging.getLogger(__name__)

#: Longest line that is judged again if its failure was lost; `[spool] max_line_bytes` is no longer known.
MAX_JUDGED_BYTES = LINE_BYTES


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that was claimed and is not a job yet."""

    job: str
    drop: Drop


@dataclass(frozen=True, slots=True)
class Recovery:
    """The jobs and files to continue with.

    Attributes:
        jobs: Headers of unfinished jobs, oldest first.
        unpublished: Ids of jobs whose outputs are written and only need the rename.
        claims: Files to accept.
        controls: {job: its orders}, for jobs that have some.
        damaged: Folders that cannot be read; they are kept for a person to examine.
        quarantined: Headers of jobs in quarantine (see `crash_count`).
        in_vain: `{job: how often it was begun in vain}`, without zeros.
    """

    jobs: tuple[JobHeader, ...]
    unpublished: tuple[str, ...]
    claims: tuple[Claim, ...]
    damaged: tuple[str, ...]
    controls: Mapping[str, JobControls] = field(default_factory=dict)
    quarantined: tuple[JobHeader, ...] = ()
    in_vain: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job and the state of its ledger.

    Attributes:
        column: The signature number of each request; empty if all need the same one.
        sizes: The length of each request's line, as `longest_first.sort_sizes` needs it.
        times: By ordinal, how many requests have its result; None: each has its own. A request with the result of
            another one counts as done in `replay`.
        lanes: The requests that share a long beginning of their prompts; None if there are none.
        work_sizes: The length of each request's line, as `work_left` needs it; empty for a huge job.
    """

    header: JobHeader
    replay: ledger.Replay
    column: bytes
    sizes: bytes = b""
    times: array[int] | None = None
    lanes: LaneIndex | None = None
    work_sizes: bytes = b""


def recover(layout: Layout) -> Recovery:
    """Find jobs and claims; remove files that were never committed."""
    job_folders, claim_folders = _folders(layout.jobs), _folders(layout.claims)
    for folder in (layout.jobs, layout.claims, *job_folders, *claim_folders):
        # A process that was killed between a rename and its sync left a name that a power cut can undo; what is built
        # on it from now on (a result in a job's ledger) must not be undone with it.
        disk.sync_folder(folder)
    jobs: list[JobHeader] = []
    unpublished: list[str] = []
    damaged: list[str] = []
    for folder in job_folders:
        if folder.name.endswith(".tmp"):
            disk.remove_tree(folder)
        elif (folder / "manifest.json").exists():
            unpublished.append(folder.name)
        else:
            _sort_in(layout, folder, jobs, damaged)
    known = {header.id for header in jobs} | set(unpublished) | set(damaged)
    found = [_read_claim(layout, folder) for folder in claim_folders]
    claims = [claim for claim in found if claim is not None]
    waiting = tuple(claim for claim in claims if claim.job not in known)
    for header in jobs:
        finish_binding(layout, layout.jobs / header.id)
    controls = {header.id: read_job_controls(layout.jobs / header.id) for header in jobs}
    apart = {header.id for header in jobs if crash_count.is_quarantined(layout.jobs / header.id)}
    in_vain = {header.id: crash_count.deaths(layout.jobs / header.id) for header in jobs}
    return Recovery(
        tuple(header for header in jobs if header.id not in apart),
        tuple(unpublished),
        waiting,
        tuple(damaged),
        controls={job: binding for job, binding in controls.items() if binding != JobControls()},
        quarantined=tuple(header for header in jobs if header.id in apart),
        in_vain={job: times for job, times in in_vain.items() if times},
    )


def _folders(parent: Path) -> list[Path]:
    """Return the folders in one of obcd's folders, sorted; any other entry is not obcd's and stays untouched."""
    entries = sorted(parent.iterdir())
    for entry in entries:
        if entry.is_symlink() or not entry.is_dir():
            logger.warning("%s is not one of obcd's folders: ignored", printable(str(entry)), extra={"action": "stray"})
    return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]


def begin_job(layout: Layout, job: str, counted: int | None = None) -> LoadedJob | None:
    """Load a job for work and count that; return None if it is in quarantine (see `crash_count`)."""
    loaded = load_job(layout, job, counted)
    note_quarantine(layout.root, loaded.header, loaded.replay.size)
    return loaded if crash_count.begin(layout.jobs / job, loaded.replay.size) else None


def load_job(layout: Layout, job: str, counted: int | None = None) -> LoadedJob:
    """Read a job's ledger and cut off its damaged tail; bad lines that lose their failures get them again.

    Args:
        counted: As for `ledger.replay`.
    """
    folder = layout.jobs / job
    header = read_header(folder)
    column = signature_column(folder) if len(header.signatures) > 1 else b""
    firsts = read_firsts(folder, header)
    times = times_of(firsts) if firsts is not None else None
    replay = ledger.replay(folder / ledger.NAME, header.requests, times, counted)
    if replay.counts.failures < header.bad_lines:  # acceptance wrote them first: damage to one cut all records after it
        _fail_bad_lines(folder, header, replay)
        replay = ledger.replay(folder / ledger.NAME, header.requests, times, counted)
    if times is not None:
        done = bytes(done or not count for done, count in zip(replay.done, times, strict=True))
        replay = replace(replay, done=done)
    lengths = length_column(folder) if header.requests <= MOST_REQUESTS else []
    lanes = read_lanes(folder, header.requests)
    return LoadedJob(
        header,
        replay,
        column,
        sort_sizes(lengths),
        times,
        lanes and lanes.prepare(replay.done, column),
        sizes_of(lengths),
    )


def _fail_bad_lines(folder: Path, header: JobHeader, replay: ledger.Replay) -> None:
    """Write the failures of bad lines into a ledger that lost them: these lines cannot be sent."""
    records = []
    with open(folder / "input.jsonl", "rb") as lines:
        for ordinal, place in enumerate(read_places(folder)):
            fault = None if replay.done[ordinal] else _find_fault(lines, place, header)
            if fault is not None:
                records.append(encode(fault.failure(ordinal, place.line)))
    with contextlib.closing(ledger.LedgerWriter(folder, replay.size)) as writer:
        writer.append(records)


def _find_fault(lines: IO[bytes], place: Place, header: JobHeader) -> Fault | None:
    """Return the fault of a line, as acceptance did."""
    try:
        if place.length > MAX_JUDGED_BYTES:
            raise LineError(f"longer than {MAX_JUDGED_BYTES} bytes")
        lines.seek(place.offset)
        raw = lines.read(place.length)
        if is_mostly_structure(raw):
            raise LineError(MOSTLY_STRUCTURE)
        request = parse_line(raw, place.line, header.settings.reading)
        if signature_of(request, _planned(request, place, header)) not in header.signatures:
            raise LineError("its model and context length are one kind too many for one file")
    except LineError as error:
        return bad_line(error)
    return None


def _planned(request: Request, place: Place, header: JobHeader) -> JobSettings:
    """Return the settings of a request by the plan of its job's context lengths."""
    if header.settings.num_ctx_max is None:
        return header.settings
    step = Gauge(header.settings).step(request, place.length)
    return replace(header.settings, num_ctx=header.context.length(step)) if header.context else header.settings


def _sort_in(layout: Layout, folder: Path, jobs: list[JobHeader], damaged: list[str]) -> None:
    try:
        header = read_header(folder)
        if header.id != folder.name:
            raise ValueError("it is the header of another job")
        jobs.append(header)
    except (OSError, ValueError, KeyError, TypeError):
        claimed = any(layout.claims.glob(f"{folder.name}*"))
        if claimed:  # the original is still there: accept it again
            extra = {"action": "job_damaged", "job": folder.name}
            logger.warning("job %s is damaged and is accepted again", folder.name, extra=extra)
            disk.remove_tree(folder)
        else:
            extra = {"action": "job_damaged", "job": folder.name}
            logger.error("job %s cannot be read: examine %s", folder.name, folder, extra=extra)  # noqa: TRY400
            damaged.append(folder.name)


def _read_claim(layout: Layout, folder: Path) -> Claim | None:
    job, _, profile = folder.name.partition("@")
    files = [path for path in folder.iterdir() if not path.name.endswith(MARKER_SUFFIX)]
    if not files:
        disk.remove_tree(folder)
        return None
    file = files[0]
    key, identity = Key(profile, file.name), Identity.of(file.lstat())
    left = marker_of((layout.inbox / profile if profile else layout.inbox) / file.name)
    marker = _find_marker(folder / left.name, identity.uid)
    if marker is None:  # the crash may have come between the claim of the file and that of its marker
        marker = _find_marker(left, identity.uid)
        if marker is not None and marker.size != identity.size:  # it belongs to a newer drop, or to none
            marker = None
        if marker is not None:
            claim_marker(left.with_name(file.name), folder, marker, identity.uid)
    return Claim(job, Drop(key, identity, marker))


def _find_marker(path: Path, owner: int) -> Marker | None:
    try:
        return read_marker(path, owner)
    except (OSError, ValueError):
        return None
