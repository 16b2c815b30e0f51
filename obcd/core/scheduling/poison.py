"""Which request caused a crash, when everything in flight on that server died of it. Pure.

A model's process that crashes ends all its requests (ollama llm/llama_server.go: one process, many slots). So does a
process that hangs and has to be ended, a whole server that ends, and a worker of obcd. Nothing shows which request
caused it, so all of them become **suspects**, and no request is charged:

    in a crash once   ─► sent again beside others; after a crash at the server, one suspect per endpoint at a time
    in two            ─► sent alone: its endpoint has nothing else in flight
    in three, the last alone ─► poison: a failure of its line only
    answered          ─► cleared

Workers end far more often for outside reasons than because of a request, so one such end alone separates no requests.
Thus a request never fails because of its neighbour's crash, and poison never crashes more than three servers. Where
servers also end for outside reasons (crashes whose requests were all answered later), a request has to be alone in as
many more of them: otherwise a request that is sent while somebody restarts servers would be taken for poison.

A request that only waited, for a slot or for the load of its model, cannot have caused a crash, and is no suspect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy

#: A request that was alone in its last crash is not sent again after this many crashes, whatever `attempts` says.
CRASHES = 3
#: Kinds of faults that end everything in flight on an endpoint at once. A request that hung had neighbours, which
#: reached their limit first. So does CUT where it costs no attempt: the whole server ended.
SHARED = (FaultKind.CRASHED, FaultKind.HUNG, FaultKind.WORKER_LOST)
#: Seconds after a crash in which a failed load belongs to it: it is not a fault of the request that needed the load.
RELOAD_SECONDS = 60.0
#: Seconds for which a crash counts that no request caused, and the most of them that count.
OUTSIDE_SECONDS, MOST_OUTSIDE = 600.0, 3

#: A request: (job, ordinal).
RequestKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The meaning of a failed attempt, once it is known which request caused it.

    Attributes:
        fault: As it counts for the request.
        harm: What it says about the endpoint.
        is_crash: Whether everything in flight there ended with it.
        cleared: Endpoints for which crashes of this request no longer count.
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
        #: Requests that were in a crash of the model: no two of them are sent side by side.
        self._apart: set[RequestKey] = set()
        #: {request: how many of these crashes did not count as an attempt}
        self._unpaid: dict[RequestKey, int] = {}
        #: {endpoint: when the first report of its newest crash came}
        self._crashed_at: dict[str, float] = {}
        #: {(endpoint, when it crashed): the requests in that crash that have no result yet}
        self._members: dict[tuple[str, float], set[RequestKey]] = {}
        #: When it was known of a crash that no request caused it, the oldest first.
        self._outside: deque[float] = deque(maxlen=MOST_OUTSIDE)

    def __len__(self) -> int:
        return len(self._crashes)

    @property
    def alone(self) -> list[RequestKey]:
        """The requests that are sent alone, the longest suspected first."""
        return [request for request in self._crashes if self.runs_alone(request)]

    def runs_alone(self, request: RequestKey) -> bool:
        """Return whether a request has to be sent alone."""
        return len(self._crashes.get(request, ())) >= CRASHES - 1

    def unpaid(self, request: RequestKey) -> int:
        """Return how many attempts of a request ended in a crash and were not counted."""
        return self._unpaid.get(request, 0)

    def judge(
        self, fault: Fault, request: RequestKey, endpoint: str, sent_at: float, now: float, *, has_neighbours: bool
    ) -> Judgement:
        """Judge an attempt that failed.

        Args:
            sent_at: When it was handed to the endpoint; before an earlier crash there means that it was in that one.
            has_neighbours: Whether other requests are still in flight there.
        """
        if (
            fault.kind is FaultKind.LOAD_FAILED
            and now - self._crashed_at.get(endpoint, -RELOAD_SECONDS) < RELOAD_SECONDS
        ):
            return Judgement(replace(fault, costs_attempt=False), fault.harm)
        if not self._is_shared(fault, request):
            return Judgement(fault, fault.harm)
        is_first = sent_at >= self._crashed_at.get(endpoint, sent_at)
        if is_first:
            self._crashed_at[endpoint] = now
        if not fault.reached_model:
            return Judgement(fault, Harm.STRIKE if is_first else Harm.NONE)
        is_alone = is_first and not has_neighbours and fault.kind is not FaultKind.HUNG
        if fault.kind is not FaultKind.WORKER_LOST:
            self._apart.add(request)
            self._members.setdefault((endpoint, self._crashed_at[endpoint]), set()).add(request)
        endpoints = self._crashes[request] = (*self._crashes.get(request, ()), endpoint)
        if is_alone and len(endpoints) >= CRASHES + self._count_outside(now):
            fault = _poison(fault, endpoints)
        elif not is_alone or not fault.costs_attempt:
            self._unpaid[request] = self._unpaid.get(request, 0) + 1
            fault = replace(fault, costs_attempt=False)
        # Each request in a crash reports it: that is one strike. If a request crashes two endpoints, it is the cause.
        cleared = frozenset(endpoints) if len(set(endpoints)) > 1 else frozenset[str]()
        return Judgement(fault, fault.harm if is_first else Harm.NONE, is_crash=True, cleared=cleared)

    def _is_shared(self, fault: Fault, request: RequestKey) -> bool:
        """Return whether everything in flight ended; what is cut while it is sent alone ended the server again."""
        if fault.kind is FaultKind.CUT:
            return not fault.costs_attempt or self.runs_alone(request)
        return fault.kind in SHARED

    def admits(self, job: str, neighbours: Collection[RequestKey]) -> Callable[[int], bool] | None:
        """Return which requests of a job may be sent beside `neighbours`: no suspect beside another; None: any."""
        if not neighbours:
            return None
        has_suspect = any(other in self._apart for other in neighbours)

        def may_join(ordinal: int) -> bool:
            request = job, ordinal
            return not (self.runs_alone(request) or (has_suspect and request in self._apart))

        return may_join

    def on_answer(self, request: RequestKey, now: float) -> None:
        """Clear a request that was answered; a crash whose last suspect it was had another cause."""
        if request not in self._crashes:
            return
        for crash in [crash for crash, members in self._members.items() if request in members]:
            self._members[crash].discard(request)
            if not self._members[crash]:
                del self._members[crash]
                self._outside.append(now)
        self.clear(request)

    def _count_outside(self, now: float) -> int:
        return sum(now - at < OUTSIDE_SECONDS for at in self._outside)

    def clear(self, request: RequestKey) -> None:
        """Forget a request that failed, or is no longer wanted: it may have caused the crashes that it was in."""
        if request not in self._crashes:
            return
        self._members = {crash: members for crash, members in self._members.items() if request not in members}
        self._crashes.pop(request, None)
        self._unpaid.pop(request, None)
        self._apart.discard(request)

    def clear_job(self, job: str) -> None:
        """Forget the requests of a job."""
        for request in [request for request in self._crashes if request[0] == job]:
            self.clear(request)

    def forget_endpoint(self, endpoint: str) -> None:
        """Forget an endpoint that was removed."""
        self._crashed_at.pop(endpoint, None)


def _poison(fault: Fault, endpoints: tuple[str, ...]) -> Fault:
    """Return the failure of a request that crashed every server or worker; `fault` is its last crash."""
    what = {
        FaultKind.WORKER_LOST: "the worker process of this request ended",
        FaultKind.CUT: "the server ended",
    }.get(fault.kind, "the model's process crashed")
    where = ", ".join(dict.fromkeys(endpoints))
    return replace(
        fault,
        kind=FaultKind.POISON,
        message=f"{what} each of the {len(endpoints)} times this was sent ({where}), the last time with nothing "
        "beside it: it is not sent again",
        remedy=Remedy.NEVER,
    )
