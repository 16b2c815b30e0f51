"""Keep a number of requests in flight at one endpoint, from threads of one process: for measurements, not for jobs.

run() ── watches limits ──► hand ──HTTP──► Ollama
   ▲                        hand ──HTTP──►
   └── take(sample) ◄───────┘
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count

from obcd.benchmark.samples import Sample
from obcd.clock import monotonic
from obcd.config.endpoints import Endpoint
from obcd.core.answer.outcomes import ModelAnswer
from obcd.core.endpoint.faults import Fault
from obcd.core.endpoint.retry import REQUEST_BASE, REQUEST_LIMIT, pause
from obcd.core.request.records import JobSettings, Request, signature_of
from obcd.ollama.client import TIMED_OUT, ask, preload
from obcd.ollama.transport import Transport

#: Seconds between checks of the time limits of requests in flight.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class LoadWork:
    """The load: settings, and any number of requests by their numbers from 0."""

    settings: JobSettings
    request: Callable[[int], Request]


class LoadGenerator:
    """Sends requests to one endpoint. One thread calls its methods; all of them end soon after `stop` is set."""

    def __init__(self, endpoint: Endpoint, work: LoadWork, stop: threading.Event) -> None:
        self.endpoint = endpoint
        self._work = work
        self._stop = stop
        self._numbers = count()
        self._lock = threading.Lock()  # held while a sample is taken

    def load(self) -> Fault | None:
        """Load the model with the options of the requests; return the fault, None when it is loaded."""
        outcome: list[Fault | None] = []
        signature = signature_of(self._work.request(0), self._work.settings)

        def load(hand: _LoadConnection) -> None:
            hand.begin(monotonic() + self._work.settings.load_timeout_seconds)
            outcome.append(preload(hand.transport, signature))

        self._watch(1, load)
        return outcome[0]

    def run(self, in_flight: int, take: Callable[[Sample], bool], until: float | None = None) -> None:
        """Keep so many requests in flight until `take` returns False, `until` or `stop`.

        Requests in flight at that moment are waited for and taken too, except at `stop`. No request number is repeated.

        Args:
            take: Called with every sample, one at a time, on any thread.
            until: Monotonic seconds after which no request is started.
        """
        over = threading.Event()

        def is_over() -> bool:
            return over.is_set() or self._stop.is_set() or (until is not None and monotonic() >= until)

        def work(hand: _LoadConnection) -> None:
            failures = 0
            while not is_over():
                sample = self._ask(hand)
                if self._stop.is_set():
                    return
                with self._lock:
                    if not take(sample):
                        over.set()
                failures = failures + 1 if sample.fault else 0
                again_at = monotonic() + (pause(failures, REQUEST_BASE, REQUEST_LIMIT) if failures else 0.0)
                while monotonic() < again_at and not is_over():
                    self._stop.wait(LOOK_SECONDS)

        self._watch(in_flight, work)

    def _ask(self, hand: _LoadConnection) -> Sample:
        with self._lock:
            number = next(self._numbers)
        request = self._work.request(number)
        began = monotonic()
        hand.begin(began + self._work.settings.request_timeout_seconds)
        outcome = ask(hand.transport, request, self._work.settings)
        ended = monotonic()
        hand.end()
        if isinstance(outcome, Fault):
            return Sample(prompt=number, began=began, ended=ended, fault=outcome.kind, message=outcome.message)
        return _sample(number, began, ended, outcome)

    def _watch(self, count: int, work: Callable[[_LoadConnection], None]) -> None:
        """Run `work` in so many threads; cancel requests that take too long, and all of them at `stop`."""
        hands = [_LoadConnection(self.endpoint, self._work.settings) for _ in range(count)]
        with ThreadPoolExecutor(max_workers=count) as pool:
            futures = [pool.submit(work, hand) for hand in hands]
            while wait(futures, LOOK_SECONDS).not_done:
                for hand in hands:
                    hand.enforce(monotonic(), is_over=self._stop.is_set())
        for hand, future in zip(hands, futures, strict=True):
            hand.transport.close()
            future.result()


class _LoadConnection:
    """One connection. Its own thread calls `begin` and `end`; the watching thread may cancel the request."""

    def __init__(self, endpoint: Endpoint, settings: JobSettings) -> None:
        self.transport = Transport(endpoint.url, settings.connect_timeout_seconds, endpoint.token)
        self._lock = threading.Lock()
        self._limit: float | None = None  # monotonic seconds

    def begin(self, limit: float) -> None:
        with self._lock:
            self.transport.arm()
            self._limit = limit

    def end(self) -> None:
        with self._lock:
            self._limit = None

    def enforce(self, now: float, *, is_over: bool) -> None:
        with self._lock:
            if self._limit is not None and (is_over or now >= self._limit):
                self._limit = None
                self.transport.abort("stopped" if is_over else TIMED_OUT)


def _sample(number: int, began: float, ended: float, answer: ModelAnswer) -> Sample:
    cost = answer.cost
    said = answer.embeddings if answer.text is None else answer.text
    text = f"{answer.thinking or ''}\0{said}".encode("utf-8", "surrogatepass")
    return Sample(
        prompt=number,
        began=began,
        ended=ended,
        tokens=cost.eval_tokens,
        eval_seconds=cost.eval_seconds,
        work_seconds=cost.load_seconds + cost.prompt_eval_seconds + cost.eval_seconds,
        wait_seconds=cost.wait_seconds,
        digest=int.from_bytes(hashlib.sha256(text).digest()[:8]),
    )
