"""How long a request may take, learned from how long others took at the same endpoint with the same model. Pure.

A fixed limit has to fit the slowest machine and the longest answer, so that a server which hangs is believed for ten
minutes. What an endpoint's counters say of its speed gives a limit that no honest request reaches: its wait, its whole
prompt and the longest answer it may give, at a quarter of that speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from obcd.core.records import Signature

#: Answers after which the speed counts as known.
KNOWN = 8
#: Weight of the newest answer.
NEWEST = 0.1
#: The same for one whose prompt was read faster than known: what of a prompt was in the server's cache counts among its
#: tokens and not in its time, and the next prompt may be in no cache.
NEWEST_FASTER = 0.002
#: How many times as long as expected a request may take, doubled with each further attempt: a limit that was wrong
#: must not fail a request for good.
PATIENCE = 4.0
#: The shortest limit, in seconds: machines stutter.
LEAST_SECONDS = 30.0
#: Bytes of a request's messages that make a token, at the least.
BYTES_PER_TOKEN = 2


@dataclass(slots=True)
class _Speed:
    answers: int = 0
    wait: float = 0.0  # seconds
    prompt: float = 0.0  # seconds a token
    answer: float = 0.0  # seconds a token

    def note(self, wait: float, prompt: float | None, answer: float | None) -> None:
        weight = max(NEWEST, 1 / (self.answers + 1))
        self.answers += 1
        self.wait += weight * (wait - self.wait)
        if prompt is not None:
            self.prompt += (1.0 if prompt > self.prompt else NEWEST_FASTER) * (prompt - self.prompt)
        if answer is not None:
            self.answer += weight * (answer - self.answer)


@dataclass(slots=True)
class Deadlines:
    """The speeds of one endpoint. Its numbers are single values, so that any thread may note and ask."""

    _speeds: dict[Signature, _Speed] = field(default_factory=dict)

    def note(self, signature: Signature, fields: Mapping[str, Any]) -> None:
        """Take note of an answer, by what `ollama.client.Answer` keeps of it."""
        read, written = fields["prompt_tokens"], fields["eval_tokens"]
        self._speeds.setdefault(signature, _Speed()).note(
            fields["wait_seconds"],
            fields["prompt_eval_seconds"] / read if read else None,
            fields["eval_seconds"] / written if written else None,
        )

    def limit(self, signature: Signature, size: int, options: Mapping[str, Any], attempt: int, most: float) -> float:
        """Return the seconds that a request may take.

        Args:
            size: The bytes of its messages.
            options: Its own, with `num_ctx` and `num_predict`.
            attempt: From 1.
            most: The limit of the configuration; it holds too, and alone until the speed is known.
        """
        speed = self._speeds.get(signature)
        longest: int = options["num_predict"]
        if speed is None or speed.answers < KNOWN or longest < 1:  # below 1 it is without end
            return most
        read = min(options["num_ctx"], size / BYTES_PER_TOKEN)
        expected = speed.wait + read * speed.prompt + longest * speed.answer
        limit: float = max(LEAST_SECONDS, PATIENCE * expected) * 2.0 ** (attempt - 1)
        return min(most, limit)
