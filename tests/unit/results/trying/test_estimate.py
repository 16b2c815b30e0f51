"""What a file will take, from five of its lines: held against jobs that are played through on a simulated clock."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from obcd.coordinator.view import EndpointView, HostView, JobView, View
from obcd.core.forecasting.work_left import choose_sample
from obcd.hosts.record import CardReading
from obcd.results.trying.estimate import (
    Energy,
    drawn_watts,
    estimate,
    is_busy,
    joules_per_token,
    needs_load,
    watt_hours,
)
from obcd.results.trying.tried_lines import TriedLine
from obcd.spool.history.history_line import CardColumns, HistoryLine
from obcd.standins.simulated.sharing import SharedRate

#: Jobs that are simulated, of which nine in ten have to be foreseen.
JOBS = 40
#: The present, in Unix seconds.
AT = 1_795_000_000.0
TOKENS_PER_SECOND, PROMPT_TOKENS_PER_SECOND = 60.0, 2000.0


class Line(NamedTuple):
    """A line, and what its request takes at a server where it is alone."""

    length: int
    read: int
    written: float


def endpoint(number: int = 0, slots: int = 4, **changes: Any) -> EndpointView:
    facts: dict[str, Any] = {
        "name": f"gpu{number}", "url": "http://gpu:1", "gpu": number, "slots": slots, "in_flight": 0, "state": "UP",
        "reason": "", "version": "1", "models": ("llama3.2:latest",), "answered": 0, "faults": 0,
        "tokens_per_second": 0.0,
    }  # fmt: skip
    return EndpointView(**{**facts, **changes})


def view_of(*endpoints: EndpointView, **changes: Any) -> View:
    facts: dict[str, Any] = {"version": "1", "pid": 1, "state": "READY", "updated": 0.0, "updated_at": ""}
    return View(**{**facts, "root": "", "inbox": "", "outbox": "", "endpoints": endpoints, **changes})


def tried(line: Line, seconds: float, eval_seconds: float, **changes: Any) -> TriedLine:
    result: dict[str, Any] = {"seconds": seconds, "eval_seconds": eval_seconds, "prompt_tokens": line.read}
    result |= {"eval_tokens": round(line.written), "response": "So."}
    request = {"model": "llama3.2"}
    return TriedLine(
        line=1, length=line.length, path="/api/chat", request=request, answers=1, result=result | changes,
        has_form=False,
    )  # fmt: skip


def play(lines: list[Line], endpoints: int, slots: int, slowdown: float) -> tuple[float, list[tuple[float, float]]]:
    """Send lines to servers whose busy slots slow each other down.

    Returns:
        When the last one is done, and `[(seconds, seconds of writing), …]` of each line.
    """
    rates = [SharedRate(TOKENS_PER_SECOND, slowdown) for _ in range(endpoints)]
    begun, writing, spent = [0.0] * len(lines), [0.0] * len(lines), [(0.0, 0.0)] * len(lines)
    reading: list[tuple[float, int, int]] = []
    busy, waiting, now = [0] * endpoints, list(reversed(range(len(lines)))), 0.0

    def fill() -> None:
        while waiting and min(busy) < slots:
            place, number = busy.index(min(busy)), waiting.pop()
            busy[place] += 1
            begun[number] = now
            heapq.heappush(reading, (now + lines[number].read / PROMPT_TOKENS_PER_SECOND, number, place))

    fill()
    while any(busy):
        ends = [end for rate in rates if (end := rate.next_end()) is not None]
        now = min([*ends, *(at for at, _, _ in reading[:1])])
        while reading and reading[0][0] <= now:
            _, number, place = heapq.heappop(reading)
            writing[number] = now
            rates[place].start(number, lines[number].written, now)
        for place, rate in enumerate(rates):
            for number in rate.take_done(now):
                spent[number] = now - begun[number], now - writing[number]
                busy[place] -= 1
        fill()
    return now, spent


def errors(seed: int, jobs: int = JOBS) -> list[float]:
    """Return the relative errors of forecasts of jobs, each on another cluster with other texts."""
    rng = random.Random(seed)
    found = []
    for _ in range(jobs):
        endpoints, slots = rng.choice([1, 2, 4, 8]), rng.choice([1, 2, 4, 8])
        slowdown, spread = rng.uniform(0.05, 0.15), rng.uniform(0.0, 0.6)
        depends, sigma = rng.uniform(0.0, 1.0), rng.uniform(0.1, 1.0)
        lines = []
        for _ in range(rng.randrange(150, 400)):
            length = round(rng.lognormvariate(6.5, sigma))
            usual = 64 * (length / 665) ** depends
            lines.append(Line(length, length // 4, usual * rng.lognormvariate(0, spread)))
        if rng.random() < 0.3:
            lines.sort()  # a file that is sorted by length
        chosen = [lines[place] for place in choose_sample([line.length for line in lines], 5)]
        _, spent = play(chosen, endpoints, slots, slowdown)
        sample = [tried(line, *times) for line, times in zip(chosen, spent, strict=True)]
        view = view_of(*(endpoint(number, slots) for number in range(endpoints)))
        forecast = estimate(sample, [line.length for line in lines], view, uid=7, at=AT)
        assert forecast is not None
        assert forecast.seconds is not None
        truth, _ = play(lines, endpoints, slots, slowdown)
        found.append(forecast.seconds / truth - 1)
    return found


def test_nine_of_ten_jobs_are_foreseen_within_forty_percent_from_five_lines() -> None:
    found = errors(seed=1)

    wrong = [error for error in found if abs(error) > 0.4]
    assert len(wrong) <= len(found) / 10, sorted(found)


def test_jobs_of_others_are_counted_and_ones_own_too() -> None:
    line = Line(100, 100, 60.0)
    sample, lengths = [tried(line, 1.05, 1.0)] * 5, [100] * 100
    idle = view_of(endpoint(slots=1))
    alone = estimate(sample, lengths, idle, uid=7, at=AT)
    job = JobView(job="j", name="n", profile="", state="RUNNING", total=50, done=10, work_seconds=20.0, uid=8)
    shared = estimate(sample, lengths, replace(idle, jobs=(job,)), uid=7, at=AT)
    paused = estimate(sample, lengths, replace(idle, jobs=(replace(job, state="PAUSED"),)), uid=7, at=AT)

    assert alone is not None
    assert shared is not None
    assert alone.seconds == alone.alone_seconds == pytest.approx(105, rel=0.01)
    assert (alone.prompt_tokens, alone.output_tokens, alone.requests, alone.tried) == (10_000, 6000, 100, 5)
    assert shared.seconds == pytest.approx(105 + 80, rel=0.01)
    assert shared.alone_seconds == alone.seconds
    assert paused is not None
    assert paused.seconds == alone.seconds


def test_endpoints_that_are_down_or_lack_the_model_do_not_count() -> None:
    sample, lengths = [tried(Line(100, 100, 60.0), 1.05, 1.0)], [100] * 100
    one = estimate(sample, lengths, view_of(endpoint(slots=1)), uid=7, at=AT)
    others = endpoint(1, state="DOWN"), endpoint(2, models=("qwen3:latest",))

    assert estimate(sample, lengths, view_of(endpoint(slots=1), *others), uid=7, at=AT) == one
    assert estimate(sample, lengths, view_of(*others), uid=7, at=AT) is None
    assert estimate([], lengths, view_of(endpoint()), uid=7, at=AT) is None


def test_failed_and_remembered_lines_are_not_measured() -> None:
    good = tried(Line(100, 100, 60.0), 1.0, 1.0)
    bad = tried(Line(100, 100, 60.0), 9.0, 9.0, **{"class": "timeout", "message": "no answer"})
    cached = tried(Line(100, 100, 60.0), 9.0, 9.0, cached=True)

    found = estimate([good, bad, cached], [100] * 50, view_of(endpoint(slots=1)), uid=7, at=AT)

    assert found is not None
    assert found.tried == 1
    assert found.seconds == pytest.approx(50, rel=0.01)


def test_loading_and_waiting_are_no_work_of_the_line() -> None:
    plain = tried(Line(100, 100, 60.0), 1.0, 0.9)
    loading = tried(Line(100, 100, 60.0), 31.0, 0.9, load_seconds=20.0, wait_seconds=10.0)

    assert plain.seconds == loading.seconds == pytest.approx(1.0)


# --- energy ----------------------------------------------------------------------------------------------------------


def minute(number: int, tokens: int, **joules: float | None) -> HistoryLine:
    count = len(joules)
    cards = CardColumns(uuid=tuple(joules), host=("h",) * count, energy_joules=tuple(joules.values()))
    return HistoryLine(time=60.0 * number, seconds=60.0, output_tokens=tokens, cards=cards)


def test_energy_of_a_token_is_that_of_the_minutes_in_which_tokens_were_written() -> None:
    lines = [
        minute(1, 1000, a=5e6, b=100.0),
        minute(2, 1000, a=5e6 + 6000, b=4100.0),
        minute(3, 0, a=5e6 + 9000, b=4200.0),  # idle
        minute(4, 3000, a=5e6 + 19_000, b=5.0, c=None),  # the driver of b was loaded again
    ]

    assert joules_per_token(lines) == pytest.approx((10_000 + 10_000) / 4000)
    assert joules_per_token(lines[:1]) is None
    assert joules_per_token([]) is None


def test_energy_comes_from_measured_tokens_or_else_from_the_power_of_the_cards() -> None:
    sample, lengths, view = [tried(Line(100, 100, 60.0), 1.0, 0.9)], [100] * 100, view_of(endpoint(slots=1))
    by_token = estimate(sample, lengths, view, uid=7, at=AT, energy=Energy(2.0, 300.0))
    by_power = estimate(sample, lengths, view, uid=7, at=AT, energy=Energy(None, 300.0))
    unknown = estimate(sample, lengths, view, uid=7, at=AT)

    assert by_token is not None
    assert by_power is not None
    assert unknown is not None
    assert by_token.joules == pytest.approx(12_000)
    assert by_power.joules == pytest.approx(300 * (by_power.alone_seconds or math.nan), rel=0.01)
    assert unknown.joules is None
    assert [watt_hours(joules) for joules in (36.0, 12_000.0, 9e6)] == ["0.010 Wh", "3.3 Wh", "2.5 kWh"]


def test_power_of_all_cards_is_summed_where_they_report_it() -> None:
    cards = (CardReading(uuid="a", power_watts=300.0), CardReading(uuid="b"), CardReading(uuid="c", power_watts=50.0))
    host = HostView(name="h", state="serving", cards=cards)

    assert drawn_watts(view_of(hosts=(host,))) == 350.0
    assert drawn_watts(view_of()) is None


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loaded", "num_ctx", "state", "needs"),
    [
        ("llama3.2", 8192, "UP", False),
        ("llama3.2", 4096, "UP", True),
        ("qwen3", 8192, "UP", True),
        ("", 0, "UP", True),
        ("llama3.2", 8192, "DOWN", True),
    ],
)
def test_model_must_be_loaded_unless_a_server_has_it_with_the_context(
    loaded: str, num_ctx: int, state: str, needs: bool
) -> None:
    view = view_of(endpoint(loaded=loaded, loaded_num_ctx=num_ctx, state=state))

    assert needs_load(view, "llama3.2:latest", 8192) == needs
    assert needs_load(view, "llama3.2", None) == (needs and num_ctx != 4096)


def test_only_running_jobs_would_wait_for_a_model() -> None:
    job = JobView(job="j", name="n", profile="", state="PAUSED", total=50)

    assert not is_busy(view_of(jobs=(job,)))
    assert is_busy(view_of(jobs=(replace(job, state="RUNNING"),)))
