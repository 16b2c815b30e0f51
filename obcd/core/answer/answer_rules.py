"""What the answer to a request is held to: its text to a JSON schema, its calls of tools to their parameters. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from obcd.core.request.records import JobSettings, Request, format_of
from obcd.core.request.tools import strict_parameters, tool_names
from obcd.core.schema.schemas import Apart, Fit, Misfit, Schema, schema_of

#: What a model is asked for whose call would not do.
CALL_ANEW = "Call the tool again, with arguments that satisfy its parameters."


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """What answers are held to.

    Attributes:
        form: Of their text; None: it may be any.
        tools: The names that may be called; calls where none may be are none.
        parameters: {name of a strict tool: what the arguments of its calls are held to}
    """

    form: Schema | None
    tools: tuple[str, ...]
    parameters: Mapping[str, Schema]

    def judge(self, fields: Mapping[str, Any], apart: Apart | None = None) -> dict[str, Any] | Misfit:
        """Return the fields of an answer as they are kept, or why it does not fit.

        Args:
            fields: Those of `client.Answer`, e.g. `{"response": "", "tool_calls": [{"function": {…}}], …}`.
            apart: As in `Schema.judge`.
        """
        calls = fields.get("tool_calls")
        if calls and self.parameters:
            return self._judge_calls(fields, apart)
        if self.form is None or (calls and self.tools and all(map(_is_call, calls))):
            return dict(fields)
        judged = self.form.judge(fields["response"], apart)
        return judged if isinstance(judged, Misfit) else _fitting(fields, judged)

    def _judge_calls(self, fields: Mapping[str, Any], apart: Apart | None) -> dict[str, Any] | Misfit:
        calls, is_mended = [], False
        for call in fields["tool_calls"]:
            judged = self._judge_call(call, apart)
            if isinstance(judged, Misfit):
                return replace(judged, text=fields["response"])
            if isinstance(judged, Fit) and judged.is_mended:
                call = {**call, "function": {**call["function"], "arguments": judged.value}}  # noqa: PLW2901
                is_mended = True
            calls.append(call)
        return {**fields, "tool_calls": calls, **({"mended": True} if is_mended else {})}

    def _judge_call(self, call: Any, apart: Apart | None) -> Fit | Misfit | None:
        """Return how the arguments of a call fit; None where they may be any."""
        if not _is_call(call) or call["function"]["name"] not in self.tools:
            told = f"There is no such tool: those that can be called are {', '.join(self.tools)}."
            return Misfit("it calls a tool that was not offered", told, "")
        function = call["function"]
        name = function["name"]
        if name not in self.parameters:
            return None
        judged = self.parameters[name].judge(json.dumps(function.get("arguments", {})), apart)
        if isinstance(judged, Fit):
            return judged
        told = f"In the arguments for {name}:\n{judged.told}"
        return replace(judged, reason=f"in its call of {name}, {judged.reason}", told=told)


def held_of(request: Request, settings: JobSettings) -> AnswerRules | None:
    """Return what the answer to a request is held to; None: it may be anything."""
    wanted, strict = format_of(request, settings), strict_parameters(request.tools or ())
    if wanted is None and not strict:
        return None
    parameters = {name: schema_of(document) for name, document in strict.items()}
    return AnswerRules(None if wanted is None else schema_of(wanted), tool_names(request.tools or ()), parameters)


def _is_call(call: object) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _fitting(fields: Mapping[str, Any], fit: Fit) -> dict[str, Any]:
    kept = {**fields, "response": fit.text, "parsed": fit.value}
    if fit.thoughts:
        kept["thinking"] = "\n".join(part for part in (fields.get("thinking"), fit.thoughts) if part)
    return {**kept, "mended": True} if fit.is_mended else kept
