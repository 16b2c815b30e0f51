"""How long a request may take, learned from other requests at the same endpoint with the same model. Pure.

A fixed limit has to fit the slowest machine and the longest answer, so a server that hangs is trusted for ten minutes.
The endpoint's counters give its speed, and from that a limit which no healthy request reaches: its wait, its whole
prompt and its longest possible answer, at a quarter of that speed. A slower speed than known is adopted at once, a
faster one only gradually: a limit that is too long costs a little time, one that is too short costs an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from obcd.core.answer.outcomes import Cost
from obcd.core.request.records import Signature

#: Answers after which the speed counts as known.
KNOWN = 8
#: Weight of the newest answer if it waited less, or was written faster, than known.
FASTER = 0.1
#: The same for its prompt: the part of a prompt that was in the server's cache counts among its tokens and not in its
#: time, and the next prompt may be in no cache.
READ_FASTER = 0.002
#: How many times the expected time a request may take; doubled with each further attempt, because a wrong limit must
#: not fail a request for good.
PATIENCE = 4.0
#: The shortest limit, in seconds: machines stall at times.
LEAST_SECONDS = 30.0
#: Most tokens that llama.cpp reads at a time: a token waits this long for the prompt of another request.
BATCH_TOKENS = 2048
#: Fewest bytes of a request's messages that make a token.
BYTES_PER_TOKEN = 2


@dataclass(slots=True)
class _Speed:
    answers: int = 0
    wait: float = 0.0  # seconds
    prompt: float = 0.0  # seconds a token
    answer: float = 0.0  # seconds a token

    def note(self, wait: float, prompt: float | None, answer: float | None) -> None:
        self.answers += 1
        self.wait = _follow(self.wait, wait, FASTER)
        if prompt is not None:
            self.prompt = _follow(self.prompt, prompt, READ_FASTER)
        if answer is not None:
            self.answer = _follow(self.answer, answer, FASTER)


def _follow(known: float, newest: float, weight: float) -> float:
    """Return the updated value: the newest if it is larger, else the known one moved towards it by this weight."""
    return newest if newest > known else known + weight * (newest - known)


@dataclass(slots=True)
class Deadlines:
    """The speeds of one endpoint. All numbers are single values, so any thread may record and read them."""

    _speeds: dict[Signature, _Speed] = field(default_factory=dict)

    def note(self, signature: Signature, cost: Cost) -> None:
        """Learn from the cost of an answer."""
        self._speeds.setdefault(signature, _Speed()).note(
            cost.wait_seconds,
            cost.prompt_eval_seconds / cost.prompt_tokens if cost.prompt_tokens else None,
            cost.eval_seconds / cost.eval_tokens if cost.eval_tokens else None,
        )

    def limit(self, signature: Signature, size: int, longest: int, attempt: int, most: float, texts: int = 1) -> float:
        """Return the seconds that a request may take.

        Args:
            size: The bytes of its messages.
            longest: Most tokens of its answer (`num_predict`); below 1 there is no limit.
            attempt: From 1.
            most: The configured limit; it always holds, and alone until the speed is known.
            texts: How many texts are read separately, each in its own context.
        """
        speed = self._speeds.get(signature)
        if speed is None or speed.answers < KNOWN or longest < 1:
            return most
        read = min(signature.num_ctx * texts, size / BYTES_PER_TOKEN)
        expected = speed.wait + read * speed.prompt + longest * speed.answer
        limit: float = max(LEAST_SECONDS, PATIENCE * expected) * 2.0 ** (attempt - 1)
        return min(most, limit)

    def token_limit(self, signature: Signature) -> float:
        """Return the seconds that one token may take, the wait for a slot included, at an endpoint that may be slow."""
        speed = self._speeds.get(signature, _Speed())
        return max(LEAST_SECONDS, PATIENCE * (speed.wait + BATCH_TOKENS * speed.prompt + speed.answer))
