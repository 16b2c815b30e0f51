"""How many requests an endpoint holds at best, found from its own counters. Pure; times are arguments.

Behind its slots an Ollama has a queue without limit that nothing shows (ollama server/sched.go, llm/llama_server.go),
but each reply states how long its request waited there. The share of `n` requests in flight that is at work equals the
share of work in their time: slots = n × work / (work + wait). So the count grows while nothing waits. Then it stays an
eighth above the number at work: while an answer travels to obcd and the next request back, the slot can take another
request.

    8 ──nothing waits: one more for each answer──► 9 … 32 … ──something waits──► slots + ⅛, found again each round
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: The start of the search. Ollama's default is 1, obcd's own servers have 16; the surplus waits in the server.
FIRST = 8
#: No server gets more than this; llama.cpp itself stops at 256 sequences.
MOST = 128
#: Share of the requests at work that is sent in addition and waits ready in the server; at least one.
SURPLUS = 0.125
#: A wait up to this share of a request's time counts as none: it also includes templates and tokenizing.
NO_WAIT_SHARE = 0.05
#: A round gives a result only if this share of the count was in flight.
FULL_SHARE = 0.9
#: Answers of one round: this many at least, and this many for each place, because answers come in waves if all requests
#: take equally long.
ROUND, ROUND_SHARE = 16, 2


class Span(NamedTuple):
    """What an endpoint's own counters report for one request, in seconds.

    Attributes:
        work: At work on the request; negative if the endpoint does not report it.
        wait: Before that, waiting for a slot; loading is not part of it.
    """

    work: float = 0.0
    wait: float = 0.0


#: For endpoints that report nothing: /api/embed does not separate waiting and work.
UNTOLD = Span(-1.0, 0.0)


@dataclass(slots=True)
class SlotFinder:
    """The search at one endpoint with one model.

    Attributes:
        count: How many requests the endpoint may hold now.
    """

    count: int = FIRST
    _is_growing: bool = True
    #: When the present round began; a request that was sent before that belongs to another count.
    _since: float = 0.0
    #: The shortest wait so far: it is not a queue but part of every request.
    _least_wait: float = float("inf")
    _answers: int = 0
    _held: int = 0
    _work: float = 0.0
    _wait: float = 0.0

    def on_answer(self, sent_at: float, place: int, held: int, span: Span, now: float) -> None:
        """Record an answer.

        Args:
            sent_at: When the request was sent, monotonic seconds.
            place: How many requests the endpoint held then, this one included.
            held: How many it held when it answered, this one included.
        """
        if span.work < 0:  # without a known wait the count must not grow: embedding models answer one request at a time
            return
        self._least_wait = min(self._least_wait, span.wait)
        work, wait = span.work, span.wait - self._least_wait
        if self._is_growing and held >= self.count:
            if wait <= NO_WAIT_SHARE * (work + wait):
                self.count = max(self.count, min(MOST, self.count + 1, 2 * place))
                return
            self._is_growing = False
            self._begin_round(now)
        if sent_at < self._since:
            return
        self._answers += 1
        self._held += held
        self._work += work
        self._wait += wait
        if self._answers >= max(ROUND, ROUND_SHARE * self.count):
            self._end_round(now)

    def _end_round(self, now: float) -> None:
        held, time = self._held / self._answers, self._work + self._wait
        share = self._wait / time if time else 0.0
        if held >= FULL_SHARE * self.count:  # else there was too little work to learn from
            at_work = held * (1 - share)
            self._is_growing = share <= NO_WAIT_SHARE
            if not self._is_growing:
                self.count = max(1, min(MOST, round(at_work + max(1.0, SURPLUS * at_work))))
        self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._since = now
        self._answers = self._held = 0
        self._work = self._wait = 0.0
