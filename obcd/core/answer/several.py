"""Join several answers to one prompt (`n`) into the one result of its line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from obcd.core.answer.outcomes import Cost, Failure, Response, Result


def join(results: Sequence[Result]) -> Result:
    """Return the result of a line from the results of its answers, in their order; a single one is returned as it is.

    If all were answered: the first response, with the counters of all, and all of them as `responses`. If one failed:
    that failure, and the answers that came as `responses`. The result is cached, hedged, or the same as another only
    if each of its parts is.
    """
    if len(results) == 1:
        return results[0]
    answered = tuple(result for result in results if isinstance(result, Response))
    attempts = max(result.attempts for result in results)
    is_same = all(result.same_as is not None for result in results)
    failed = next((result for result in results if isinstance(result, Failure)), None)
    if failed is not None:
        message = f"{len(results) - len(answered)} of {len(results)} answers failed, the first since {failed.message}"
        same_as = failed.same_as if is_same else None
        return replace(failed, message=message, attempts=attempts, same_as=same_as, responses=answered)
    first, answers = answered[0], [response.answer for response in answered]
    answer = first.answer._replace(
        done_reason="length" if any(answer.done_reason == "length" for answer in answers) else first.answer.done_reason,
        cost=Cost.total([answer.cost for answer in answers]),
        repairs=sum(answer.repairs for answer in answers),
        finished=max(answer.finished for answer in answers),
        logprobs=None,
    )
    return first._replace(
        answer=answer,
        attempts=attempts,
        is_cached=all(response.is_cached for response in answered),
        is_hedged=all(response.is_hedged for response in answered),
        seed=None,
        same_as=first.same_as if is_same else None,
        responses=answered,
    )
