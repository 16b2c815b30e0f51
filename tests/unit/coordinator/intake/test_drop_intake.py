"""Intake: how often it looks at the inbox, and what it says of what it took. The clerk never starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.config.tables import Spool
from obcd.coordinator.clerk.calls import LARGE_BYTES, Accept, AcceptClaimed, CallFailed, RejectClaimed
from obcd.coordinator.intake import drop_intake as module
from obcd.coordinator.intake.admission import MOST_TOLD
from obcd.coordinator.intake.drop_intake import (
    AT_THE_CLERK,
    DISK_SECONDS,
    LEAST_PAUSE,
    MANY_IGNORED,
    NO_ROOM,
    PAUSE_BY_COST,
    SCAN_IDLE,
    DropIntake,
)
from obcd.coordinator.jobs.job_index import JobIndex
from obcd.coordinator.view import WaitReason
from obcd.core.request.context import ContextPlan
from obcd.spool.inbox import arrivals as inbox
from obcd.spool.intake.acceptance import Accepted, Verdict
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.intake.recovery import Claim
from obcd.spool.job.job_folder import JobHeader
from tests.golden.wording import wording
from tests.unit.spool.spools import SETTINGS, drop_of, make_layout, put, put_marker

Call = Accept | AcceptClaimed | RejectClaimed
Then = Callable[[Verdict | CallFailed], None]


class Errands:
    """Stands for the clerk: keeps what it is to do."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self.submitted: list[tuple[Call, Then]] = []

    def submit(self, call: Call, then: Then) -> None:
        self.submitted.append((call, then))
        assert call.is_large == (call.order.drop.identity.size > LARGE_BYTES)

    @property
    def orders(self) -> list[AcceptOrder]:
        return [call.order for call, _ in self.submitted]

    def accept(self, requests: int = 1, bad_lines: int = 0) -> None:
        """Answer the oldest errand: the file became a job."""
        call, then = self.submitted.pop(0)
        order = call.order
        (self._inbox / order.drop.key.name).unlink()
        header = JobHeader(
            id=order.job, name=order.drop.key.name, requests=requests, settings=SETTINGS, bad_lines=bad_lines
        )
        then(Accepted(header))


class Bench:
    """An intake over a real inbox, and a count of its scans."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = make_layout(root)
        self.clerk = Errands(self.layout.inbox)
        self.jobs: list[JobHeader] = []
        self.job_index = JobIndex()
        self.intake = DropIntake(Settings(), self.layout, self.clerk, self.job_index)  # type: ignore[arg-type]
        self.scans = 0
        self.cost = 0.0
        self._clock = 0.0
        look = self.intake._inbox.look

        def counted(now: float, seconds: float) -> Any:
            self.scans += 1
            self._clock += self.cost
            return look(now, seconds)

        monkeypatch.setattr(self.intake._inbox, "look", counted)
        for place in (module, inbox):  # a look is never cut into slices because the machine is busy
            monkeypatch.setattr(place, "monotonic", lambda: self._clock)

    def accept(self, requests: int = 1, bad_lines: int = 0) -> None:
        """Have the oldest file accepted, and its job taken in, as the main loop does."""
        self.clerk.accept(requests, bad_lines)
        for header in self.intake.take_accepted():
            self.jobs.append(header)
            self.job_index.add(header)

    def drop(self, name: str) -> None:
        put_marker(put(self.layout, b'{"prompt": "one"}\n', name))

    def reasons(self) -> set[WaitReason]:
        """Return the kinds of the reasons why files wait."""
        return {self.intake.wait_reason(key) for key in self.intake.waiting}

    def accept_all(self, now: float) -> list[str]:
        """Accept what the clerk is to accept, turn by turn, until there is no more; return the names in that order."""
        names = []
        while self.clerk.submitted:
            names.append(self.clerk.orders[0].drop.key.name)
            self.accept()
            self.intake.tick(now)
        return names


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


@pytest.mark.parametrize("cost", [0.0, 0.25])
def test_scans_of_a_burst_are_as_many_as_its_time_allows_and_not_as_its_files(bench: Bench, cost: float) -> None:
    bench.cost = cost
    for number in range(50):
        bench.drop(f"{number}.jsonl")
    bench.intake.tick(0.0)
    assert len(bench.clerk.submitted) == AT_THE_CLERK

    turns = [number / 50 for number in range(1, 51)]  # a verdict every 20 ms for a second
    for now in turns:
        bench.accept()
        bench.intake.tick(now)

    assert len(bench.jobs) == 50
    assert bench.scans <= 2 + 1.0 / max(LEAST_PAUSE, PAUSE_BY_COST * cost)


def test_small_file_is_handed_out_though_more_large_ones_wait_than_their_clerk_is_given(bench: Bench) -> None:
    for number in range(AT_THE_CLERK + 1):
        bench.drop(f"{number}.jsonl")
        os.truncate(bench.layout.inbox / f"{number}.jsonl", LARGE_BYTES + 1)
    bench.drop("small.jsonl")

    bench.intake.tick(0.0)

    names = [order.drop.key.name for order in bench.clerk.orders]
    assert "small.jsonl" in names
    assert len(names) == AT_THE_CLERK + 1


def test_single_drop_is_looked_at_in_the_turn_that_its_event_wakes(bench: Bench) -> None:
    bench.intake.tick(0.0)
    bench.drop("a.jsonl")

    bench.intake.wake()
    assert bench.intake.next_scan() <= 1.0
    bench.intake.tick(1.0)

    assert [order.drop.key.name for order in bench.clerk.orders] == ["a.jsonl"]


def test_keys_that_are_only_echoed_are_told_in_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench.drop("a.jsonl")
    bench.intake.tick(0.0)
    call, then = bench.clerk.submitted.pop()

    header = JobHeader(id=call.order.job, name="a.jsonl", settings=SETTINGS, unobeyed={"temperature": 7})
    then(Accepted(header))

    assert wording("a-jsonl-temperature-line-7-is") in caplog.text


def test_newer_file_of_a_name_is_taken_soon_after_the_verdict_on_the_older(bench: Bench) -> None:
    bench.drop("a.jsonl")
    bench.intake.tick(0.0)

    bench.accept()
    bench.drop("a.jsonl")
    assert bench.intake.next_scan() == LEAST_PAUSE
    bench.intake.tick(LEAST_PAUSE)

    assert len(bench.clerk.submitted) == 1


def test_another_configuration_is_a_scan_at_once(bench: Bench) -> None:
    bench.intake.tick(0.0)

    bench.intake.configure(Settings())

    assert bench.intake.next_scan() == 0.0


@pytest.mark.parametrize(
    ("requests", "bad", "told"),
    [(1, 0, "1 request"), (1, 1, wording("1-request-1-of-them-a")), (30, 2, "30 requests, 2 of them bad lines")],
)
def test_job_is_told_with_its_size(
    bench: Bench, caplog: pytest.LogCaptureFixture, requests: int, bad: int, told: str
) -> None:
    bench.drop("a.jsonl")
    bench.intake.tick(0.0)

    with caplog.at_level(logging.INFO):
        bench.accept(requests, bad)

    assert caplog.messages == [wording("a-jsonl-accepted-as-job", bench.jobs[0].id, told)]


def test_job_is_told_with_the_contexts_that_were_chosen_for_it() -> None:
    plan = ContextPlan(num_ctx=4096, larger=16384, requests=9912, outliers=88)
    header = JobHeader(id="j", name="a.jsonl", requests=10_000, settings=SETTINGS, context=plan)

    assert module._size(header) == wording("10000-requests-num-ctx-4096-for")


# --- room, and shares ------------------------------------------------------------------------------------------------


def test_while_there_is_no_room_files_lie_where_they_are_and_some_are_told_why(bench: Bench) -> None:
    bench.intake.admit(False)
    for number in range(MOST_TOLD + 20):
        bench.drop(f"{number}.jsonl")
    for now in (0.0, 5.0, 10.0, 15.0):
        bench.intake.tick(now)
        assert bench.clerk.submitted == []
    assert list(bench.intake.waiting.values()) == [NO_ROOM] * MOST_TOLD
    assert bench.reasons() == {WaitReason.DISK}
    assert bench.intake.next_scan() == 15.0 + SCAN_IDLE

    bench.intake.admit(True)
    bench.intake.tick(16.0)

    assert len(bench.accept_all(21.0)) == MOST_TOLD + 20
    assert bench.intake.waiting == {}


def test_claim_of_an_earlier_coordinator_waits_for_room_too(bench: Bench) -> None:
    claim = Claim("job1", drop_of(put(bench.layout, b'{"prompt": "one"}\n', "a.jsonl")))
    bench.intake.admit(False)
    bench.intake.resume_claim(claim)
    bench.intake.tick(0.0)
    bench.intake.tick(DISK_SECONDS)
    assert bench.clerk.submitted == []

    bench.intake.admit(True)
    bench.intake.tick(2 * DISK_SECONDS)

    assert [order.job for order in bench.clerk.orders if order.job == "job1"] == ["job1"]


@pytest.mark.case("A30")
def test_file_on_a_share_settles_for_a_minute_unless_it_has_a_marker(bench: Bench) -> None:
    put(bench.layout, b'{"prompt": "one"}\n', "plain.jsonl")
    bench.intake.settle_at_least(60.0)
    bench.intake.configure(Settings())  # a reload changes nothing of that
    bench.intake.tick(0.0)
    bench.drop("marked.jsonl")
    for now in (5.0, 30.0, 59.0):
        bench.intake.tick(now)
        assert [order.drop.key.name for order in bench.clerk.orders] == ["marked.jsonl"]

    bench.intake.tick(64.0)

    assert [order.drop.key.name for order in bench.clerk.orders] == ["marked.jsonl", "plain.jsonl"]


# --- limits, and turns -----------------------------------------------------------------------------------------------


def test_file_that_is_too_large_waits_and_says_what_to_do(bench: Bench) -> None:
    bench.intake.configure(Settings(spool=Spool(max_file_bytes=10)))
    bench.drop("large.jsonl")

    bench.intake.tick(0.0)

    assert bench.clerk.submitted == []
    bench.intake.tick(10.0)
    (why,) = bench.intake.waiting.values()
    assert why.startswith(wording("it-has-18-bytes-and-a"))
    assert bench.reasons() == {WaitReason.FILE}

    bench.intake.configure(Settings())
    bench.intake.tick(11.0)
    assert bench.accept_all(12.0) == ["large.jsonl"]


def test_who_has_enough_under_way_waits_and_is_taken_when_a_job_ends(bench: Bench) -> None:
    # given somebody who may have two jobs
    bench.intake.configure(Settings(spool=Spool(user_jobs=2)))
    for name in "abcd":
        bench.drop(f"{name}.jsonl")

    # when he drops four files, then two are taken, and the others are told why they wait
    bench.intake.tick(0.0)
    assert len(bench.clerk.submitted) == 2
    taken = bench.accept_all(1.0)
    bench.intake.tick(10.0)
    assert len(taken) == 2
    assert len(bench.intake.waiting) == 2
    assert set(bench.intake.waiting.values()) == {wording("its-submitter-may-have-2-jobs")}
    assert bench.reasons() == {WaitReason.LIMIT}

    # when one of them ends
    bench.job_index.remove(bench.jobs[0].id)
    bench.intake.wake_held()
    bench.intake.tick(11.0)
    assert len(bench.accept_all(12.0)) == 1


def test_thousands_of_hidden_files_are_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(MANY_IGNORED):
        (bench.layout.inbox / f".{number}").touch()
    bench.drop("a.jsonl")

    turns, now = 0, 0.0
    while not bench.clerk.submitted:
        bench.intake.tick(now)
        turns, now = turns + 1, now + 0.02
    for now in (10.0, 10.02, 20.0, 20.02, 30.0):
        bench.intake.tick(now)

    assert wording("holds-hidden-or-temporary-files", MANY_IGNORED) in bench.intake.trouble
    assert len([text for text in caplog.messages if "hidden" in text]) == 1


def test_intake_is_at_work_until_every_file_of_a_whole_scan_is_a_job(bench: Bench) -> None:
    def is_at_work() -> bool:  # a call: mypy would take a property for what it was
        return bench.intake.is_at_work

    assert is_at_work()  # no scan has been made
    bench.intake.tick(0.0)
    assert not is_at_work()

    put(bench.layout, b'{"prompt": "one"}\n', "slow.jsonl")
    bench.intake.wake()
    bench.intake.tick(10.0)
    assert bench.intake.settling
    assert is_at_work()

    put_marker(bench.layout.inbox / "slow.jsonl")
    bench.intake.wake()
    bench.intake.tick(20.0)
    assert bench.clerk.submitted
    assert is_at_work()

    bench.accept()
    assert not is_at_work()
