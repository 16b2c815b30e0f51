"""Send a request until the answer fits: an answer that breaks its rules is shown to the model with its fault.

    send ──► fits ─────────────────────────────► Answer
     ▲ └───► does not fit, repairs are left ──┐
     └── the prompt, that answer, its fault ◄─┘  … no repairs are left ──► Fault `invalid_answer`, with the answer

For the caller this is one request: its tokens and seconds are the sums over all attempts to repair it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from obcd.core.answer.answer_rules import CALL_ANEW, AnswerRules, held_of
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import NOT_PARSED, Cost, KeptAnswer, ModelAnswer
from obcd.core.answer.text_answers import EMPTY, without_thoughts
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.records import JobSettings, Kind, Request, num_predict_of
from obcd.core.schema.schemas import Misfit, Schema
from obcd.ollama.client import CUT_IN_THOUGHT, ask
from obcd.ollama.transport import Transport
from obcd.ollama.validation_process import judge_apart
from obcd.text import plural

#: Longest schema that is shown in a conversation, in characters of its JSON.
MAX_SHOWN = 4000
#: Longest answer that is shown to the model again, in characters: an answer that repeats itself up to the token limit
#: teaches nothing more.
MAX_REPEATED = 4000


def ask_fitting(
    transport: Transport, request: Request, settings: JobSettings, has_time: Callable[[float], bool]
) -> ModelAnswer | Fault:
    """Send one request, and repair it at most `settings.repairs` times while its answer does not fit.

    Args:
        has_time: Called before each repair with the seconds that the previous answer took; returns whether another one
            like it fits into the time limit of the whole request, and may then extend the limit for the repair.
    """
    held = held_of(request, settings)
    answer = ask(transport, request, settings)
    if isinstance(answer, Fault):
        return answer
    if held is None:
        return _text_answer(answer, settings)
    total, repairs = answer, 0
    while True:
        judged = held.judge(total, judge_apart)
        if not isinstance(judged, Misfit):
            judged = judged._replace(repairs=repairs)
            return _text_answer(judged, settings) if judged.parsed is NOT_PARSED else judged
        is_lost = judged.is_final or _is_cut_in_thought(judged, answer)
        if repairs == settings.repairs or is_lost or not has_time(answer.cost.seconds):
            return _misfit(request, settings, judged, total, repairs)
        repair = ask(transport, repair_of(request, answer, judged, held, repairs + 1), settings)
        if isinstance(repair, Fault):
            if repair.remedy is Remedy.NEVER and not repair.needs:  # such as a context too small for a second answer
                return _misfit(request, settings, judged, total, repairs, f"; the repair failed: {repair.message}")
            return repair  # the endpoint's fault: the whole request is sent elsewhere
        answer, repairs = repair, repairs + 1
        total = repair._replace(cost=Cost.total((total.cost, repair.cost)))


def repair_of(request: Request, answer: ModelAnswer, misfit: Misfit, held: AnswerRules, number: int = 1) -> Request:
    """Return the request that shows a model its answer and the fault of the answer.

    Every second repair leaves the answer out and repeats the request with the expected form: a small model copies its
    earlier answer, and at temperature 0 the same conversation has the same end.

    Args:
        number: The number of the repair, from 1.
    """
    calls = answer.tool_calls
    demand = CALL_ANEW if calls else f"Answer with one JSON value, and nothing else.{_shown_form(held.form)}"
    sentence = f"That answer cannot be used.\n{misfit.for_model}\n{demand}"
    repeated = (answer.text or "")[:MAX_REPEATED]
    is_fresh = number % 2 == 0
    if request.kind is Kind.COMPLETE:
        more = demand if is_fresh else f"{repeated}\n\n{sentence}"
        return replace(request, prompt=f"{request.prompt}\n\n{more}\n\n")
    last = request.messages[-1]
    if is_fresh and last["role"] == "user":
        asked = {**last, "content": f"{last['content']}\n\n{demand}"}
        return replace(request, messages=[*request.messages[:-1], asked])
    said: dict[str, object] = {"role": "assistant", "content": repeated, **({"tool_calls": calls} if calls else {})}
    shown = [said] if repeated.strip() or calls else []
    return replace(request, messages=[*request.messages, *shown, {"role": "user", "content": sentence}])


def _text_answer(answer: ModelAnswer, settings: JobSettings) -> ModelAnswer | Fault:
    """Return an answer of which no form is required, or the fault of one that says nothing."""
    if settings.thoughts == "move":
        answer = without_thoughts(answer)
    if settings.empty == "keep" or not answer.is_empty:
        return answer
    remedy = Remedy.NEVER if settings.empty == "fail" else Remedy.HERE
    thinking = answer.thinking or None
    kept = KeptAnswer(text=answer.text or "", cost=answer.cost, thinking=thinking, repairs=answer.repairs)
    return Fault(FaultKind.EMPTY_ANSWER, EMPTY, remedy, kept=kept)


def _shown_form(schema: Schema | None) -> str:
    """Return a schema as it is shown to a model: a flat one as a record to fill in, which small models understand.

    The placeholders are not JSON, so that a copy of the form is never accepted as an answer.
    """
    if schema is None or isinstance(schema.document, str):
        return ""
    properties = schema.document.get("properties")
    parts = properties.items() if isinstance(properties, dict) else ()
    kinds = {key: part.get("type") if isinstance(part, dict) else None for key, part in parts}
    if kinds and all(kind in ("string", "integer", "number", "boolean") for kind in kinds.values()):
        form = ", ".join(f"{json.dumps(key, ensure_ascii=False)}: <{kind}>" for key, kind in kinds.items())
        alone = ", with no other keys" if schema.document.get("additionalProperties") is False else ""
        return f" Fill in this JSON{alone}: {{{form}}}"
    shown = json.dumps(schema.document)
    return f" It must satisfy this JSON schema: {shown}" if len(shown) <= MAX_SHOWN else ""


def _is_cut_in_thought(misfit: Misfit, answer: ModelAnswer) -> bool:
    has_thought = bool(misfit.thoughts or answer.thinking)
    return answer.done_reason == "length" and has_thought and not misfit.text.strip()


def _misfit(
    request: Request, settings: JobSettings, misfit: Misfit, answer: ModelAnswer, repairs: int, more: str = ""
) -> Fault:
    """Return the failure of a request whose last answer does not fit."""
    thoughts = "\n".join(filter(None, (answer.thinking, misfit.thoughts)))
    kept = KeptAnswer(
        text=misfit.text,
        cost=answer.cost,
        tool_calls=answer.tool_calls or None,
        thinking=thoughts or None,
        repairs=repairs,
    )
    limit, is_cut = num_predict_of(request, settings), answer.done_reason == "length"
    if is_cut and thoughts and not misfit.text.strip():
        return Fault(FaultKind.CUT_IN_THOUGHT, CUT_IN_THOUGHT.format(limit), Remedy.NEVER, kept=kept)
    tried = f", after {plural(repairs, 'repair')}" if repairs else ""
    if is_cut:
        cut = f"the answer was cut off, so its JSON is incomplete{tried}: raise num_predict (now {limit}), or num_ctx"
        return Fault(FaultKind.CUT_SHORT, cut + more, Remedy.NEVER, kept=kept)
    return Fault(FaultKind.INVALID_ANSWER, f"{misfit.reason}{tried}{more}", Remedy.NEVER, kept=kept)
