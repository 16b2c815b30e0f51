"""A spool in a temporary folder, and the steps of a job's life by hand: what the tests of this folder share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.record_codec import encode, to_ascii
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.records import JobSettings
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.inbox.markers import Marker, read_small
from obcd.spool.inbox.names import marker_of
from obcd.spool.intake.acceptance import Accepted, accept
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import publication

SETTINGS = JobSettings(model="llama3.2")
THREE = b'{"prompt": "one"}\n{"prompt": "two"}\n{"prompt": "three"}\n'


def scan(inbox: Inbox, now: float) -> list[Drop]:
    """Look at every entry of an inbox once, however long that takes."""
    drops = inbox.look(now, float("inf"))
    assert drops is not None
    return drops


def make_layout(root: Path, *profiles: str) -> Layout:
    layout = Layout.at(root)
    layout.create(list(profiles))
    return layout


def put(layout: Layout, content: bytes, name: str = "notes.jsonl", profile: str = "") -> Path:
    path = layout.inbox / profile / name
    path.write_bytes(content)
    return path


def put_marker(file: Path, **document: Any) -> Path:
    path = marker_of(file)
    path.write_text(json.dumps(document) if document else "", "utf-8")
    return path


def drop_of(file: Path, profile: str = "") -> Drop:
    marker = marker_of(file)
    found = Marker.parse(read_small(marker)) if marker.exists() else None
    return Drop(Key(profile, file.name), Identity.of(file.stat()), found)


def order_of(drop: Drop, job: str = "job1", **changes: Any) -> AcceptOrder:
    values = {"settings": SETTINGS, "max_line_bytes": 2**20, "reject_torn": False, **changes}
    return AcceptOrder(drop=drop, job=job, **values)


def accepted(layout: Layout, order: AcceptOrder) -> JobHeader:
    """Accept a drop that becomes a job, and return the job's header."""
    verdict = accept(layout, order)
    assert isinstance(verdict, Accepted), verdict
    return verdict.header


def accept_bytes(
    layout: Layout, content: bytes, job: str = "job1", name: str = "notes.jsonl", **changes: Any
) -> JobHeader:
    return accepted(layout, order_of(drop_of(put(layout, content, name)), job, **changes))


def answer(ordinal: int, text: str = "fine", **fields: Any) -> bytes:
    record = {
        "ordinal": ordinal,
        "line": ordinal + 1,
        "outcome": "response",
        "attempts": 1,
        "endpoint": "gpu0",
        "response": text,
        "model": "llama3.2",
        "done_reason": "stop",
        "seconds": 0.5,
        "prompt_tokens": 3,
        "eval_tokens": 7,
        "finished": 1795373853.0 + ordinal,
    }
    return to_ascii({**record, **fields})


def failure(ordinal: int, message: str = "no", line: int = 0) -> bytes:
    return encode(Fault(FaultKind.SERVER_ERROR, message, Remedy.HERE).failure(ordinal, line or ordinal + 1, 4, "gpu0"))


def record(layout: Layout, job: str, records: list[bytes]) -> None:
    folder = layout.jobs / job
    writer = ledger.LedgerWriter(folder, (folder / ledger.NAME).stat().st_size)
    try:
        writer.append(records)
    finally:
        writer.close()


def finish(layout: Layout, header: JobHeader) -> Path:
    """Answer what has no result yet, and publish."""
    folder = layout.jobs / header.id
    if not (folder / "manifest.json").exists():
        done = ledger.replay(folder / ledger.NAME, header.requests).done
        record(layout, header.id, [answer(number) for number, flag in enumerate(done) if not flag])
    return publication.publish(layout, header.id, {})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Crashed(BaseException):
    """The process ends here; no `except Exception` may stop it."""


@contextlib.contextmanager
def crash_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Crash just before the `number`-th state-changing call, from 1; yields the list of those that came."""
    calls: list[str] = []

    def before(operation: str, path: str) -> None:
        calls.append(f"{operation} {path}")
        if len(calls) == number:
            raise Crashed(calls[-1])

    with monkeypatch.context() as patch:
        patch.setattr(disk, "before", before)
        yield calls
