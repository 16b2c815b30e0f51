"""Tools that a model may call: the shape that Ollama reads (api/types.go: Tool). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from obcd.core.request.records import Tool, ToolFunction
from obcd.core.schema.schemas import check_schema
from obcd.errors import LineError

_EXAMPLE = '{"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}'


def check_tools(tools: object) -> list[Tool] | None:
    """Check `tools`; null means none.

    Raises:
        LineError: Naming the first one that is not a tool.
    """
    if tools is None:
        return None
    if not isinstance(tools, list):
        raise LineError(f"`tools` must be a list of {_EXAMPLE}")
    tools = [_wrapped(tool) for tool in tools]
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type", "function") != "function":
            raise LineError(f"`{place}` must be {_EXAMPLE}")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise LineError(f"`{place}.function` needs a `name`")
        if not isinstance(function.get("description", ""), str):
            raise LineError(f"`{place}.function.description` must be a string")
        if not isinstance(function.get("parameters", {}), dict):
            raise LineError(f"`{place}.function.parameters` must be a JSON schema (an object)")
        if not isinstance(function.get("strict", False), bool | None):
            raise LineError(f"`{place}.function.strict` must be true or false")
        why = check_schema(_parameters(tool["function"])) if function.get("strict") else ""
        if why:
            raise LineError(f"`{place}.function.parameters` is not a JSON schema that can be held to: {why}")
    return tools


def _wrapped(tool: Any) -> Any:
    """Return a tool that is only its function (data sets, OpenAI's newer API) as a tool."""
    if not isinstance(tool, dict) or "function" in tool or "parameters" not in tool:
        return tool
    return {"type": tool.get("type", "function"), "function": {key: tool[key] for key in tool if key != "type"}}


def tool_names(tools: Sequence[Tool]) -> tuple[str, ...]:
    """Return the names of checked tools."""
    return tuple(tool["function"]["name"] for tool in tools)


def strict_parameters(tools: Sequence[Tool]) -> dict[str, dict[str, object]]:
    """Return `{name: JSON schema}` of the checked tools whose calls have to fit (OpenAI's `strict`)."""
    functions = (tool["function"] for tool in tools)
    return {function["name"]: _parameters(function) for function in functions if function.get("strict")}


def _parameters(function: ToolFunction) -> dict[str, object]:
    """Return the schema for the arguments of a tool: an object, if the tool does not say more."""
    return function.get("parameters") or {"type": "object"}
