"""When an endpoint that people use too holds fewer requests, down to one. Pure; times are arguments.

Ollama has one queue for all clients, first in, first out, and shows nobody else's requests. Three signs show them:

| sign | why our requests do not explain it |
| --- | --- |
| an answer waited for a slot | the endpoint holds no more than its slots: `SlotFinder` without a surplus |
| it waited for its model to load | the model was loaded, and no fault came between |
| /api/ps: the end of a model's keep-alive time moves | Ollama sets it when a model becomes idle. With our own requests it moves with the last answer; if people's requests end later, or are in flight then, it does not |

After a sign, what is in flight finishes, and the endpoint holds one request at a time, so that people find free slots.
Without a sign for a while it holds none for a moment, which lets /api/ps show everybody else, and then gets all slots
back at once. One request may be too much: if there is no second slot, or if two requests slow each other (a CPU). Then
nothing is sent for PAUSE_SECONDS after each sign, and one request now and then, so that a job goes on whatever people do.

    all slots ──sign──► one at a time ──► none, LISTEN_SECONDS ──no sign for QUIET_SECONDS──► all slots
                  └───► none, PAUSE_SECONDS ──► one at a time ─────────────┘
"""  # noqa: E501 - a table

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from obcd.core.endpoint.concurrency import SlotFinder, Span

#: All slots come back after so many seconds without a sign. A look at /api/ps each second sees people's last request.
QUIET_SECONDS = 26.0
#: A sign of requests that ended long ago, by an answer that took long, counts as this old at most.
OLDEST_SIGN = 10.0
#: Nothing is sent for so long after a sign where one request is too much; one each so many seconds in any case.
PAUSE_SECONDS, LEAST_SECONDS = 20.0, 300.0
#: Elsewhere nothing is sent for so long before the slots come back: then /api/ps shows each request of others.
LISTEN_SECONDS = 10.0
#: A wait longer than without a queue by so many seconds, and by so much of the time of its request, is a queue.
QUEUED_SECONDS, QUEUED_PART = 0.2, 0.05
#: The mean share of waiting of the last answers that is a queue, and the weight of the newest one.
QUEUED_SHARE, NEWEST = 0.04, 0.08
#: A load longer than this is one; a loaded model reports up to 0.12 s (v0.24).
LOAD_SECONDS = 1.0
#: Two differences of /api/ps to our own last answer are equal up to so many seconds: ways, and a busy coordinator.
SAME_SECONDS = 0.3
#: Two differences in a row that are as close as this are the usual one.
EQUAL_SECONDS = 0.1
#: So many different ones, before the usual one is known, are no sign yet.
STRAYS = 2
#: An answer is known this many seconds after the server became idle, at least.
WAY_SECONDS = 0.02
#: An answer is known this many seconds after the server became idle, at most.
LATE_SECONDS = 0.15
#: One request is too much if it takes this share of the speed of another one.
HARM_SHARE = 0.2
#: The weight of the newest answer in the seconds for a token.
NEWEST_PACE = 0.1


class SignOfUse(StrEnum):
    """What shows the requests of others, for people."""

    QUEUE = "requests of others take slots"
    LOAD = "others had another model loaded"
    USE = "the server worked for others"
    MODEL = "others use another model"


class _Seen(NamedTuple):
    """What /api/ps showed, and when that call began."""

    ends: Mapping[str, float]
    at: float


@dataclass(slots=True)
class Yielding:
    """The yielding of one endpoint.

    Attributes:
        target: How many requests it may hold; None: all slots, because nobody else seems to be there.
        sign: The last sign; None before the first one.
    """

    target: int | None = None
    sign: SignOfUse | None = None
    _signed_at: float = -math.inf
    #: When it began to hold back, after `target` was None; what was sent before belongs to the time before.
    _since: float = -math.inf
    #: When it became free of our requests, because of an answer; and when it answered last.
    _idle: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _answered_at: float | None = None
    #: When it answered last while it held another of our requests.
    _crowded_at: float = -math.inf
    _judged_at: float = -math.inf
    #: The mean share of waiting.
    _waiting: float = 0.0
    #: Seconds for a token with all slots at work, and alone.
    _full_pace: float | None = None
    _lone_pace: float | None = None
    #: Whether a request waited though we had only that one.
    _has_one_slot: bool = False
    _slots: int = 1
    #: What /api/ps showed last; and of our model, as judged: the end of its keep-alive time, 0 before the first, our
    #: last answer before it, the difference of both, and the one that was found twice.
    _seen: _Seen | None = None
    _end: float = 0.0
    _idle_seen: float | None = None
    _difference: float | None = None
    _usual: float | None = None
    _strays: int = 0

    @property
    def reason(self) -> str:
        """Why the endpoint yields, for people; "" if it does not."""
        return str(self.sign) if self.target is not None and self.sign is not None else ""

    def look(self, now: float) -> bool:
        """Set the target; return whether it has changed."""
        before, quiet = self.target, now - self._signed_at
        if quiet >= QUIET_SECONDS:
            self.target = None
            return before is not None
        if before is None:
            self._since = now
        fed_at = self._since if self._answered_at is None else max(self._since, self._answered_at)
        is_pause = quiet < PAUSE_SECONDS if self._is_one_too_much else quiet >= QUIET_SECONDS - LISTEN_SECONDS
        self.target = int(now - fed_at >= LEAST_SECONDS) if is_pause else 1
        return self.target != before

    def on_answer(self, sent_at: float, held: int, span: Span, finder: SlotFinder, now: float) -> None:
        """Record an answer before `finder` gets it.

        Args:
            sent_at: When the request was sent, monotonic seconds.
            held: How many requests the endpoint held when it answered, this one included.
        """
        is_in_job = self._answered_at is not None and 0 <= now - self._answered_at < QUIET_SECONDS
        known_at, self._answered_at = self._answered_at, now
        if held == 1:
            self._idle.append(now)
        else:
            self._crowded_at = now
        if span.load > LOAD_SECONDS and is_in_job and known_at is not None and sent_at >= known_at:
            self._note(SignOfUse.LOAD, sent_at + span.load, now)
        if span.work < 0:
            return
        excess = finder.excess(span.wait)
        is_queued = excess > max(QUEUED_SECONDS, QUEUED_PART * (span.work + excess))
        if self.target is None:
            self._on_full_answer(sent_at, held, span, finder, now, excess=excess, is_queued=is_queued)
        elif sent_at >= self._since and held == 1:
            self._lone_pace = _mean(self._lone_pace, span)
            self._has_one_slot |= is_queued
            if is_queued:
                self._note(SignOfUse.QUEUE, sent_at + span.load + span.wait, now)

    def _on_full_answer(
        self, sent_at: float, held: int, span: Span, finder: SlotFinder, now: float, *, excess: float, is_queued: bool
    ) -> None:
        if sent_at < max(finder.found_at, self._signed_at):
            return
        self._slots = finder.slots
        if held >= finder.slots:
            self._full_pace = _mean(self._full_pace, span)
        self._waiting += NEWEST * (excess / max(1e-9, excess + span.work) - self._waiting)
        if is_queued or self._waiting > QUEUED_SHARE:
            self._note(SignOfUse.QUEUE, sent_at + span.load + span.wait, now)

    def on_change(self) -> None:
        """Record that the server does something else for us than answer: a fault, or another model."""
        self._answered_at = self._seen = None
        self._idle.clear()
        self._difference = self._usual = None
        self._strays = 0

    def on_models(self, ours: str, ends: Mapping[str, float], asked_at: float, now: float) -> None:
        """Record what /api/ps shows; judged at the next call, when all answers of that time have come.

        Args:
            ours: The model of our requests; "" before the first one.
            ends: `{model in memory: the end of its keep-alive time}`, in seconds on the server's clock.
            asked_at: When the call began.
        """
        before, self._seen = self._seen, _Seen(ends, asked_at)
        if before is None:
            return
        moved = [model for model in ends if model in before.ends and ends[model] - before.ends[model] > SAME_SECONDS]
        if any(model != ours for model in moved) and (not ours or ours in ends):  # else ours may have another name
            self._note(SignOfUse.MODEL, now, now)
        if ours in before.ends:
            self._judge(before.ends[ours], before.at, now)

    def _judge(self, end: float, asked_at: float, now: float) -> None:
        """Note a sign if the end of our model's keep-alive time is not that of our own last answer."""
        idle_at = next((moment for moment in reversed(self._idle) if moment <= asked_at + LATE_SECONDS), None)
        if idle_at is not None and idle_at > asked_at - WAY_SECONDS:
            return  # which of the two came first is not known
        is_same = abs(end - self._end) <= SAME_SECONDS
        is_first, has_answered, self._end = self._end == 0.0, idle_at != self._idle_seen, end
        self._idle_seen, judged_at, self._judged_at = idle_at, self._judged_at, asked_at
        if is_first or idle_at is None or self._crowded_at > judged_at - LATE_SECONDS:
            return  # two of our requests that ended together may have left it idle
        if has_answered:
            is_same = self._is_usual(end - idle_at)
        if not is_same:
            self._note(SignOfUse.USE, asked_at, now)

    def _is_usual(self, difference: float) -> bool:
        """Return whether our own answer explains the end of the keep-alive time, and learn the usual difference."""
        before, self._difference = self._difference, difference
        is_repeated = before is not None and abs(difference - before) <= EQUAL_SECONDS  # by chance hardly ever
        if is_repeated:
            self._usual = difference
        if self._usual is None:  # the first one may be that of others
            self._strays += 1
            return self._strays <= STRAYS
        self._strays = 0
        return abs(difference - self._usual) <= SAME_SECONDS

    @property
    def _is_one_too_much(self) -> bool:
        """Whether even one request takes too much from people; until the opposite is known."""
        if self._slots <= 1 or self._has_one_slot or self._full_pace is None or self._lone_pace is None:
            return True
        each = (self._full_pace - self._lone_pace) / (self._slots - 1)
        return each > HARM_SHARE * self._lone_pace

    def _note(self, sign: SignOfUse, at: float, now: float) -> None:
        self._signed_at = max(self._signed_at, at, now - OLDEST_SIGN)
        self.sign, self._waiting = sign, 0.0
        self.look(now)


def _mean(mean: float | None, span: Span) -> float | None:
    """Return the mean seconds for a token after another answer."""
    if not span.tokens:
        return mean
    pace = span.work / span.tokens
    return pace if mean is None else mean + NEWEST_PACE * (pace - mean)
