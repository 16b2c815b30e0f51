"""Convert a line of Anthropic's Message Batches to the obcd line with the same request. Pure.

    {"custom_id": "r-1", "params": {"model": "m", "max_tokens": 9, "system": "Be brief", "messages": […]}}
    -> {"id": "r-1", "model": "m", "system": "Be brief", "options": {"num_predict": 9}, "messages": […]}

Its response is a line in obcd's form.
"""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.request.conversation.messages import read_messages
from obcd.core.request.conversation.parts import as_string, read_parts
from obcd.core.request.keys.dropped_keys import Dropped, why_misspelt
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

#: {parameter: option of Ollama}; `options` checks their values.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "num_predict",
    "stop_sequences": "stop",
}
_TAKEN = frozenset((*_OPTIONS, "model", "messages", "system", "tools", "tool_choice", "thinking"))
#: Parameters without an effect on the answer.
_PASSED_OVER = frozenset(("metadata", "service_tier", "cache_control", "anthropic_version"))


def is_asked(document: Mapping[str, object]) -> bool:
    """Return whether a line has the keys of a line of Anthropic's batches."""
    return "custom_id" in document and isinstance(document.get("params"), dict)


def to_ours(document: Mapping[str, object], dropped: Dropped) -> dict[str, object]:
    """Return the obcd line with the same request; other keys of the line are kept.

    Raises:
        LineError: Naming the parameter that has no equivalent.
    """
    params = document["params"]
    assert isinstance(params, dict)
    for key, value in params.items():
        is_nothing = value is None or (key == "stream" and value is False) or key in _PASSED_OVER
        if key not in _TAKEN and not is_nothing and not dropped.excuses("params", key):
            reason = why_misspelt(key, _TAKEN) or "Ollama has nothing like it: remove it"
            raise LineError(f"`params.{short_key(key)}` is not supported: {reason}")
    conversation = read_messages(params.get("messages"), "params.messages", dropped, needs_calls=True)
    options = {option: params[key] for key, option in _OPTIONS.items() if params.get(key) is not None}
    ours = {
        "id": document["custom_id"],
        "model": params.get("model"),
        "system": _system(params.get("system")),
        "messages": conversation.messages,
        "options": options or None,
        "think": _think(params.get("thinking"), dropped),
        "tools": _tools(params.get("tools"), params.get("tool_choice"), dropped),
    }
    extra = {key: value for key, value in document.items() if key not in ("custom_id", "params")}
    if clash := sorted(ours.keys() & extra.keys()):
        raise LineError(f"`{clash[0]}` is beside the `params`: move it into them, or remove it")
    return {**extra, **{key: value for key, value in ours.items() if value is not None}}


def _system(given: object) -> str | None:
    if given is None:
        return None
    if isinstance(given, list):
        return read_parts(given, "system", "params.system").text
    return as_string(given, "params.system")


def _think(given: object, dropped: Dropped) -> bool | None:
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if not isinstance(given, dict) or kind not in ("enabled", "disabled", "adaptive"):
        raise LineError("`params.thinking` must have a `type`, one of enabled, disabled, adaptive")
    if given.get("budget_tokens") is not None and not dropped.excuses("params.thinking", "budget_tokens"):
        raise LineError(
            "`params.thinking.budget_tokens` is not supported: Ollama has no limit for thoughts alone, remove it "
            '(or ignore = ["budget_tokens"] in the profile)'
        )
    return None if kind == "adaptive" else kind == "enabled"


def _tools(tools: object, choice: object, dropped: Dropped) -> list[object] | None:
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind not in (None, "auto", "none") and not dropped.excuses("params", "tool_choice"):
        raise LineError(
            "`params.tool_choice` must be of the type auto or none: Ollama cannot make a model call a tool, "
            "say so in the prompt"
        )
    if not tools or kind == "none":
        return None
    if not isinstance(tools, list):
        raise LineError("`params.tools` must be a list")
    found: list[object] = []
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") not in (None, "custom") or "input_schema" not in tool:
            raise LineError(f"`params.tools[{number}]` must have a name and an input_schema: Ollama has no other tools")
        function = {"name": tool.get("name"), "description": tool.get("description")}
        given = {**function, "parameters": tool["input_schema"]}
        found.append(
            {"type": "function", "function": {key: value for key, value in given.items() if value is not None}}
        )
    return found
