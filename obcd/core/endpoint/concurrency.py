"""How many requests an endpoint holds at best, found from what its own counters say. Pure; times are arguments.

Behind its slots an Ollama has a queue without limit that nothing shows (ollama server/sched.go, llm/llama_server.go),
but each reply tells how long its request waited there. Of `n` requests in flight as many are at work as work is in
their time: slots = n × work / (work + wait). So the count grows while nothing waits, and then stays an eighth above
what is at work: while an answer travels to us and the next request back, its slot has another one to take.

    8 ──nothing waits: one more for each answer──► 9 … 32 … ──something waits──► slots + ⅛, told anew each round
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Where the search begins. Ollama's default is 1, obcd's own servers have 16; the surplus waits in the server.
FIRST = 8
#: No server is given more than this; llama.cpp itself stops at 256 sequences.
MOST = 128
#: Share of the requests at work that are sent on top of them, to lie ready; at least one.
SURPLUS = 0.125
#: Share of a request's time up to which its wait counts as none: templates and tokens are made in it too.
NO_WAIT_SHARE = 0.05
#: Share of the count that has to be in flight for a round to tell something.
FULL_SHARE = 0.9
#: Answers of one round: so many at least, and of each place so many, since they come in waves where all take as long.
ROUND, ROUND_SHARE = 16, 2


class Span(NamedTuple):
    """What an endpoint's own counters say of one request, in seconds.

    Attributes:
        work: At work on it; negative where nothing is told.
        wait: Before that, waiting for a slot; loading is not part of it.
    """

    work: float = 0.0
    wait: float = 0.0


#: Where nothing is told: /api/embed does not tell waiting and work apart.
UNTOLD = Span(-1.0, 0.0)


@dataclass(slots=True)
class SlotFinder:
    """The search at one endpoint with one model.

    Attributes:
        count: How many requests it may hold now.
    """

    count: int = FIRST
    _is_growing: bool = True
    #: When the present round began; what was sent before tells of another count.
    _since: float = 0.0
    #: Least wait that was seen: it is no queue but the way of every request.
    _least_wait: float = float("inf")
    _answers: int = 0
    _held: int = 0
    _work: float = 0.0
    _wait: float = 0.0

    def on_answer(self, sent_at: float, place: int, held: int, span: Span, now: float) -> None:
        """Take note of an answer.

        Args:
            sent_at: When its request was sent, monotonic seconds.
            place: How many requests the endpoint held then, this one included.
            held: How many it held when it answered, this one included.
        """
        if span.work < 0:  # what tells of no waiting must not make the count grow: embedding models answer one by one
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
        if held >= FULL_SHARE * self.count:  # else there was too little to do to learn of it
            at_work = held * (1 - share)
            self._is_growing = share <= NO_WAIT_SHARE
            if not self._is_growing:
                self.count = max(1, min(MOST, round(at_work + max(1.0, SURPLUS * at_work))))
        self._begin_round(now)

    def _begin_round(self, now: float) -> None:
        self._since = now
        self._answers = self._held = 0
        self._work = self._wait = 0.0
