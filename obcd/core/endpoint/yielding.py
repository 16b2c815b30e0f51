"""When an endpoint that people use too holds fewer requests, down to one. Pure; times are arguments.

Ollama has one queue for all clients, first in, first out, and shows nobody else's requests. Three signs show them:

| sign | why our requests do not explain it |
| --- | --- |
| an answer waited for a slot | the endpoint holds no more than its slots: `SlotFinder` without a surplus |
| it waited for its model to load, or /api/ps lacks that model | the model was loaded, and no fault came between |
| /api/ps: the end of a model's keep-alive time moves | Ollama sets it when a model becomes idle. With our own requests it moves with the last answer; if people's requests end later, or are in flight then, it does not |

A wait is judged when all requests that were sent before its end are answered: a server reads prompts in steps that hold
up what comes meanwhile, and what our own prompts explain is no sign. The first needs all slots at work, the third a
server that falls idle between two of our requests: with some requests in flight and a slot to spare, nobody would be
seen. So the endpoint holds all or one.

After a sign, what is in flight finishes, and the endpoint holds one request at a time, so that people find free slots.
Without a sign for a while it holds none for a moment, which lets /api/ps show everybody else, and then gets all slots
back at once. One request may be too much: if there is no second slot, if two requests slow each other (a CPU), or if
people's requests and ours need other load options. Then nothing is sent before that while is nearly over, except for one
request now and then, so that a job goes on whatever people do.

    all slots ──sign──► one at a time ──► none, LISTEN_SECONDS ──no sign for `_hold`──► all slots
                  └───► none ──► one at a time, TRIAL_SECONDS ──────┘

The while is QUIET_SECONDS after a first visit. Who comes back after that finds all slots taken, and so would each time:
from then on it is longer than the breaks that were seen, until nobody came back for RETURN_SECONDS.

A request that needs other load options waits until the server falls idle, which our requests would never let happen
(ollama server/sched.go), and no sign shows it. So nothing is sent now and then until all have been answered: a *rest*. A
look at /api/ps ends it: it lacks our model if somebody has waited, and the end of its keep-alive time has not moved if
somebody's request is in flight.
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
#: A sign so many seconds after the last one belongs to another visit, and is no return.
RETURN_SECONDS = 600.0
#: After a return all slots come back after so many times the longest break, but not later than after RETURN_SECONDS.
HOLD_BREAKS = 3.0
#: A sign of requests that ended long ago, by an answer that took long, counts as this old at most.
OLDEST_SIGN = 10.0
#: Where one request is too much, so many seconds of one at a time come before all slots; one each LEAST_SECONDS in any
#: case.
TRIAL_SECONDS, LEAST_SECONDS = 6.0, 300.0
#: Elsewhere nothing is sent for so long before the slots come back: then /api/ps shows each request of others.
LISTEN_SECONDS = 10.0
#: A rest comes after so many seconds, or after so many times our longest answer: then it costs 3 % of the time at most.
#: It ends after a look at a server that has been idle for so long; or when it has had time for our longest answer, and
#: for a look.
REST_AFTER, REST_AFTER_ANSWERS, REST_SECONDS, LOOK_LIMIT = 60.0, 35.0, 0.2, 3.0
#: A wait longer than without a queue by so many seconds, and by so much of the time of its request, is a queue.
QUEUED_SECONDS, QUEUED_PART = 0.2, 0.05
#: A server works in steps, a token for each slot in each, and a request joins at the next: so many steps later at most,
#: of a step without prompts.
JOIN_STEPS = 1.0
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
    """What /api/ps showed, when that call began, and whether the endpoint held a request then."""

    ends: Mapping[str, float]
    at: float
    is_held: bool


class _Waited(NamedTuple):
    """An answer whose wait is to be judged, with the number of requests when it came and the target before it."""

    sent_at: float
    held: int
    span: Span
    target: int | None

    @property
    def at_work(self) -> float:
        """When the server began to work on it."""
        return self.sent_at + self.span.load + self.span.wait


@dataclass(slots=True)
class Yielding:
    """The yielding of one endpoint.

    Attributes:
        target: How many requests it may hold; None: all slots, because nobody else seems to be there.
        rests: Whether it gets nothing for a moment, so that requests of others that wait for an idle server get it.
        sign: The last sign; None before the first one.
    """

    target: int | None = None
    rests: bool = False
    sign: SignOfUse | None = None
    _signed_at: float = -math.inf
    #: How long it holds back after a sign.
    _hold: float = QUIET_SECONDS
    #: When it began to hold back, after `target` was None; what was sent before belongs to the time before.
    _since: float = -math.inf
    #: When it became free of our requests, because of an answer; and when it answered last.
    _idle: deque[float] = field(default_factory=lambda: deque(maxlen=64))
    _answered_at: float | None = None
    #: When it answered last while it held another of our requests.
    _crowded_at: float = -math.inf
    _judged_at: float = -math.inf
    #: When the prompts of our last answers were evaluated, from and to.
    _prompts: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=64))
    #: Answers whose waits are not judged yet.
    _unjudged: list[_Waited] = field(default_factory=list)
    #: The mean share of waiting.
    _waiting: float = 0.0
    #: Seconds for a token with all slots at work, and alone.
    _full_pace: float | None = None
    _lone_pace: float | None = None
    #: Whether a request waited though we had only that one.
    _has_one_slot: bool = False
    #: Whether others had another model, or ours with other options, loaded when we asked last.
    _is_reloaded: bool = False
    #: Since when it is at work without a rest, and when it became idle; our longest answer since then, in seconds.
    _busy_since: float | None = None
    _emptied_at: float = math.inf
    _longest: float = 0.0
    #: Whether the end of our model's keep-alive time was ever seen to move.
    _ends_move: bool = False
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

    @property
    def is_paused(self) -> bool:
        """Whether nothing is sent now."""
        return self.target == 0 or self.rests

    @property
    def look_due(self) -> float | None:
        """When /api/ps is due, so that a rest ends; None while there is no rest, or requests are in flight."""
        return self._emptied_at + REST_SECONDS if self.rests and self._emptied_at < math.inf else None

    def look(self, held: int, now: float) -> bool:
        """Set the target, and begin or end a rest; return whether something has changed.

        Args:
            held: How many requests the endpoint holds.
        """
        before = self.target, self.rests
        self._set_target(now)
        self._set_rest(held, now)
        return before != (self.target, self.rests)

    def _set_target(self, now: float) -> None:
        left = self._hold - (now - self._signed_at)
        if left <= 0:
            self.target = None
            return
        if self.target is None:
            self._since = now
        fed_at = self._since if self._answered_at is None else max(self._since, self._answered_at)
        is_pause = left > TRIAL_SECONDS if self._is_one_too_much else left <= LISTEN_SECONDS
        self.target = int(now - fed_at >= LEAST_SECONDS) if is_pause else 1

    def _set_rest(self, held: int, now: float) -> None:
        self._emptied_at = math.inf if held else min(self._emptied_at, now)
        if self._busy_since is None:
            self._busy_since = now
        late = now - self._busy_since - max(REST_AFTER, REST_AFTER_ANSWERS * self._longest)
        self.rests = 0 <= late < self._longest + LOOK_LIMIT
        if late >= 0 and not self.rests:
            self._busy_since = now

    def on_answer(
        self, sent_at: float, held: int, span: Span, finder: SlotFinder, now: float, oldest: float = math.inf
    ) -> None:
        """Record an answer before `finder` gets it.

        Args:
            sent_at: When the request was sent, monotonic seconds.
            held: How many requests the endpoint held when it answered, this one included.
            oldest: When the oldest of the others was sent.
        """
        idle_for = math.inf if self._answered_at is None else sent_at - self._answered_at
        self._answered_at, self._longest = now, max(self._longest, now - sent_at)
        if held == 1:
            self._idle.append(now)
        else:
            self._crowded_at = now
        if span.load <= LOAD_SECONDS:
            self._is_reloaded = False
        elif 0 <= idle_for < QUIET_SECONDS:
            self._is_reloaded = True
            self._note(SignOfUse.LOAD, sent_at + span.load, now)
        if span.work < 0:
            return
        at_work = sent_at + span.load + span.wait
        self._prompts.append((at_work, at_work + span.prompt))
        self._unjudged.append(_Waited(sent_at, held, span, self.target))
        for item in [item for item in self._unjudged if item.at_work <= oldest]:
            self._unjudged.remove(item)
            self._judge_wait(item, finder, now)

    def _judge_wait(self, item: _Waited, finder: SlotFinder, now: float) -> None:
        """Judge how long an answer waited, when all are known whose prompts it may have waited for."""
        sent_at, held, span, target = item
        excess = max(0.0, finder.excess(span.wait) - self._explained(item))
        is_queued = excess > max(QUEUED_SECONDS, QUEUED_PART * (span.work + excess))
        if target is None:
            if sent_at < max(finder.found_at, self._signed_at):
                return
            self._slots = finder.slots
            if held >= finder.slots:
                self._full_pace = _mean(self._full_pace, span)
            self._waiting += NEWEST * (excess / max(1e-9, excess + span.work) - self._waiting)
            if is_queued or self._waiting > QUEUED_SHARE:
                self._note(SignOfUse.QUEUE, item.at_work, now)
        elif sent_at >= self._since and held == 1:
            self._lone_pace = _mean(self._lone_pace, span)
            self._has_one_slot |= is_queued
            if is_queued:
                self._note(SignOfUse.QUEUE, item.at_work, now)

    def _explained(self, item: _Waited) -> float:
        """Return how long a request may have waited for steps of its server that worked for ours, in seconds."""
        span, since, seconds = item.span, item.sent_at + item.span.load, 0.0
        for start, end in sorted(self._prompts):
            if start < item.at_work and end > since:
                seconds += min(item.at_work, end) - max(since, start)
                since = max(since, min(item.at_work, end))
        return seconds + JOIN_STEPS * (span.work - span.prompt) / max(1, span.tokens)

    def on_change(self) -> None:
        """Record that the server does something else for us than answer: a fault, or another model."""
        self._answered_at = self._seen = None
        self._idle.clear()
        self._difference = self._usual = None
        self._strays = 0

    def on_models(self, ours: str, ends: Mapping[str, float], asked_at: float, now: float, held: int = 0) -> None:
        """Record what /api/ps shows; judged at the next call, when all answers of that time have come.

        Args:
            ours: The model of our requests; "" before the first one.
            ends: `{model in memory: the end of its keep-alive time}`, in seconds on the server's clock.
            asked_at: When the call began.
            held: How many requests the endpoint holds.
        """
        before, self._seen = self._seen, _Seen(ends, asked_at, held > 0)
        if asked_at >= self._emptied_at + REST_SECONDS:
            if self.rests and before is not None and before.at < self._emptied_at - LATE_SECONDS:
                self._on_rest(before.ends.get(ours), ends.get(ours), now)
            self._busy_since, self._longest, self.rests = now, 0.0, False
        if before is None:
            return
        is_in_job = self._answered_at is not None and now - self._answered_at < QUIET_SECONDS
        if ours in before.ends and ours not in ends and is_in_job:
            self._is_reloaded = True
            self._note(SignOfUse.LOAD, now, now)
        self._ends_move |= ours in ends and abs(ends[ours] - before.ends.get(ours, ends[ours])) > SAME_SECONDS
        moved = [model for model in ends if model in before.ends and ends[model] - before.ends[model] > SAME_SECONDS]
        is_quiet = self.target == 0 and self._answered_at is not None and self._answered_at < before.at - LATE_SECONDS
        # else ours may have another name
        if any(model != ours for model in moved) and (not ours or ours in ends or is_quiet):
            self._note(SignOfUse.MODEL, now, now)
        if ours in before.ends:
            self._judge(before.ends[ours], before, now)

    def _on_rest(self, before: float | None, end: float | None, now: float) -> None:
        """Note a sign if a rest did not move the end of our model's keep-alive time: the server is not idle."""
        if before is None or end is None:
            return
        if self._ends_move and abs(end - before) <= SAME_SECONDS:
            self._note(SignOfUse.USE, now, now)

    def _judge(self, end: float, seen: _Seen, now: float) -> None:
        """Note a sign if the end of our model's keep-alive time is not that of our own last answer."""
        asked_at = seen.at
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
        elif seen.is_held:  # beside ours no other request leaves it idle: that was our own call that loads the model
            is_same = True
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
        if self._is_reloaded or self._slots <= 1 or self._has_one_slot:
            return True
        if self._full_pace is None or self._lone_pace is None:
            return True
        each = (self._full_pace - self._lone_pace) / (self._slots - 1)
        return each > HARM_SHARE * self._lone_pace

    def _note(self, sign: SignOfUse, at: float, now: float) -> None:
        at = max(self._signed_at, at, now - OLDEST_SIGN)
        pause = at - self._signed_at
        if pause >= RETURN_SECONDS:
            self._hold = QUIET_SECONDS
        elif self.target is None or self._hold > QUIET_SECONDS:
            self._hold = min(RETURN_SECONDS, max(self._hold, HOLD_BREAKS * pause))
        self._signed_at, self.sign, self._waiting = at, sign, 0.0
        self._set_target(now)


def _mean(mean: float | None, span: Span) -> float | None:
    """Return the mean seconds for a token after another answer."""
    if not span.tokens:
        return mean
    pace = span.work / span.tokens
    return pace if mean is None else mean + NEWEST_PACE * (pace - mean)
