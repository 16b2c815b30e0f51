"""The lines of the history: sums over them are the counters, and idle slots have their reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.history.idle_slots import find_idle_reason
from obcd.coordinator.history.minutes import LEAST_SECONDS, LINE_SECONDS, MOST_TURNS, HistoryWriter
from obcd.coordinator.metering.counters import CountersView
from obcd.coordinator.view import DaemonState, EndpointView, HostView, LiveView
from obcd.core.answer.counts import Counts
from obcd.core.endpoint.health import EndpointState
from obcd.hosts.record import CardReading
from obcd.spool.history import history_files
from obcd.spool.history.history_files import FOLDER, read_history
from obcd.spool.history.history_line import HistoryLine, IdleReason

ENDPOINT = EndpointView(
    name="a", url="http://a", gpu=0, slots=16, in_flight=16, state="UP", reason="", version="", answered=0, faults=0,
    tokens_per_second=0.0,
)  # fmt: skip
VIEW = LiveView(
    version="1", pid=1, root="/r", inbox="/r/inbox", outbox="/r/outbox", state="READY", updated=1e9, updated_at="",
    endpoints=(ENDPOINT,), unfinished=1, requests=100, requests_waiting=50,
)  # fmt: skip


class Minutes:
    """A writer whose recorder works at once, unless it is held."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.is_held = root, 1000.0, False
        self.errands: list[Callable[[], object]] = []
        self.writer = HistoryWriter(root, self.run)

    def run(self, errand: Callable[[], object]) -> None:
        self.errands.append(errand)
        if not self.is_held:
            self.release()

    def release(self) -> None:
        while self.errands:
            self.errands.pop()()

    def show(self, view: LiveView, seconds: float) -> None:
        """Show a view each second for some seconds."""
        for _ in range(round(seconds)):
            self.now += 1.0
            self.writer.tick(replace(view, updated=1e9 + self.now), self.now)

    def lines(self) -> list[HistoryLine]:
        return list(read_history(self.root))


@pytest.fixture
def minutes(tmp_path: Path) -> Minutes:
    made = Minutes(tmp_path)
    made.writer.tick(VIEW, made.now)
    return made


def test_a_line_is_written_each_minute(minutes: Minutes) -> None:
    minutes.show(VIEW, 3.5 * LINE_SECONDS)

    assert [line.seconds for line in minutes.lines()] == [LINE_SECONDS] * 3
    assert [line.time for line in minutes.lines()] == [1e9 + 1000 + LINE_SECONDS * n for n in (1, 2, 3)]


def test_the_last_line_is_shorter_and_completes_the_sums(minutes: Minutes) -> None:
    counted = replace(VIEW, counters=CountersView(responses=7))
    minutes.show(VIEW, LINE_SECONDS)
    minutes.now += 0.5
    minutes.writer.finish(counted, minutes.now)
    minutes.writer.finish(counted, minutes.now)

    assert [(line.seconds, line.responses) for line in minutes.lines()] == [(LINE_SECONDS, 0), (0.5, 7)]


def test_sums_over_lines_are_the_counters(minutes: Minutes) -> None:
    counters = CountersView()
    for step in (1, 2, 5):
        counters = CountersView(
            responses=step * 10, failures={"timeout": step}, retries={"busy": 2 * step}, prompt_tokens=step * 1000,
            output_tokens=step * 100, cache_hits=step,
        )  # fmt: skip
        minutes.show(replace(VIEW, counters=counters), LINE_SECONDS)
    minutes.show(replace(VIEW, counters=counters), LINE_SECONDS)

    lines = minutes.lines()
    assert [line.responses for line in lines] == [10, 10, 30, 0]
    assert [line.failures for line in lines] == [{"timeout": 1}, {"timeout": 1}, {"timeout": 3}, {}]
    assert [line.retries for line in lines][2:] == [{"busy": 6}, {}]
    assert [(line.prompt_tokens, line.output_tokens, line.cache_hits) for line in lines][2] == (3000, 300, 3)


def test_what_an_earlier_coordinator_counted_is_in_no_line(tmp_path: Path) -> None:
    minutes = Minutes(tmp_path)
    minutes.writer.tick(replace(VIEW, counters=CountersView(responses=1000, failures={"timeout": 3})), minutes.now)
    minutes.show(replace(VIEW, counters=CountersView(responses=1007, failures={"timeout": 3})), LINE_SECONDS)

    assert [(line.responses, line.failures) for line in minutes.lines()] == [(7, {})]


def test_endpoint_counts_what_it_did_since_the_last_line_and_from_0_when_it_comes_again(minutes: Minutes) -> None:
    for answered in (5, 9, 2):
        item = replace(ENDPOINT, answered=answered, faults=0, prompt_tokens=10 * answered, output_tokens=answered)
        minutes.show(replace(VIEW, endpoints=(item,)), LINE_SECONDS)

    assert [line.endpoints.answered for line in minutes.lines()] == [(5,), (4,), (2,)]
    assert [line.endpoints.prompt_tokens for line in minutes.lines()] == [(50,), (40,), (20,)]


def test_each_job_has_its_results_and_no_line_has_those_of_another(minutes: Minutes) -> None:
    minutes.writer.on_recorded("j1", Counts(responses=1, prompt_tokens=100, eval_tokens=10, work_seconds=2.5))
    minutes.writer.on_recorded("j2", Counts(failures=1, prompt_tokens=7))
    minutes.writer.on_recorded("j1", Counts(responses=2, cached=2, prompt_tokens=200, eval_tokens=20))
    minutes.show(VIEW, LINE_SECONDS)
    minutes.writer.on_recorded("j2", Counts(responses=1))
    minutes.show(VIEW, LINE_SECONDS)

    first, second = (line.active for line in minutes.lines())
    assert (first.job, first.done, first.failed) == (("j1", "j2"), (3, 1), (0, 1))
    assert (first.prompt_tokens, first.output_tokens) == ((100, 7), (10, 0))
    assert first.work_seconds == (2.5, 0.0)
    assert (second.job, second.done) == (("j2",), (1,))


def test_slots_are_summed_over_time(minutes: Minutes) -> None:
    minutes.show(VIEW, 20)
    minutes.show(replace(VIEW, endpoints=(replace(ENDPOINT, in_flight=4),)), 20)
    minutes.show(replace(VIEW, endpoints=(replace(ENDPOINT, in_flight=0),), requests_waiting=0), 20)

    (line,) = minutes.lines()
    assert (line.slot_seconds, line.busy_seconds) == (16 * 60, 16 * 20 + 4 * 20)
    assert (line.endpoints.slot_seconds, line.endpoints.busy_seconds) == ((16 * 60,), (16 * 20 + 4 * 20,))
    assert line.idle_seconds == {IdleReason.NO_FITTING_REQUEST: 12 * 20}


def test_a_line_ends_when_work_begins_and_when_it_ends(minutes: Minutes) -> None:
    idle = replace(VIEW, unfinished=0)
    minutes.show(VIEW, LINE_SECONDS)
    minutes.show(idle, 20)
    minutes.show(VIEW, 30)
    minutes.show(idle, 1)

    assert [line.seconds for line in minutes.lines()] == [LINE_SECONDS, 1.0, 20.0, 30.0]


def test_jobs_that_come_and_go_make_few_lines(minutes: Minutes) -> None:
    for _ in range(150):
        minutes.show(VIEW, 1)
        minutes.show(replace(VIEW, unfinished=0), 1)

    assert len(minutes.lines()) <= 300 / LEAST_SECONDS + MOST_TURNS


def test_energy_of_a_record_is_brought_forward_to_the_time_of_the_line(minutes: Minutes) -> None:
    known = CardReading(uuid="GPU-1", power_watts=300.0, energy_joules=5e6, age_seconds=2.0)
    host = HostView(name="h", state="serving", age_seconds=4.0, cards=(known, CardReading(uuid="GPU-2")))
    minutes.show(replace(VIEW, hosts=(host,), cards=(replace(known, uuid="GPU-3"),)), 61)

    assert minutes.lines()[0].cards.energy_joules == (5e6 + 1800, None, 5e6 + 600)


def test_time_in_which_an_endpoint_is_up_is_summed(minutes: Minutes) -> None:
    minutes.show(VIEW, 20)
    minutes.show(replace(VIEW, endpoints=(replace(ENDPOINT, state=EndpointState.DOWN),)), 40)

    assert minutes.lines()[0].endpoints.up_seconds == (20.0,)


def test_a_machine_that_slept_does_not_count_its_sleep(minutes: Minutes) -> None:
    minutes.show(VIEW, 1)
    minutes.now += 3600
    minutes.show(VIEW, 1)

    assert minutes.lines()[0].slot_seconds < 16 * 20


@pytest.mark.parametrize(
    ("view", "endpoint", "reason"),
    [
        ({"state": DaemonState.DRAINING, "is_short_of_disk": True}, {}, IdleReason.STOPPING),
        ({"is_short_of_disk": True}, {"state": EndpointState.DOWN}, IdleReason.DISK),
        ({}, {"state": EndpointState.DOWN, "left_out": ("m",)}, IdleReason.ENDPOINT_DOWN),
        ({}, {"state": EndpointState.STARTING}, IdleReason.ENDPOINT_STARTING),
        ({}, {"state": EndpointState.SUSPECT}, IdleReason.ENDPOINT_SUSPECT),
        ({}, {"state": EndpointState.DRAINING}, IdleReason.ENDPOINT_DRAINING),
        ({}, {"left_out": ("it has no model m",)}, IdleReason.LEFT_OUT),
        ({}, {}, IdleReason.NO_FITTING_REQUEST),
        ({}, {"state": "LATER"}, IdleReason.NO_FITTING_REQUEST),
    ],
)
def test_idle_slot_has_its_reason(view: dict[str, object], endpoint: dict[str, object], reason: IdleReason) -> None:
    found = find_idle_reason(replace(VIEW, **view), replace(ENDPOINT, **endpoint))  # type: ignore[arg-type]

    assert found is reason


def test_line_has_what_the_cards_of_hosts_report(minutes: Minutes) -> None:
    cards = (
        CardReading(uuid="GPU-1", index=0, name="H100", utilization=0.5, power_watts=300.0, energy_joules=5e6),
        CardReading(uuid="GPU-2", index=1, name="H100", utilization=1.0, power_watts=400.0, xid_errors=2, last_xid=79),
        CardReading(uuid="GPU-3", index=2, is_lost=True),
    )
    host = HostView(name="gpu1", state="serving", endpoints=("a",), cards=cards)
    minutes.show(replace(VIEW, hosts=(host,)), LINE_SECONDS)

    (line,) = minutes.lines()
    assert (line.utilization, line.power_watts) == (0.75, 700.0)
    assert (line.cards.uuid, line.cards.host) == (("GPU-1", "GPU-2", "GPU-3"), ("gpu1",) * 3)
    assert (line.cards.energy_joules, line.cards.last_xid) == ((5e6, None, None), (None, 79, None))
    assert (line.endpoints.host, line.endpoints.gpu) == (("gpu1",), (0,))


def test_lines_wait_while_the_disk_refuses_and_are_written_when_it_does_not(
    minutes: Minutes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(history_files, "_append", refuse)
        minutes.show(VIEW, 2 * LINE_SECONDS)
    assert (minutes.lines(), [item.action for item in caplog.records]) == ([], ["history_failed"])  # type: ignore[attr-defined]

    minutes.show(VIEW, LINE_SECONDS)
    assert len(minutes.lines()) == 3


def test_no_file_is_touched_by_the_main_loop(minutes: Minutes) -> None:
    minutes.is_held = True
    minutes.show(VIEW, 2 * LINE_SECONDS)
    assert not (minutes.root / FOLDER).exists()

    minutes.release()
    assert len(minutes.lines()) == 2


def test_without_a_root_no_history_is_kept() -> None:
    errands: list[object] = []
    writer = HistoryWriter(None, errands.append)
    writer.on_recorded("j", Counts(responses=1))
    for second in range(200):
        writer.tick(VIEW, float(second))
    writer.finish(VIEW, 200.0)

    assert errands == []


def test_line_of_28_endpoints_with_a_card_each_has_some_kilobytes(minutes: Minutes) -> None:
    cards = tuple(
        CardReading(
            uuid=f"GPU-{n:08x}-1111-2222-3333-444455556666", index=n % 8, name="NVIDIA H100", utilization=0.93,
            memory_used_bytes=76_235_669_504, power_watts=612.5, energy_joules=1234567.891 * n, temperature_celsius=64,
        )
        for n in range(28)
    )  # fmt: skip
    items = tuple(
        replace(ENDPOINT, name=f"10.0.0.{n}:11432", answered=99 * n, prompt_tokens=90_000 * n, output_tokens=40_000 * n)
        for n in range(28)
    )
    host = HostView(name="gpu-host-1", state="serving", endpoints=tuple(item.name for item in items), cards=cards)
    minutes.show(replace(VIEW, hosts=(host,), endpoints=items), LINE_SECONDS)

    (line,) = minutes.lines()
    assert len(json.dumps(line.to_json(), separators=(",", ":"))) < 6500
