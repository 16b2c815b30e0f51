"""Who is to blame for a crash, when everything in flight on that server died of it. Pure.

A model's process that crashes takes all its requests with it (ollama llm/llama_server.go: one process, many slots), and
so do one that hangs and has to be ended, and a worker of obcd. Nobody says whose fault it was, so all of them become
**suspects**, and none is charged:

    in a crash once   ─► asked again beside others; after a crash of the model, one suspect an endpoint at a time
    in two            ─► asked alone: its endpoint has nothing else in flight
    in three, the last alone ─► poison: a failure of its line only
    answered          ─► cleared

Workers end of what is done to them far more often than of what they ask, so that one such end alone keeps nobody apart.
So an innocent neighbour never fails of a crash, and poison never crashes more than three servers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from obcd.core.endpoint.faults import Fault, Harm, Remedy

#: Crashes after which a request that was alone in the last of them is not asked again, whatever `attempts` says.
CRASHES = 3
#: Kinds of faults in which all that was in flight on an endpoint ends at once. What hung had neighbours, which reached
#: their limit first.
SHARED = ("crashed", "hung", "worker_lost")
#: Seconds after a crash in which a failed load belongs to it: it is no fault of the request that asked for the load.
RELOAD_SECONDS = 60.0

#: A request: (job, ordinal).
RequestKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a failed attempt means once it is known who is to blame.

    Attributes:
        fault: As it counts for the request.
        harm: What it says about the endpoint.
        is_crash: Whether all that was in flight there ended with it.
        cleared: Endpoints against which crashes of this request count no longer.
    """

    fault: Fault
    harm: Harm
    is_crash: bool = False
    cleared: frozenset[str] = frozenset()


class Suspects:
    """The requests that were in a crash and have no result yet. `now` is monotonic seconds."""

    def __init__(self) -> None:
        #: {request: the endpoints at which it was in a crash, one entry each time}
        self._crashes: dict[RequestKey, tuple[str, ...]] = {}
        #: Those that were in a crash of the model: no two of them are asked side by side.
        self._apart: set[RequestKey] = set()
        #: {request: how many of these cost it no attempt}
        self._unpaid: dict[RequestKey, int] = {}
        #: {endpoint: when the first word of its newest crash came}
        self._crashed_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._crashes)

    @property
    def alone(self) -> list[RequestKey]:
        """The requests that are asked alone, the longest suspected first."""
        return [request for request in self._crashes if self.runs_alone(request)]

    def runs_alone(self, request: RequestKey) -> bool:
        """Return whether a request has to be asked alone."""
        return len(self._crashes.get(request, ())) >= CRASHES - 1

    def unpaid(self, request: RequestKey) -> int:
        """Return how many attempts of a request ended in a crash without being counted against it."""
        return self._unpaid.get(request, 0)

    def judge(
        self, fault: Fault, request: RequestKey, endpoint: str, sent_at: float, now: float, *, has_neighbours: bool
    ) -> Judgement:
        """Judge an attempt that failed.

        Args:
            sent_at: When it was handed to the endpoint; before an earlier crash there means that it was in that one.
            has_neighbours: Whether other requests are in flight there still.
        """
        if fault.kind == "load_failed" and now - self._crashed_at.get(endpoint, -RELOAD_SECONDS) < RELOAD_SECONDS:
            return Judgement(replace(fault, costs_attempt=False), fault.harm)
        if fault.kind not in SHARED:
            return Judgement(fault, fault.harm)
        is_first = sent_at >= self._crashed_at.get(endpoint, sent_at)
        if is_first:
            self._crashed_at[endpoint] = now
        is_alone = is_first and not has_neighbours and fault.kind != "hung"
        if fault.kind != "worker_lost":
            self._apart.add(request)
        endpoints = self._crashes[request] = (*self._crashes.get(request, ()), endpoint)
        if not is_alone:
            self._unpaid[request] = self._unpaid.get(request, 0) + 1
            fault = replace(fault, costs_attempt=False)
        elif len(endpoints) >= CRASHES:
            fault = _poison(fault, endpoints)
        # Each request in a crash reports it: that is one strike. Who crashes two endpoints is to blame, not they.
        cleared = frozenset(endpoints) if len(set(endpoints)) > 1 else frozenset[str]()
        return Judgement(fault, fault.harm if is_first else Harm.NONE, is_crash=True, cleared=cleared)

    def admits(self, job: str, neighbours: Collection[RequestKey]) -> Callable[[int], bool] | None:
        """Return which of a job's requests may be asked beside `neighbours`: no suspect beside another; None: any."""
        if not neighbours:
            return None
        has_suspect = any(other in self._apart for other in neighbours)

        def may_join(ordinal: int) -> bool:
            request = job, ordinal
            return not (self.runs_alone(request) or (has_suspect and request in self._apart))

        return may_join

    def clear(self, request: RequestKey) -> None:
        """Forget a request that has its result."""
        self._crashes.pop(request, None)
        self._unpaid.pop(request, None)
        self._apart.discard(request)

    def clear_job(self, job: str) -> None:
        """Forget a job's requests."""
        for request in [request for request in self._crashes if request[0] == job]:
            self.clear(request)

    def forget_endpoint(self, endpoint: str) -> None:
        """Forget an endpoint that left."""
        self._crashed_at.pop(endpoint, None)


def _poison(fault: Fault, endpoints: tuple[str, ...]) -> Fault:
    """Return the failure of a request that crashed whatever asked it; `fault` is its last crash."""
    what = "the worker process that asked it ended" if fault.kind == "worker_lost" else "the model's process crashed"
    where = ", ".join(dict.fromkeys(endpoints))
    return replace(
        fault,
        kind="poison",
        message=f"{what} each of the {len(endpoints)} times this was asked ({where}), the last time with nothing "
        "beside it: it is not asked again",
        remedy=Remedy.NEVER,
    )
