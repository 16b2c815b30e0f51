"""A crew keeps its number of requests in flight, and ends when it should, whatever the server does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from obcd.benchmark.bench_prompts import in_turn, long_prompts, steady_prompts
from obcd.benchmark.load_generator import LoadGenerator, LoadWork
from obcd.benchmark.samples import Sample
from obcd.config.endpoints import parse_endpoint
from obcd.core.request.records import JobSettings
from obcd.standins.simulated.gpu_server import Behaviour
from tests.integration.loopback import hangs, serving, simulating
from tests.support import wait_until

pytestmark = pytest.mark.integration

SETTINGS = JobSettings(model="llama3.2", request_timeout_seconds=10.0, load_timeout_seconds=10.0)
SLOW = Behaviour(seconds=0.05, load_seconds=0.0)


def crew_of(url: str, settings: JobSettings = SETTINGS) -> tuple[LoadGenerator, threading.Event]:
    stop = threading.Event()
    return LoadGenerator(parse_endpoint(url, 0, 4), LoadWork(settings, long_prompts()), stop), stop


def until(count: int, into: list[Sample]) -> Callable[[Sample], bool]:
    """Return what takes so many samples."""

    def take(sample: Sample) -> bool:
        into.append(sample)
        return len(into) < count

    return take


def test_so_many_requests_are_in_flight_and_no_more() -> None:
    with simulating(SLOW, parallel=8) as server:
        crew, _ = crew_of(server.url)
        samples: list[Sample] = []

        crew.run(3, until(12, samples))

        asked = server.requests()
        moments = [record["arrived"] for record in asked]
        busy = [sum(item["arrived"] <= at < item["finished"] for item in asked) for at in moments]
        assert max(busy) == 3
        assert len(asked) == len(samples) == len({sample.prompt for sample in samples}) == 12 + 2
        assert len({record["prompt"] for record in asked}) == len(asked)


def test_sample_holds_what_the_server_says_of_its_slots() -> None:
    with simulating(SLOW, parallel=1) as server:
        crew, _ = crew_of(server.url)
        samples: list[Sample] = []

        crew.run(4, until(12, samples))

        late = samples[6]
        assert late.tokens == 64
        assert late.wait_seconds == pytest.approx(0.15, abs=0.08)
        assert late.work_seconds == pytest.approx(0.05, abs=0.04)


def test_same_answer_has_the_same_digest_and_another_has_another() -> None:
    with simulating(SLOW) as server:
        crew = LoadGenerator(
            parse_endpoint(server.url, 0, 4), LoadWork(SETTINGS, in_turn(steady_prompts()[:2])), threading.Event()
        )
        samples: list[Sample] = []

        crew.run(1, until(4, samples))

        first, second, *again = [sample.digest for sample in samples]
        assert first != second
        assert again == [first, second]


def test_nothing_is_begun_when_the_time_is_over() -> None:
    with simulating(SLOW) as server:
        crew, _ = crew_of(server.url)
        samples: list[Sample] = []
        ends = time.monotonic() + 0.3

        crew.run(2, until(1000, samples), ends)

        assert max(sample.began for sample in samples) < ends
        assert len(samples) >= 2


def test_request_that_hangs_is_a_fault_after_its_limit() -> None:
    with serving(hangs()) as server:
        crew, _ = crew_of(server.url, replace(SETTINGS, request_timeout_seconds=0.1))
        samples: list[Sample] = []

        crew.run(1, until(1, samples))

        assert [sample.fault for sample in samples] == ["timeout"]


@pytest.mark.parametrize("is_loading", [True, False])
def test_stop_ends_it_at_once_while_the_server_hangs(*, is_loading: bool) -> None:
    with serving(hangs()) as server:
        crew, stop = crew_of(server.url)
        work = crew.load if is_loading else lambda: crew.run(2, until(9, []))
        thread = threading.Thread(target=work)
        thread.start()
        wait_until(lambda: server.connections >= (1 if is_loading else 2))

        stop.set()

        thread.join(60)
        assert not thread.is_alive()


def test_load_says_what_is_wrong() -> None:
    with simulating(replace(SLOW, models=("another",))) as server:
        crew, _ = crew_of(server.url)

        fault = crew.load()

        assert fault is not None
        assert fault.kind == "model_missing"


def test_endpoint_that_fails_is_not_asked_without_pause() -> None:
    with simulating(SLOW) as server:
        url = server.url
    crew, _ = crew_of(url)
    samples: list[Sample] = []

    crew.run(1, until(1000, samples), time.monotonic() + 0.6)

    assert 1 <= len(samples) <= 3
    assert {sample.fault for sample in samples} == {"unreachable"}
