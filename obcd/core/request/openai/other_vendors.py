"""Lines of other services' batches: what sets them apart from OpenAI's, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_OPENAI = 'a line of OpenAI Batch: {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}'


def _has(*keys: str) -> Callable[[Mapping[str, object]], bool]:
    return lambda document: all(key in document for key in keys)


#: What tells a line, and what it is; the first that fits.
_RELATIVES: tuple[tuple[Callable[[Mapping[str, object]], bool], str], ...] = (
    (
        _has("custom_id", "params"),
        "a line of Anthropic's Message Batches (custom_id, params) is not taken: its `params` differ from OpenAI's "
        f"`body` (system beside the messages, max_tokens, blocks of content); write {_OPENAI}",
    ),
    (
        _has("recordId", "modelInput"),
        "a line of Amazon Bedrock (recordId, modelInput) is not taken: its `modelInput` has another shape for each "
        f"model; write the recordId as custom_id, in {_OPENAI}",
    ),
    (
        lambda document: isinstance(document.get("request"), dict),
        "a line of Google's Gemini (request, with contents in it) is not taken: it has `contents` and `parts` in the "
        f"place of messages; write {_OPENAI}",
    ),
    (
        lambda document: isinstance(document.get("requests"), list),
        f"all requests in one object, as Anthropic's API takes them: write each as {_OPENAI}",
    ),
    (
        lambda document: "custom_id" in document and ("response" in document or "result" in document),
        "a line of a batch's output, not of its input: drop the file that was asked",
    ),
    (
        _has("method", "url", "body"),
        "`custom_id` is missing: write one, a string, by which you find the answer",
    ),
    (_has("custom_id"), f"a custom_id, but no `body`: write {_OPENAI}"),
)


def why_foreign(document: Mapping[str, object]) -> str | None:
    """Return what a line of no shape of ours is, and what to write instead; None where it is none that is known."""
    return next((sentence for fits, sentence in _RELATIVES if fits(document)), None)
