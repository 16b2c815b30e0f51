"""The rules for the answer to a request: a JSON schema for its text, parameters for its calls of tools. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from obcd.core.answer.outcomes import ModelAnswer
from obcd.core.request.records import JobSettings, Request, format_of
from obcd.core.request.tools import strict_parameters, tool_names
from obcd.core.schema.schemas import Apart, Fit, Misfit, Schema, schema_of

#: The repair prompt for a model whose call cannot be used.
CALL_ANEW = "Call the tool again, with arguments that satisfy its parameters."


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """The rules that answers have to satisfy.

    Attributes:
        form: Of their text; None: any text.
        tools: The names that may be called; without any, calls are ignored.
        parameters: {name of a strict tool: the schema for the arguments of its calls}
    """

    form: Schema | None
    tools: tuple[str, ...]
    parameters: Mapping[str, Schema]

    def judge(self, answer: ModelAnswer, apart: Apart | None = None) -> ModelAnswer | Misfit:
        """Return an answer in its final form, or why it does not fit.

        Args:
            apart: As in `Schema.judge`.
        """
        calls = answer.tool_calls
        if calls and self.parameters:
            return self._judge_calls(answer, calls, apart)
        if self.form is None or (calls and self.tools and all(map(_Call.read, calls))):
            return answer
        judged = self.form.judge(answer.text or "", apart)
        return judged if isinstance(judged, Misfit) else _fitting(answer, judged)

    def _judge_calls(self, answer: ModelAnswer, given: list[object], apart: Apart | None) -> ModelAnswer | Misfit:
        calls, is_mended = [], False
        for call in map(_Call.read, given):
            judged = self._judge_call(call, apart)
            if isinstance(judged, Misfit):
                return replace(judged, text=answer.text or "")
            is_mended |= judged.is_mended
            calls.append(judged.value)
        return answer._replace(tool_calls=calls, is_mended=is_mended)

    def _judge_call(self, call: _Call | None, apart: Apart | None) -> Fit | Misfit:
        """Return a call in its final form, or how its arguments do not fit."""
        if call is None or call.name not in self.tools:
            sentence = f"There is no such tool: those that can be called are {', '.join(self.tools)}."
            return Misfit("it calls a tool that was not offered", sentence, "")
        if call.name not in self.parameters:
            return Fit(call.document, "")
        judged = self.parameters[call.name].judge(json.dumps(call.function.get("arguments", {})), apart)
        if isinstance(judged, Fit):
            return replace(judged, value=call.with_arguments(judged.value) if judged.is_mended else call.document)
        sentence = f"In the arguments for {call.name}:\n{judged.for_model}"
        return replace(judged, reason=f"in its call of {call.name}, {judged.reason}", for_model=sentence)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a tool, as the server sent it: `{"function": {"name": …, "arguments": {…}}}`."""

    document: Mapping[str, object]
    function: Mapping[str, object]
    name: str

    @classmethod
    def read(cls, document: object) -> _Call | None:
        """Return the call that a JSON value stands for, or None if it is not a call."""
        function = document.get("function") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(function, dict):
            return None
        name = function.get("name")
        return cls(document, function, name) if isinstance(name, str) else None

    def with_arguments(self, arguments: object) -> Mapping[str, object]:
        """Return the same call with other arguments."""
        return {**self.document, "function": {**self.function, "arguments": arguments}}


def held_of(request: Request, settings: JobSettings) -> AnswerRules | None:
    """Return the rules for the answer to a request; None: it may be anything."""
    wanted, strict = format_of(request, settings), strict_parameters(request.tools or ())
    if wanted is None and not strict:
        return None
    parameters = {name: schema_of(document) for name, document in strict.items()}
    return AnswerRules(None if wanted is None else schema_of(wanted), tool_names(request.tools or ()), parameters)


def _fitting(answer: ModelAnswer, fit: Fit) -> ModelAnswer:
    raw = None if fit.is_whole else answer.text
    answer = answer._replace(text=fit.text, parsed=fit.value, is_mended=fit.is_mended, raw=raw)
    if not fit.thoughts:
        return answer
    if answer.thinking is None:
        return answer._replace(thinking=fit.thoughts, thought_aloud=True)
    return answer._replace(thinking="\n".join(filter(None, (answer.thinking, fit.thoughts))))
