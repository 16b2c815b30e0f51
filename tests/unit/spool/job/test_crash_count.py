"""How often a job was begun in vain, by hand; tests/faults/test_quarantine.py has the coordinators that die of it."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from obcd.core.events import EventKind
from obcd.spool.folders import disk
from obcd.spool.folders.event_files import find_events, open_folder, read_event
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.recovery import begin_job, recover
from obcd.spool.job import crash_count, ledger
from obcd.spool.job.crash_count import LIMIT, Begun, times_in_vain
from obcd.spool.outbox import publication
from tests.unit.spool.spools import THREE, Crashed, accept_bytes, answer, record


@pytest.fixture
def layout(layout: Layout) -> Layout:
    accept_bytes(layout, THREE)
    return layout


def begin(layout: Layout, times: int) -> None:
    for _ in range(times):
        assert begin_job(layout, "job1") is not None


@pytest.mark.parametrize(
    ("begun", "times"),
    [
        (None, 0),
        (Begun(booted_at=1000.0, ledger_bytes=70, times=4), 4),
        (Begun(booted_at=1001.5, ledger_bytes=70, times=4), 4),  # the wall clock was set right
        (Begun(booted_at=940.0, ledger_bytes=70, times=4), 0),  # the machine was started anew
        (Begun(booted_at=1000.0, ledger_bytes=35, times=4), 0),  # a result came since
    ],
    ids=["never", "same", "clock", "reboot", "result"],
)
def test_only_what_is_the_same_machine_and_the_same_ledger_was_in_vain(begun: Begun | None, times: int) -> None:
    assert times_in_vain(begun, 70, 1000.0) == times


def test_job_begun_five_times_in_vain_is_kept_apart_and_nothing_of_it_is_lost(layout: Layout) -> None:
    before = set(os.listdir(layout.jobs / "job1"))
    begin(layout, LIMIT)
    assert recover(layout).in_vain == {"job1": LIMIT}

    assert begin_job(layout, "job1") is None

    found = recover(layout)
    assert [header.id for header in found.quarantined] == ["job1"]
    assert (found.jobs, found.claims, found.damaged) == ((), (), ())
    assert before < set(os.listdir(layout.jobs / "job1"))
    assert begin_job(layout, "job1") is None


def test_new_result_begins_the_count_anew(layout: Layout) -> None:
    begin(layout, LIMIT)
    record(layout, "job1", [answer(0)])

    assert recover(layout).in_vain == {}
    begin(layout, LIMIT)


def test_orderly_stop_begins_the_count_anew(layout: Layout) -> None:
    for _ in range(3):
        begin(layout, LIMIT)
        crash_count.clear(layout.jobs / "job1")
    crash_count.clear(layout.jobs / "job1")

    assert recover(layout).in_vain == {}


def test_torn_record_of_a_coordinator_that_dies_of_writing_it_is_no_result(layout: Layout) -> None:
    for _ in range(LIMIT):
        begin(layout, 1)
        with (layout.jobs / "job1" / ledger.NAME).open("ab") as file:
            file.write(b"0123abcd {")

    assert begin_job(layout, "job1") is None


def test_released_job_is_begun_again_and_published_without_a_trace(layout: Layout) -> None:
    begin(layout, LIMIT)
    assert begin_job(layout, "job1") is None

    for _ in range(2):
        crash_count.release(layout.jobs / "job1")

    begin(layout, LIMIT)
    record(layout, "job1", [answer(number) for number in range(3)])
    folder = publication.publish(layout, "job1", {})
    assert sorted(os.listdir(folder)) == ["input.jsonl", "manifest.json", "responses.jsonl"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"booted_at": "x"}', b'{"times": null}', b"\xff"], ids=repr)
def test_count_that_cannot_be_read_counts_from_one(layout: Layout, content: bytes) -> None:
    begin(layout, 3)
    (layout.jobs / "job1" / crash_count.BEGUN).write_bytes(content)

    assert crash_count.deaths(layout.jobs / "job1") == 0
    begin(layout, 1)
    assert crash_count.deaths(layout.jobs / "job1") == 1


def test_job_is_begun_though_a_full_disk_takes_no_count(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "show_json", refuse)

    begin(layout, 2 * LIMIT)

    assert crash_count.deaths(layout.jobs / "job1") == 0


def test_event_of_a_quarantine_is_written_before_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    open_folder(layout.root)
    begin(layout, LIMIT)
    assert find_events(layout.root) == []

    def crash(operation: str, path: str) -> None:
        if path.endswith(crash_count.QUARANTINED):
            raise Crashed(operation)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "before", crash)
        with pytest.raises(Crashed):
            begin_job(layout, "job1")
    assert not crash_count.is_quarantined(layout.jobs / "job1")
    assert len(find_events(layout.root)) == 1
    assert begin_job(layout, "job1") is None
    assert begin_job(layout, "job1") is None

    (*_, name) = find_events(layout.root)
    found = read_event(layout.root, name)
    assert found is not None
    assert (found.event.kind, found.event.job) == (EventKind.QUARANTINED, "job1")
