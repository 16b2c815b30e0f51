"""What a report says of a job: of a published one by its manifest, of another by the coordinator's status."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obcd.clock import seconds_of
from obcd.coordinator.view import JobView, View
from obcd.core.answer.openai.openai_response import to_record
from obcd.core.documents import Document
from obcd.reports.report import ReportedJob
from obcd.spool.folders import disk
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.text_files import bounded_lines

#: Deepest folder of a job in the outbox: `user/profile/stem`.
DEPTH = 3
#: Longest line of errors.jsonl that is read.
MAX_LINE_BYTES = 2**26


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts(Document):
    requests: int = 0
    responses: int = 0
    failures: int = 0
    cut_short: int = 0
    empty: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens(Document):
    prompt: int = 0
    eval: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times(Document):
    accepted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    work_seconds: float = 0.0
    span_seconds: float = 0.0
    speedup: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointShare(Document):
    """An endpoint's part of a published job, as in its manifest."""

    gpu: int = 0
    version: str = ""
    responses: int = 0
    eval_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest(Document):
    """What a report uses of a manifest; manifests of older versions have less."""

    job: str
    name: str
    profile: str = ""
    counts: _Counts = field(default_factory=_Counts)
    tokens: _Tokens = field(default_factory=_Tokens)
    times: _Times = field(default_factory=_Times)
    endpoints: Mapping[str, EndpointShare] = field(default_factory=dict)
    digests: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A job, and the parts of its endpoints if it is published."""

    job: ReportedJob
    shares: Mapping[str, EndpointShare] = field(default_factory=dict)


def jobs_between(outbox: Path, start: float, end: float, view: View | None) -> list[FoundJob]:
    """Return the jobs that were published or not finished in a time, the last ones first; those this user may read."""
    found = [unpublished(item) for item in (view.jobs if view is not None else ())]
    for folder in _folders(outbox, start):
        item = read_published(folder)
        if item is not None and _is_within(item.job, start, end):
            found.append(item)
    return sorted(found, key=lambda item: item.job.finished_at or item.job.accepted_at or "9", reverse=True)


def _folders(outbox: Path, start: float) -> Iterator[Path]:
    """Yield the folders whose manifest was written since a time."""
    for depth in range(1, DEPTH + 1):
        for path in outbox.glob("*/" * depth + MANIFEST):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime >= start:
                    yield path.parent


def _is_within(job: ReportedJob, start: float, end: float) -> bool:
    finished, accepted = _seconds(job.finished_at), _seconds(job.accepted_at)
    return (finished is None or finished >= start) and (accepted is None or accepted <= end)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else seconds_of(text)
    except ValueError:
        return None


def read_published(folder: Path) -> FoundJob | None:
    """Return the job of a folder; None for a rejected or repeated file, and for what is not a manifest."""
    try:
        document: Any = disk.read_json(folder / MANIFEST)
        if not isinstance(document, dict) or "rejected" in document or "repeats" in document:
            return None
        found = _Manifest.from_json(document)
    except (OSError, ValueError):
        return None
    counts, tokens, times = found.counts, found.tokens, found.times
    seconds = times.span_seconds or None
    return FoundJob(
        job=ReportedJob(
            job=found.job,
            name=found.name,
            profile=found.profile,
            requests=counts.requests,
            responses=counts.responses,
            failures=counts.failures,
            failures_by_class=_classes(folder) if counts.failures else {},
            cut_short=counts.cut_short,
            empty=counts.empty,
            cached=counts.cached,
            prompt_tokens=tokens.prompt,
            output_tokens=tokens.eval,
            accepted_at=times.accepted_at,
            started_at=times.started_at,
            finished_at=times.finished_at,
            seconds=seconds,
            responses_per_second=round(counts.responses / seconds, 3) if seconds else None,
            output_tokens_per_second=round(tokens.eval / seconds, 1) if seconds else None,
            work_seconds=times.work_seconds,
            speedup=times.speedup,
            models=tuple(found.digests),
            endpoints=tuple(found.endpoints),
        ),
        shares=found.endpoints,
    )


def _classes(folder: Path) -> dict[str, int]:
    """Return `{class: number of failed lines}` by errors.jsonl, without its messages."""
    counts: dict[str, int] = {}
    with contextlib.suppress(OSError), open(folder / "errors.jsonl", "rb") as file:
        for raw in bounded_lines(file, MAX_LINE_BYTES):
            with contextlib.suppress(ValueError, RecursionError):
                document = json.loads(raw)
                kind = to_record(document).get("class") if isinstance(document, dict) else None
                name = kind if isinstance(kind, str) else "unknown"
                counts[name] = counts.get(name, 0) + 1
    return counts


def unpublished(item: JobView) -> FoundJob:
    """Return a job that is not published, with its figures so far."""
    job = ReportedJob(
        job=item.job,
        name=item.name,
        profile=item.profile,
        state=item.state,
        requests=item.total,
        responses=item.done - item.failed,
        failures=item.failed,
        failures_by_class=item.failed_by_class,
        cut_short=item.cut_short,
        empty=item.empty,
        responses_per_second=item.requests_per_second or None,
        output_tokens_per_second=item.tokens_per_second or None,
        work_seconds=item.work_seconds,
    )
    return FoundJob(job=job)
