"""The result of a request, a response or a failure, and its parts. Pure; their JSON is in `record_codec`.

Values that exist for each request are tuples: making a frozen dataclass takes three times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from obcd.core.schema.thoughts import is_empty

#: Stands for the parsed value of an answer that was not parsed; `null` has the value None.
NOT_PARSED: Final = object()


class Cost(NamedTuple):
    """What an answer cost, over all attempts for it, or one of them. Seconds, and tokens.

    Attributes:
        seconds: From the request to its reply, as the client measured it.
        load_seconds, prompt_eval_seconds, eval_seconds, wait_seconds: As the server reports them; 0 if it does not.
        prompt_tokens, eval_tokens: Read and generated.
        is_divided: Whether a record holds the server's times.
        cached_tokens: Those of `prompt_tokens` that the server took from its prefix cache; None if replies do not say.
    """

    seconds: float = 0.0
    load_seconds: float = 0.0
    prompt_eval_seconds: float = 0.0
    eval_seconds: float = 0.0
    wait_seconds: float = 0.0
    prompt_tokens: int = 0
    eval_tokens: int = 0
    is_divided: bool = True
    cached_tokens: int | None = None

    @classmethod
    def total(cls, costs: Sequence[Cost]) -> Cost:
        """Return the sum of costs, rounded to milliseconds; cached tokens are known if every prompt's are."""
        cached = [cost.cached_tokens for cost in costs if cost.prompt_tokens]
        return cls(
            round(sum(cost.seconds for cost in costs), 3),
            round(sum(cost.load_seconds for cost in costs), 3),
            round(sum(cost.prompt_eval_seconds for cost in costs), 3),
            round(sum(cost.eval_seconds for cost in costs), 3),
            round(sum(cost.wait_seconds for cost in costs), 3),
            sum(cost.prompt_tokens for cost in costs),
            sum(cost.eval_tokens for cost in costs),
            any(cost.is_divided for cost in costs),
            sum(count or 0 for count in cached) if cached and None not in cached else None,
        )

    def untimed(self) -> Cost:
        """Return the same tokens with no time: no request was sent."""
        return Cost(prompt_tokens=self.prompt_tokens, eval_tokens=self.eval_tokens, is_divided=self.is_divided)


NO_COST: Final = Cost()


class ModelAnswer(NamedTuple):
    """The answer of a model, independent of the job: the value that the cache of answers keeps.

    Attributes:
        text: None if the answer is vectors.
        model: As the server names it, e.g. `llama3.2`.
        done_reason: `stop` or `length`; None of vectors.
        finished: When, in Unix seconds.
        embeddings: A vector for each text that was sent.
        thinking: The model's thoughts before the answer; None if the server does not separate them.
        thought_aloud: Whether they were in its text, as `<think>…</think>`.
        tool_calls, logprobs: JSON as the server sent it; None if there is none.
        parsed: The JSON value in the text, if the request required a form; else NOT_PARSED.
        is_mended: Whether the text was only nearly JSON, or numbers were in quotes, in the text or in a call, and that
            was corrected.
        group_size: How many requests went out in the call that it is from, if there were others; the first of them has
            the tokens and times of the call, the others have none.
        raw: All that the model wrote, if `text` is only a part of it, or a correction.
        repairs: How often the request was sent again because an answer did not fit.
        unknown: Keys of a record that another version wrote, and their values.
    """

    text: str | None = None
    model: str = ""
    done_reason: str | None = None
    cost: Cost = NO_COST
    finished: float = 0.0
    embeddings: Sequence[list[float]] | None = None
    thinking: str | None = None
    thought_aloud: bool = False
    tool_calls: list[object] | None = None
    logprobs: list[object] | None = None
    parsed: object = NOT_PARSED
    is_mended: bool = False
    repairs: int = 0
    unknown: Mapping[str, object] | None = None
    raw: str | None = None
    group_size: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing: its text is white space, or thoughts alone, and it calls no tool."""
        return self.text is not None and not self.tool_calls and is_empty(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """The unusable answer that a failure keeps, and what it cost. Never logged.

    Attributes:
        cost: Over all attempts for it; the server's times are not kept.
        tool_calls, thinking, repairs: As in `ModelAnswer`.
    """

    text: str
    cost: Cost = NO_COST
    tool_calls: list[object] | None = None
    thinking: str | None = None
    repairs: int = 0


class Response(NamedTuple):
    """A request that was answered.

    Attributes:
        ordinal: Of the request in its job, from 0.
        line: Number of its line, from 1.
        attempts: The number of the attempt that was answered.
        endpoint: The endpoint that answered.
        is_cached: Whether the answer was computed for an earlier job.
        seed: The seed of one of several answers.
        is_hedged: Whether another endpoint worked on the same attempt.
        weights: (model, digest of the weights that answered), if the job requires the same weights.
        same_as: Line of the equal request that was sent instead (`dedupe`).
        responses: For a line with several answers: all of them; `answer` is the first, with the counters of all.
    """

    ordinal: int
    line: int
    attempts: int
    endpoint: str
    answer: ModelAnswer
    is_cached: bool = False
    seed: int | None = None
    is_hedged: bool = False
    weights: tuple[str, str] | None = None
    same_as: int | None = None
    responses: tuple[Response, ...] = ()

    def repeated(self, ordinal: int, line: int) -> Response:
        """Return the result for an equal request: the same except for place and time."""
        cost = self.answer.cost.untimed()
        if self.answer.group_size > 1:  # the tokens are those of the whole call
            cost = cost._replace(prompt_tokens=0)
        answer = self.answer._replace(cost=cost)
        return self._replace(ordinal=ordinal, line=line, answer=answer, same_as=self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that has no answer and will not get one.

    Attributes:
        kind: A `FaultKind`, or the word of another version; the `class` of a line of errors.jsonl.
        message: One sentence for people.
        attempts: 0 if it was not sent.
        endpoint: The endpoint of the last attempt, "" if the request was not sent.
        reply: The server's error text where obcd does not know it; it may quote the prompt. Never logged.
        responses: For a line with several answers: those that came.
    """

    ordinal: int
    line: int
    kind: str
    message: str
    attempts: int = 0
    endpoint: str = ""
    reply: str = ""
    kept: KeptAnswer | None = None
    same_as: int | None = None
    responses: tuple[Response, ...] = ()

    def repeated(self, ordinal: int, line: int) -> Failure:
        """Return the result for an equal request: the same except for place and time."""
        kept = self.kept and replace(self.kept, cost=self.kept.cost.untimed())
        return replace(self, ordinal=ordinal, line=line, kept=kept, same_as=self.line)


#: The content of a ledger for each request.
Result = Response | Failure
