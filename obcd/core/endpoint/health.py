"""When an endpoint gets requests: a small state machine fed by probes, answers and faults. Pure; `now` is an argument.

STARTING ─ probe ok ─► UP ─ strikes in a row ─► SUSPECT ─ another ─► DOWN ─ pause over, probe ok ─► SUSPECT (or UP)
                        └── does not serve ──────────────────────────►┘                               │
                        ▲                                                                 first answer ▼
                        └───────────────────────────────────────────────────────────────────────────── UP
any ─ drain ─► DRAINING ─ undrain ─► STARTING
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from obcd.core.endpoint.faults import Harm
from obcd.core.endpoint.retry import ENDPOINT_BASE, ENDPOINT_LIMIT, pause

#: Faults in a row, without an answer between them, that turn UP into SUSPECT.
STRIKES = 3
#: The reason of an endpoint that the configuration does not name any more.
LEAVING = "leaving the configuration"
#: The reason of an endpoint before its first probe.
UNREACHED = "not reached yet"


class EndpointState(StrEnum):
    """How far an endpoint is trusted."""

    STARTING = "STARTING"  # not probed yet: gets nothing
    UP = "UP"  # gets a request for every slot
    SUSPECT = "SUSPECT"  # gets one request at a time until it answers one
    DOWN = "DOWN"  # gets nothing until its pause is over and a probe succeeded
    DRAINING = "DRAINING"  # being removed, or its host is silent or ends: finishes what it has


@dataclass(slots=True)
class Health:
    """The trust in one endpoint.

    Attributes:
        reason: Why it is not UP, for people.
        probe_failure: Why it does not serve, if a control call found that, else "": `reason` may be the message of a
            failed request, and so hold the words of a server's error, which must not leave in a notification.
        since: When the state began, monotonic seconds; faults of requests that were sent before that are out of date.
    """

    name: str
    state: EndpointState = EndpointState.STARTING
    reason: str = UNREACHED
    probe_failure: str = UNREACHED
    since: float = 0.0
    retry_at: float = 0.0
    _strikes: int = 0
    _falls: int = 0
    #: Whether a request brought it down, so that only an answer can clear it; a fault of a probe is cleared by a probe.
    _is_doubted: bool = False
    #: Whether it answered since `forgive_crashes` last helped it, and whether it had other faults than crashes since.
    _has_answered: bool = False
    _has_other_faults: bool = False

    def open_slots(self, slots: int) -> int:
        """Return how many of its `slots` may have a request in flight."""
        if self.state is EndpointState.UP:
            return slots
        return min(slots, 1) if self.state is EndpointState.SUSPECT else 0

    def on_answer(self, now: float) -> None:
        """Record a request that was answered."""
        self._strikes = self._falls = 0
        self._has_answered, self._has_other_faults = True, False
        if self.state is EndpointState.SUSPECT:
            self._move(EndpointState.UP, "", now)

    def on_fault(self, harm: Harm, reason: str, sent_at: float, now: float, *, is_crash: bool = False) -> None:
        """Record a failed attempt that was sent at `sent_at`.

        Args:
            is_crash: The model's process crashed; a request may turn out to have caused it.
        """
        is_asked = self.state in (EndpointState.UP, EndpointState.SUSPECT)
        if harm in (Harm.NONE, Harm.UNFIT) or sent_at < self.since or not is_asked:
            return
        self._has_other_faults |= not is_crash
        self._strikes += 1
        if harm is Harm.DOWN or self.state is EndpointState.SUSPECT:
            self._is_doubted = True
            self._fall(reason, now)
        elif self._strikes >= STRIKES:
            self._move(EndpointState.SUSPECT, reason, now)

    def forgive_crashes(self, now: float) -> None:
        """Undo what crashes did to its state: a request that was in them crashed another endpoint too.

        Only once between two answers: if everything crashes, the endpoint is put aside anyway, with growing pauses.
        """
        if not self._has_answered or self._has_other_faults:
            return
        self._has_answered = False
        self._strikes = self._falls = 0
        if self.state is EndpointState.SUSPECT:
            self._move(EndpointState.UP, "", now)
        elif self.state is EndpointState.DOWN:
            self._is_doubted, self.retry_at = False, now

    def on_probe(self, failure: str | None, now: float) -> None:
        """Record a control call: `failure` is None if it succeeded, else the reason."""
        if self.state is EndpointState.DRAINING:
            return
        if failure is not None:
            self._has_other_faults = True
            if self.state is EndpointState.DOWN:
                self.reason = failure
            else:
                self._is_doubted = self.state is EndpointState.SUSPECT
                self._fall(failure, now)
            self.probe_failure = failure
        elif self.state is EndpointState.STARTING:
            self._move(EndpointState.UP, "", now)
        elif self.state is EndpointState.DOWN and now >= self.retry_at:
            if self._is_doubted:
                self._move(
                    EndpointState.SUSPECT, f"tried again, one request at a time; it was DOWN: {self.reason}", now
                )
            else:
                self._move(EndpointState.UP, "", now)

    def on_recovery_step(self, step: str, now: float) -> None:
        """Record what is being done because the endpoint answers no request: it gets nothing until that is over.

        Args:
            step: The `reason`, as a sentence for people.
        """
        if self.state in (EndpointState.UP, EndpointState.SUSPECT):
            self._has_other_faults = self._is_doubted = True
            self._fall(step, now)
        elif self.state is EndpointState.DOWN:
            self.reason = step

    def drain(self, now: float, reason: str = LEAVING) -> None:
        """Give it nothing new, until `undrain`; while it drains already, only the reason changes."""
        if self.state is EndpointState.DRAINING:
            self.reason = reason
        else:
            self._move(EndpointState.DRAINING, reason, now)

    def undrain(self, now: float) -> None:
        """Take it back while it drains: it gets requests again after its next good probe, as after its start.

        Its earlier state does not count any more: no probe or fault was recorded while it drained.
        """
        if self.state is EndpointState.DRAINING:
            back = f"back in the configuration, {UNREACHED}" if self.reason == LEAVING else UNREACHED
            self._move(EndpointState.STARTING, back, now)
            self.probe_failure = UNREACHED

    def _fall(self, reason: str, now: float) -> None:
        self._falls += 1
        self._move(EndpointState.DOWN, reason, now)
        self.retry_at = now + pause(self._falls, ENDPOINT_BASE, ENDPOINT_LIMIT, self.name)

    def _move(self, state: EndpointState, reason: str, now: float) -> None:
        self.state, self.reason, self.since, self._strikes = state, reason, now, 0
        self.probe_failure = ""
