"""How many requests an endpoint holds at best, found from its own counters. Pure; times are arguments.

Behind its slots an Ollama has a queue without limit that nothing shows (ollama server/sched.go, llm/llama_server.go),
but each reply states how long its request waited there. The share of `n` requests in flight that is at work equals the
share of work in their time: slots = n × work / (work + wait). So the count grows while nothing waits. Then it stays an
eighth above the number at work: while an answer travels to obcd and the next request back, the slot can take another
request.

    8 ──nothing waits: twice what was at work at once──► 16 … 32 ──something waits──► slots + ⅛, found again each round

With lanes (`obcd.core.pending.lanes`) nothing lies ready: a request that waits in the server would get a slot that
another lane has just freed, and both would lose their beginnings. So the search goes in waves: each place is answered
once before the number doubles, and after the first answer that waited nothing is sent until the wave is over. Then
nothing shows whether there are more slots than were found, so that one more is tried after 4, 8, 16, … rounds.

A wait without any queue is part of each request: templates, tokenizing. It differs from one request to the next, from
0.03 to 0.11 seconds on v0.24, a tenth of a short request. So its mean is learned from the first answers, no single wait
ends the growth, and what was at work at once, which is never above the slots, is a second measure.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

#: The start of the search. Ollama's default is 1, obcd's own servers have 16; the surplus waits in the server.
FIRST = 8
#: No server gets more than this; llama.cpp itself stops at 256 sequences.
MOST = 128
#: Share of the requests at work that is sent in addition and waits ready in the server; at least one.
SURPLUS = 0.125
#: A wait up to this share of a request's time counts as none; up to the second one if the whole count was at work.
NO_WAIT_SHARE, LITTLE_WAIT_SHARE = 0.05, 0.1
#: Waits this close to the shortest one, in seconds and as a share of the work, are those of a request without a queue;
#: the mean of so many is kept.
IDLE_SECONDS, IDLE_SHARE, IDLE_WAITS = 0.1, 0.15, 16
#: The weight of the newest answer in the share of waiting that ends the growth.
NEWEST = 0.25
#: If this share of the count was at work at once, the endpoint may have more slots.
FULL_WORK = 0.95
#: An answer is noticed late, and the next request is at work by then: the start of its work is taken later by this
#: share of it, at most by so many seconds.
LATE_SHARE, LATE_SECONDS = 0.1, 0.1
#: A round gives a result only if this share of the count was in flight.
FULL_SHARE = 0.9
#: Answers of one round: this many at least, and this many for each place, because answers come in waves if all requests
#: take equally long.
ROUND, ROUND_SHARE = 16, 2
#: Rounds without a surplus before one more slot is tried, at first and at most.
LEAST_PATIENCE, MOST_PATIENCE = 4, 64
#: A request of a wave that waited for this share of its time was in a queue.
QUEUE_SHARE = 0.2
#: In a wave nothing more is sent before this share of it was answered: it could wait in a queue already.
HOLD_SHARE = 0.75


class Span(NamedTuple):
    """What an endpoint's own counters report for one request, in seconds.

    Attributes:
        work: At work on the request; negative if the endpoint does not report it.
        wait: Before that, waiting for a slot; loading is not part of it.
        load: Before both, until the model was loaded.
        tokens: How many it made in that time.
        prompt: The part of the work that evaluated the prompt, which other prompts may have taken a part of.
    """

    work: float = 0.0
    wait: float = 0.0
    load: float = 0.0
    tokens: int = 0
    prompt: float = 0.0


#: For endpoints that report nothing: /api/embed does not separate waiting and work.
UNTOLD = Span(-1.0, 0.0)


class _AtWork:
    """When an endpoint was at work on its last answers, and on how many at once at most.

    Attributes:
        most: Since the last reset; never above the endpoint's slots.
    """

    def __init__(self) -> None:
        self.most = 0
        #: [start, end, how many were at work at the start], by the end
        self._spans: deque[tuple[float, float, list[int]]] = deque(maxlen=2 * MOST)

    def note(self, work: float, now: float) -> None:
        """Record an answer that has just come, and the seconds of work on it; as costly as `most` is large."""
        start = now - work + min(LATE_SHARE * work, LATE_SECONDS)
        together = [1]
        for other_start, other_end, others in reversed(self._spans):
            if other_end <= start:
                break
            if other_start >= start:
                others[0] += 1
                self.most = max(self.most, others[0])
            else:
                together[0] += 1
        self._spans.append((start, now, together))
        self.most = max(self.most, together[0])


class _Phase(Enum):
    """How the count is found."""

    SEARCH = auto()  # for the first time: it doubles
    GROWTH = auto()  # there may be more slots than were found
    FIRST_LOOK = auto()  # something waits: each request in flight is answered once
    ROUNDS = auto()  # the count is right, and checked


@dataclass(slots=True)
class SlotFinder:
    """The search at one endpoint with one model.

    Attributes:
        count: How many requests the endpoint may hold now.
        slots: The same without the surplus that waits in the server.
        most: It never holds more.
    """

    count: int = FIRST
    slots: int = FIRST
    most: int = MOST
    _phase: _Phase = _Phase.SEARCH
    #: When the present round began; a request that was sent before that belongs to another count.
    _since: float = 0.0
    _found_at: float = 0.0
    _at_work: _AtWork = field(default_factory=_AtWork)
    #: The shortest wait so far; the mean of the waits without a queue, and their number.
    _least_wait: float = float("inf")
    _idle_wait: float = 0.0
    _idle_waits: int = 0
    #: The share of waiting in the last answers while the count grows.
    _recent: float = 0.0
    _answers: int = 0
    _held: int = 0
    _work: float = 0.0
    _wait: float = 0.0
    #: Rounds without a surplus in which nothing waited, and how many of them end in another try.
    _quiet: int = 0
    _patience: int = LEAST_PATIENCE
    #: The slots before one more was tried.
    _floor: int = 1
    #: Whether all places of the present wave were taken, and whether one of its requests was in a queue.
    _is_full: bool = False
    _is_queued: bool = False

    def __post_init__(self) -> None:
        self.count, self.slots = min(self.count, self.most), min(self.slots, self.most)

    @property
    def found_at(self) -> float:
        """When the number of slots became known: no later request waits for the search. Infinite: it is not known."""
        return self._found_at if self._phase is _Phase.ROUNDS else math.inf

    def excess(self, wait: float) -> float:
        """Return how much longer a wait was than that of a request without a queue, in seconds; 0 if it was not."""
        return max(0.0, wait - self._idle_wait)

    @property
    def limit(self) -> int:
        """How many requests the endpoint may hold now without a surplus."""
        is_held = self._is_full and (self._is_queued or self._answers < HOLD_SHARE * self.slots)
        return max(1, self.slots - self._answers) if is_held else self.slots

    def on_answer(self, sent_at: float, held: int, span: Span, now: float, *, has_surplus: bool = True) -> None:
        """Record an answer.

        Args:
            sent_at: When the request was sent, monotonic seconds.
            held: How many requests the endpoint held when it answered, this one included.
            has_surplus: Whether it may hold `count` requests and not only `slots`.
        """
        if span.work < 0:  # without a known wait the count must not grow: embedding models answer one request at a time
            return
        self._at_work.note(span.work, now)
        wait = span.wait - self._learn_idle_wait(span)
        if not has_surplus and self._phase is not _Phase.ROUNDS:
            self._on_wave(held, span.work, wait, now)
            return
        if self._phase in (_Phase.SEARCH, _Phase.GROWTH) and held >= self.count:
            if self._grows(span.work, max(0.0, wait)):
                return
            self._phase = _Phase.FIRST_LOOK
            self._begin_round(now)
        is_first_look = self._phase is _Phase.FIRST_LOOK
        if sent_at < self._since and not is_first_look:
            return
        self._answers += 1
        self._held += held
        self._work += span.work
        self._wait += wait
        if self._answers >= (max(FIRST, self.count) if is_first_look else max(ROUND, ROUND_SHARE * self.count)):
            self._end_round(now, has_surplus=has_surplus)

    def _learn_idle_wait(self, span: Span) -> float:
        """Return the mean wait of a request without a queue."""
        self._least_wait = min(self._least_wait, span.wait)
        is_idle = span.wait - self._least_wait <= min(IDLE_SECONDS, IDLE_SHARE * span.work)
        if is_idle and self._idle_waits < IDLE_WAITS:
            self._idle_waits += 1
            self._idle_wait += (span.wait - self._idle_wait) / self._idle_waits
        return self._idle_wait

    def _grows(self, work: float, wait: float) -> bool:
        """Raise the count unless something waits; return whether nothing does."""
        share = wait / (work + wait) if wait else 0.0
        self._recent += NEWEST * (share - self._recent)
        if not self._has_no_queue(self._recent):
            return False
        twice = min(self.most, 2 * self._at_work.most)
        self.count = max(self.count, twice if self._phase is _Phase.SEARCH else min(twice, self.count + 1))
        self.slots = self.count
        return True

    def _on_wave(self, held: int, work: float, wait: float, now: float) -> None:
        """Record an answer in a wave: without a surplus, while the number of slots is not known."""
        if not self._is_full:
            self._is_full = held >= self.slots
            self._answers = 0
        if not self._is_full:
            return
        self._answers += 1
        self._is_queued |= wait > QUEUE_SHARE * (work + wait)
        if self._answers < self.slots:
            return
        most = min(self._at_work.most, self.slots)
        if self._phase is _Phase.GROWTH and most < self.slots:
            self._settle(max(most, self._floor), now)
        elif self._is_queued or most < HOLD_SHARE * self.slots:
            self._settle(most, now)
        elif self.slots >= self.most:
            self._settle(self.slots, now)
        else:
            self._floor, self._patience = self.slots, LEAST_PATIENCE
            self._widen(2 * self.slots if self._phase is _Phase.SEARCH else self.slots + 1)
            self._begin_round(now)

    def _widen(self, slots: int) -> None:
        self.slots = min(self.most, slots)
        self.count = max(self.count, self.slots)

    def _settle(self, at_work: float, now: float) -> None:
        self.slots = max(1, min(self.most, round(at_work)))
        self.count = max(1, min(self.most, round(at_work + max(1.0, SURPLUS * at_work))))
        self._phase, self._found_at = _Phase.ROUNDS, now
        self._begin_round(now)

    def _has_no_queue(self, share: float) -> bool:
        """Return whether nothing waits, by the share of waiting and by what was at work at once."""
        is_full = self._at_work.most >= FULL_WORK * self.count
        return share <= (LITTLE_WAIT_SHARE if is_full else NO_WAIT_SHARE)

    def _end_round(self, now: float, *, has_surplus: bool) -> None:
        held, wait = self._held / self._answers, max(0.0, self._wait)
        share = wait / (self._work + wait) if wait else 0.0
        if held >= FULL_SHARE * (self.count if has_surplus else self.slots):  # else there was too little work
            if not self._has_no_queue(share):
                at_once = min(float(self._at_work.most), held)
                is_first = self._phase is _Phase.FIRST_LOOK
                self._settle(at_once if is_first else max(at_once, held * (1 - share)), now)
                return
            if has_surplus or (self.slots < self.most and self._has_been_quiet()):
                self._phase, self._recent, self._floor = _Phase.GROWTH, 0.0, self.slots
                self._widen(self.count if has_surplus else self.slots + 1)
        self._begin_round(now)

    def _has_been_quiet(self) -> bool:
        """Return whether nothing waited for so many rounds that there may be more slots."""
        self._quiet += 1
        if self._quiet < self._patience:
            return False
        self._quiet, self._patience = 0, min(MOST_PATIENCE, 2 * self._patience)
        return True

    def _begin_round(self, now: float) -> None:
        self._since = now
        self._at_work.most = 0
        self._is_full = self._is_queued = False
        self._answers = self._held = 0
        self._work = self._wait = 0.0
