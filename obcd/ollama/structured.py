"""Asking until the answer fits: one that does not satisfy what it is held to is shown to the model with what is wrong.

    ask ──► fits ─────────────────────────────► Answer
     ▲ └──► does not fit, repairs are left ──┐
     └── the prompt, that answer, its fault ◄┘  … none are left ──► Fault `invalid_answer`, which keeps the answer

One request for whoever leased it: its tokens and seconds are those of all that was asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from obcd.core.answer.answer_rules import CALL_ANEW, AnswerRules, held_of
from obcd.core.answer.outcomes import Cost, KeptAnswer, ModelAnswer
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.records import JobSettings, Kind, Request, num_predict_of
from obcd.core.schema.schemas import Misfit, Schema
from obcd.ollama.client import CUT_IN_THOUGHT, ask
from obcd.ollama.transport import Transport
from obcd.ollama.validation_process import judge_apart
from obcd.text import plural

#: Longest schema that is shown in a conversation, in characters of its JSON.
MAX_SHOWN = 4000
#: Longest answer that is shown to the model again, in characters: what repeats itself up to the token limit teaches
#: nothing more.
MAX_REPEATED = 4000


def ask_fitting(
    transport: Transport, request: Request, settings: JobSettings, has_time: Callable[[float], bool]
) -> ModelAnswer | Fault:
    """Ask one request, and again at most `settings.repairs` times while its answer does not fit.

    Args:
        has_time: Called before each repair with the seconds that the answer before it took: whether another one like
            it is within the limit of the whole request; it may then move the limit of what is asked next.
    """
    held = held_of(request, settings)
    answer = ask(transport, request, settings)
    if isinstance(answer, Fault) or held is None:
        return answer
    total, repairs = answer, 0
    while True:
        judged = held.judge(total, judge_apart)
        if not isinstance(judged, Misfit):
            return judged._replace(repairs=repairs)
        is_lost = judged.is_final or _is_cut_in_thought(judged, answer)
        if repairs == settings.repairs or is_lost or not has_time(answer.cost.seconds):
            return _misfit(request, settings, judged, total, repairs)
        repair = ask(transport, repair_of(request, answer, judged, held, repairs + 1), settings)
        if isinstance(repair, Fault):
            if repair.remedy is Remedy.NEVER and not repair.needs:  # such as a context that holds no second answer
                return _misfit(request, settings, judged, total, repairs, f"; asked again: {repair.message}")
            return repair  # the endpoint's fault: the whole request is asked elsewhere
        answer, repairs = repair, repairs + 1
        total = repair._replace(cost=Cost.total((total.cost, repair.cost)))


def repair_of(request: Request, answer: ModelAnswer, misfit: Misfit, held: AnswerRules, number: int = 1) -> Request:
    """Return the request that shows a model its answer and what is wrong with it.

    Every second one leaves the answer out and asks anew, with the form that is wanted: a small model copies what it
    said before, and at temperature 0 the same conversation has the same end.

    Args:
        number: Of the repair, from 1.
    """
    calls = answer.tool_calls
    anew = CALL_ANEW if calls else f"Answer with one JSON value, and nothing else.{_shown_form(held.form)}"
    sentence = f"That answer cannot be used.\n{misfit.told}\n{anew}"
    repeated = (answer.text or "")[:MAX_REPEATED]
    is_fresh = number % 2 == 0
    if request.kind is Kind.COMPLETE:
        more = anew if is_fresh else f"{repeated}\n\n{sentence}"
        return replace(request, prompt=f"{request.prompt}\n\n{more}\n\n")
    last = request.messages[-1]
    if is_fresh and last["role"] == "user":
        asked = {**last, "content": f"{last['content']}\n\n{anew}"}
        return replace(request, messages=[*request.messages[:-1], asked])
    said: dict[str, object] = {"role": "assistant", "content": repeated, **({"tool_calls": calls} if calls else {})}
    shown = [said] if repeated.strip() or calls else []
    return replace(request, messages=[*request.messages, *shown, {"role": "user", "content": sentence}])


def _shown_form(schema: Schema | None) -> str:
    """Return how a schema is shown to a model: as a record to fill in where it is flat, which small models grasp.

    What stands in the places is no JSON, so that a copy of it never passes for an answer.
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
        return Fault("cut_in_thought", CUT_IN_THOUGHT.format(limit), Remedy.NEVER, kept=kept)
    tried = f", after {plural(repairs, 'repair')}" if repairs else ""
    if is_cut:
        cut = f"the answer was cut off, so its JSON is incomplete{tried}: raise num_predict (now {limit}), or num_ctx"
        return Fault("cut_short", cut + more, Remedy.NEVER, kept=kept)
    return Fault("invalid_answer", f"{misfit.reason}{tried}{more}", Remedy.NEVER, kept=kept)
