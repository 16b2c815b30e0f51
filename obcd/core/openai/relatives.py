"""Lines of other services' batches: what sets them apart from OpenAI's, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OPENAI = 'a line of OpenAI Batch: {"custom_id": …, "method": "POST", "url": "/v1/chat/completions", "body": {…}}'


def why_foreign(document: Mapping[str, Any]) -> str | None:
    """Return what a line of no shape of ours is, and what to write instead; None where it is none that is known."""
    if "custom_id" in document and "params" in document:
        return (
            "a line of Anthropic's Message Batches (custom_id, params) is not taken: its `params` differ from OpenAI's "
            f"`body` (system beside the messages, max_tokens, blocks of content); write {_OPENAI}"
        )
    if "recordId" in document and "modelInput" in document:
        return (
            "a line of Amazon Bedrock (recordId, modelInput) is not taken: its `modelInput` has another shape for each "
            f"model; write the recordId as custom_id, in {_OPENAI}"
        )
    if isinstance(document.get("request"), dict):
        return (
            "a line of Google's Gemini (request, with contents in it) is not taken: it has `contents` and `parts` in "
            f"the place of messages; write {_OPENAI}"
        )
    if isinstance(document.get("requests"), list):
        return f"all requests in one object, as Anthropic's API takes them: write each as {_OPENAI}"
    if "custom_id" in document and ("response" in document or "result" in document):
        return "a line of a batch's output, not of its input: drop the file that was asked"
    if "custom_id" in document:
        return f"a custom_id, but no `body`: write {_OPENAI}"
    return None
