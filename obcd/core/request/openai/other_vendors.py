"""Lines of other services' batches: how they differ from OpenAI's, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_OPENAI = 'a line of OpenAI Batch: {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}'


def _has(*keys: str) -> Callable[[Mapping[str, object]], bool]:
    return lambda document: all(key in document for key in keys)


#: How to recognize a line, and what it is; the first match counts.
_RELATIVES: tuple[tuple[Callable[[Mapping[str, object]], bool], str], ...] = (
    (
        _has("recordId", "modelInput"),
        "a line of Amazon Bedrock (recordId, modelInput) is not supported: its `modelInput` has another shape for each "
        f"model; write the recordId as custom_id, in {_OPENAI}",
    ),
    (
        lambda document: isinstance(document.get("request"), dict),
        "a line of Google's Gemini (request, with contents in it) is not supported: it has `contents` and `parts` in "
        f"place of messages; write {_OPENAI}",
    ),
    (
        lambda document: isinstance(document.get("requests"), list),
        "all requests in one object, as Anthropic's API expects them: make its list `requests` the whole file",
    ),
    (
        lambda document: "custom_id" in document and ("response" in document or "result" in document),
        "a line of a batch's output, not of its input: drop the input file instead",
    ),
    (
        lambda document: isinstance(document.get("body"), dict),
        "`custom_id` is missing: write one, a string, by which you find the answer",
    ),
    (_has("custom_id"), f"a custom_id, but no `body`: write {_OPENAI}"),
)


def why_foreign(document: Mapping[str, object]) -> str | None:
    """Return what a line of an unknown shape is, and what to write instead; None if that is not known either."""
    return next((sentence for fits, sentence in _RELATIVES if fits(document)), None)
