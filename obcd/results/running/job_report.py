"""What `obcd status JOB` shows: how far a job is, and its failures by class with the first message of each."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obcd.coordinator.view import View
from obcd.errors import InputError
from obcd.results.running.failures import FailureClass, published_failures, recorded_failures
from obcd.results.running.finding import NamedJob, Stage, find_job, read_progress
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.text import duration, one_line, plural, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """The state of one job.

    Attributes:
        state: A `JobState`, or PUBLISHED, or WAITING for a file of the inbox.
        progress: The job as in status.json, or its counts in the manifest.
        failures: `{class: its failures}`; a message is "" if this user may not read it yet.
        why: Why it does not continue, or what its submitter asked for and does not get; "" for neither.
    """

    found: NamedJob
    state: str
    progress: dict[str, Any]
    failures: dict[str, FailureClass]
    why: str = ""

    def to_json(self) -> dict[str, object]:
        """Return it for machines."""
        failures = {
            kind: {"count": item.count, "line": item.line or None, "message": item.message or None}
            for kind, item in self.failures.items()
        }
        folder = str(self.found.folder) if self.found.folder is not None else None
        head = {"name": self.found.key.name, "profile": self.found.key.profile, "job": self.found.job or None}
        return {**head, "state": self.state, "folder": folder, **self._numbers(), "failures": failures, "why": self.why}

    def text(self) -> str:
        """Return it for people."""
        lines = [f"{self.found.label}  {self.state}" + (f"  job {self.found.job}" if self.found.job else "")]
        if self.found.folder is not None:
            lines.append(f"  in {printable(str(self.found.folder))}")
        if self.why:
            lines.append(f"  {one_line(self.why)}")
        numbers = self._numbers()
        if numbers["total"]:
            lines.append(f"  {_describe(numbers)}")
        for kind, item in self.failures.items():
            first = f"  line {item.line}: {one_line(item.message)}" if item.message else ""
            lines.append(f"  {item.count:6} {printable(kind)}{first}")
        return "\n".join(lines) + "\n"

    def _numbers(self) -> dict[str, Any]:
        keys = ("total", "done", "failed", "cut_short", "empty", "requests_per_second", "eta_seconds")
        return {key: self.progress.get(key) for key in keys}


def describe_job(layout: Layout, view: View | None, word: str) -> JobReport:
    """Return the state of the job that a person names.

    Raises:
        InputError: If this user sees no such job.
    """
    found = find_job(layout, view, word)
    if found is None:
        raise InputError(f"there is no job '{printable(word)}': obcd status lists those that are not published")
    if found.stage is Stage.COMING:
        why = next((item.why for item in (view.waiting if view else ()) if item.file == found.label), "")
        return JobReport(found=found, state="WAITING", progress={}, failures={}, why=why)
    if found.folder is not None:
        state = "REJECTED" if found.stage is Stage.REJECTED else "PUBLISHED"
        failures, manifest = published_failures(found.folder), _manifest(found.folder)
        why = found.why or str(_table(manifest, "input").get("remark", ""))
        return JobReport(found=found, state=state, progress=_counts(manifest), failures=failures, why=why)
    partial = read_progress(layout, found)
    item = view.find_job(found.job) if view is not None else None
    progress: dict[str, Any] = dict(item.to_json()) if item is not None else partial[1] if partial is not None else {}
    failures = _failures(layout, found, progress, partial[0] if partial is not None else None)
    state = str(progress.get("state", "ACCEPTED"))
    why = str(progress.get("trouble") or progress.get("remark") or "")
    return JobReport(found=found, state=state, progress=progress, failures=failures, why=why)


def _failures(
    layout: Layout, found: NamedJob, progress: dict[str, Any], partial: Path | None
) -> dict[str, FailureClass]:
    """Return a running job's failures, as far as this user may read them."""
    with contextlib.suppress(OSError):
        return recorded_failures(layout.jobs / found.job)
    counted = progress.get("failed_by_class")
    failures = {kind: FailureClass(count) for kind, count in counted.items()} if isinstance(counted, dict) else {}
    for kind, shown in (published_failures(partial) if partial is not None else {}).items():
        known = failures.setdefault(kind, shown)
        known.line, known.message = shown.line, shown.message
    return failures


def _manifest(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        document = json.loads((folder / MANIFEST).read_bytes())
        return document if isinstance(document, dict) else {}
    return {}


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _counts(manifest: dict[str, Any]) -> dict[str, Any]:
    counts = _table(manifest, "counts")
    names = {"total": "requests", "done": "requests", "failed": "failures", "cut_short": "cut_short", "empty": "empty"}
    return {key: counts.get(name) for key, name in names.items()}


def _describe(numbers: dict[str, Any]) -> str:
    parts = [f"{numbers['done'] or 0} of {plural(numbers['total'], 'request')} done"]
    parts += [f"{numbers['failed']} failed"] if numbers["failed"] else []
    parts += [f"{numbers['cut_short']} cut short"] if numbers["cut_short"] else []
    parts += [f"{numbers['empty']} empty"] if numbers["empty"] else []
    if numbers["requests_per_second"]:
        parts.append(f"{numbers['requests_per_second']} requests/s")
    if numbers["eta_seconds"] is not None:
        parts.append(f"{duration(numbers['eta_seconds'])} to go")
    return ", ".join(parts)
