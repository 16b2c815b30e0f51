from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from obcd.logs.burst_filter import FIRST, LOOK_SECONDS, MOST_SECONDS, MOST_TEXTS, SAME, SECONDS, BurstFilter
from tests.golden.wording import wording


class Told(logging.Handler):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Bench:
    """A filter on a handler; clock and timer are the test's."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told = Told()
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.filter = BurstFilter(self.told, lambda: self.now, lambda s, call: self.alarms.append((self.now + s, call)))
        self.log = logging.Logger("obcd.test")  # noqa: LOG001 - of this test alone, in no tree
        self.log.addHandler(self.told)

    def fail(self, line: int, job: str = "j1", endpoint: str = "gpu0", fault: str = "timeout") -> None:
        extra = {"action": "request_failed", "job": job, "line": line, "endpoint": endpoint, "fault": fault}
        self.log.warning("line %d failed", line, extra=extra)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.alarms and min(self.alarms)[0] <= end:
            alarm = min(self.alarms, key=lambda item: item[0])
            self.alarms.remove(alarm)
            self.now = alarm[0]
            alarm[1]()
        self.now = end


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_few_are_told_one_by_one(bench: Bench) -> None:
    for line in range(FIRST):
        bench.fail(line)
    bench.pass_time(1000)

    assert bench.told.texts() == [f"line {line} failed" for line in range(FIRST)]
    assert bench.alarms == []


def test_burst_is_told_as_a_number_without_any_further_event(bench: Bench) -> None:
    for line in range(FIRST + 37):
        bench.fail(line)
    assert len(bench.told.records) == FIRST

    bench.pass_time(SECONDS)

    summary = bench.told.records[-1]
    assert summary.getMessage() == wording("and-37-more-like-it-within", FIRST + 36)
    assert (summary.levelname, vars(summary)["job"], vars(summary)["line"]) == ("WARNING", "j1", "")
    assert vars(summary)["repeats"] == 37


def test_events_that_go_on_for_long_are_told_ever_less_often(bench: Bench) -> None:
    for second in range(7200):
        bench.fail(second)
        bench.pass_time(1.0)

    assert len(bench.told.records) < 40
    told = sum(vars(record).get("repeats", 1) for record in bench.told.records)
    held = 7200 - told
    assert 0 <= held <= MOST_SECONDS
    bench.filter.flush()
    assert sum(vars(record).get("repeats", 1) for record in bench.told.records) == 7200


def test_after_a_pause_it_begins_anew(bench: Bench) -> None:
    for line in range(FIRST + 1):
        bench.fail(line)
    bench.pass_time(SECONDS * 10)
    bench.told.records.clear()

    for line in range(FIRST):
        bench.fail(line)

    assert len(bench.told.records) == FIRST


@pytest.mark.parametrize("change", [{"job": "j2"}, {"endpoint": "gpu1"}, {"fault": "server_error"}])
def test_what_differs_is_counted_apart(bench: Bench, change: dict[str, str]) -> None:
    for line in range(FIRST + 5):
        bench.fail(line)

    bench.fail(1, **change)

    assert len(bench.told.records) == FIRST + 1


def test_other_events_are_never_held_back(bench: Bench) -> None:
    assert "job_published" not in SAME
    for _ in range(100):
        bench.log.info("a.jsonl published", extra={"action": "job_published", "job": "j"})
        bench.log.info("plain")

    assert len(bench.told.records) == 200


def test_states_of_an_endpoint_that_flaps_are_counted_and_the_last_one_told_is_the_last(bench: Bench) -> None:
    for number in range(99):
        text = ("is DOWN: refused", "is being tried again", "is UP again")[number % 3]
        bench.log.info("endpoint gpu0 %s", text, extra={"action": "endpoint_state", "endpoint": "gpu0"})

    bench.filter.flush()

    assert len(bench.told.records) == FIRST + 1
    assert bench.told.records[-1].getMessage().endswith(wording("the-last-endpoint-gpu0-is-up"))


def test_what_is_held_at_the_end_is_told(bench: Bench) -> None:
    for line in range(FIRST + 3):
        bench.fail(line)

    bench.filter.flush()
    bench.filter.flush()

    assert [vars(record).get("repeats") for record in bench.told.records] == [None] * FIRST + [3]


def reject(bench: Bench, name: str, why: str) -> None:
    extra = {"action": "drop_rejected", "profile": "p", "file": f"p/{name}"}
    bench.log.warning("p/%s rejected: %s", name, why, extra=extra)


def test_another_reason_is_told_however_many_there_were_of_the_first(bench: Bench) -> None:
    for number in range(50):
        name = "abcdefghij"[number % 10] * 3 + ".jsonl"
        reject(bench, name, f"{name} has {number} lines and no prompt")
    reject(bench, "important.jsonl", "Input/output error")

    texts = bench.told.texts()
    assert len(texts) == FIRST + 1
    assert texts[-1] == "p/important.jsonl rejected: Input/output error"


def test_ever_new_words_are_no_way_round(bench: Bench) -> None:
    words = ["".join(chars) for chars in itertools.islice(itertools.product("abcdef", repeat=5), 5000)]
    for word in words:
        reject(bench, "a.jsonl", word)

    assert len(bench.told.records) == MOST_TEXTS
    bench.filter.flush()
    assert sum(vars(record).get("repeats", 1) for record in bench.told.records) == 5000


def test_time_that_is_told_is_the_time_that_went_by(bench: Bench) -> None:
    for line in range(FIRST + 3):
        bench.fail(line)
    bench.now += 7.0
    bench.filter.flush()

    assert " within 7 s, " in bench.told.texts()[-1]


def test_event_costs_no_look_at_all_bursts(bench: Bench) -> None:
    for number in range(4000):
        bench.fail(1, job=f"j{number}")
    looks = 0

    class Counted(dict[Any, Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looks
            looks += 1
            return super().__iter__()

        def items(self) -> Any:
            nonlocal looks
            looks += 1
            return super().items()

        values = items

    bench.filter._bursts = Counted(bench.filter._bursts)
    for number in range(4000):
        bench.now += SECONDS / 3000
        bench.fail(1, job=f"j{number}")

    assert looks == 0
    assert len(bench.filter._bursts) <= 4000


def test_bursts_that_are_over_are_forgotten(bench: Bench) -> None:
    for number in range(100):
        bench.fail(1, job=f"j{number}")
    bench.pass_time(SECONDS)

    assert (bench.filter._bursts, bench.alarms) == ({}, [])


def test_one_timer_serves_all_bursts_and_looks_at_most_once_a_second(bench: Bench) -> None:
    for number in range(1000):
        bench.now = number / 1000
        bench.fail(1, job=f"j{number}")
    assert len(bench.alarms) == 1

    bench.now = SECONDS
    bench.alarms.pop()[1]()

    assert [when - bench.now for when, _ in bench.alarms] == [LOOK_SECONDS]


def test_numbers_held_when_a_process_ends_are_logged() -> None:
    script = (
        "import logging\n"
        "from obcd.logs.setup import set_up_logging\n"
        "set_up_logging()\n"
        f"for line in range({FIRST + 3}):\n"
        "    logging.getLogger('obcd.x').warning('worker %d lost', line, extra={'action': 'worker_lost'})\n"
    )

    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    summary = f"… and 3 more like it within 1 s, the last: worker {FIRST + 2} lost"
    assert outcome.stderr.splitlines()[-1].endswith(summary)
