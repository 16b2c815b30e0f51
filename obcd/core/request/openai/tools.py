"""The tools of a body, and whether the model may call them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.request.keys.dropped_keys import Dropped
from obcd.errors import LineError

#: Parameters that `tools_of` reads; `functions` and `function_call` are their older names.
TOOLS = frozenset(("tools", "tool_choice", "functions", "function_call"))


def tools_of(body: Mapping[str, object], dropped: Dropped) -> list[object] | None:
    """Return the tools that the model may call: none if the choice is `none`.

    Raises:
        LineError: If a tool is not a function, or the model would be forced to call one.
    """
    if TOOLS.isdisjoint(body):
        return None
    tools, functions = body.get("tools"), body.get("functions")
    if functions and not tools:
        if not isinstance(functions, list):
            raise LineError("`body.functions` must be a list")
        tools = [{"type": "function", "function": function} for function in functions]
    choices = [_choice(body.get(key), key, dropped) for key in ("tool_choice", "function_call")]
    if tools in (None, []) or "none" in choices:
        return None
    if not isinstance(tools, list):
        raise LineError("`body.tools` must be a list")
    for number, tool in enumerate(tools):
        place = f"body.tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise LineError(f'`{place}` must be {{"type": "function", "function": {{…}}}}: Ollama has no other tools')
    return [
        {**tool, "function": {key: value for key, value in tool["function"].items() if value is not None}}
        for tool in tools
    ]


def _choice(choice: object, name: str, dropped: Dropped) -> object:
    if choice in (None, "auto", "none") or dropped.excuses("body", name):
        return choice
    raise LineError(
        f'`body.{name}` must be "auto" or "none": Ollama cannot make a model call a tool, say so in the prompt'
    )
