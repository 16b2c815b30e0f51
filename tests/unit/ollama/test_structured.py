"""Answers that are held to a schema: asked again with what is wrong, and one request for all others."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest

from obcd.core.answer.answer_rules import CALL_ANEW
from obcd.core.answer.outcomes import NOT_PARSED, KeptAnswer, ModelAnswer
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request
from obcd.ollama.structured import MAX_REPEATED, ask_fitting
from obcd.ollama.transport import AbortedError, Reply, Transport
from tests.golden.wording import wording

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
JOB = JobSettings(model="m", format=SCHEMA, num_predict=96)
GOOD, BAD = '{"age": 54}', '{"age": "Jane Roe"}'
SECOND = 1_000_000_000


class Scripted:
    """A transport that gives these answers in turn and keeps what it was asked."""

    def __init__(self, *answers: str | Reply | Exception, **more: Any) -> None:
        self._answers = list(answers)
        self._more = more
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def post(self, path: str, body: bytes) -> Reply:
        self.asked.append((path, json.loads(body)))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return reply(answer, path, **self._more) if isinstance(answer, str) else answer


def reply(text: str, path: str = "/api/chat", reason: str = "stop", thinking: str = "", **message: Any) -> Reply:
    thought = {"thinking": thinking} if thinking else {}
    said = {"message": {"role": "assistant", "content": text, **thought, **message}}
    counts = {"prompt_eval_count": 10, "eval_count": 5, "eval_duration": SECOND, "total_duration": 2 * SECOND}
    document = {"model": "m", "done": True, "done_reason": reason, **counts}
    return Reply(200, json.dumps(document | (said if path == "/api/chat" else {"response": text})).encode())


def ask(
    script: Scripted, settings: JobSettings = JOB, line: dict[str, Any] | None = None, *, has_time: bool = True
) -> ModelAnswer | Fault:
    request: Request = parse_line(json.dumps(line or {"prompt": "How old?"}).encode(), 1)
    return ask_fitting(cast("Transport", script), request, settings, lambda _: has_time)


def answered(script: Scripted, settings: JobSettings = JOB, line: dict[str, Any] | None = None) -> ModelAnswer:
    answer = ask(script, settings, line)
    assert isinstance(answer, ModelAnswer)
    return answer


def failed(
    script: Scripted, settings: JobSettings = JOB, line: dict[str, Any] | None = None, *, has_time: bool = True
) -> Fault:
    fault = ask(script, settings, line, has_time=has_time)
    assert isinstance(fault, Fault)
    return fault


def kept_of(fault: Fault) -> KeptAnswer:
    assert fault.kept is not None
    return fault.kept


def test_answer_that_fits_is_asked_once_and_stands_parsed() -> None:
    script = Scripted(f"Here:\n```json\n{GOOD}\n```")

    answer = answered(script)

    assert (answer.text, answer.parsed) == (GOOD, {"age": 54})
    assert answer.repairs == 0
    assert script.asked[0][1]["format"] == SCHEMA


def test_schema_may_stay_here_and_is_held_to_all_the_same() -> None:
    script = Scripted(BAD, GOOD)

    answer = answered(script, replace(JOB, send_schema=False))

    assert answer.parsed == {"age": 54}
    assert not any("format" in body for _, body in script.asked)


def test_repair_shows_the_model_its_answer_and_what_is_wrong_with_it() -> None:
    script = Scripted(BAD, GOOD)

    answer = answered(script)

    assert answer.repairs == 1
    user, assistant, told = script.asked[1][1]["messages"]
    assert user == {"role": "user", "content": "How old?"}
    assert assistant == {"role": "assistant", "content": BAD}
    assert wording("at-age-jane-roe-is-not") in told["content"]
    assert told["content"].endswith(wording("fill-in-this-json-age-integer"))


def test_keys_that_a_schema_forbids_are_spoken_of() -> None:
    script = Scripted(BAD, GOOD)

    assert isinstance(ask(script, replace(JOB, format={**SCHEMA, "additionalProperties": False})), ModelAnswer)

    told = script.asked[1][1]["messages"][-1]["content"]
    assert told.endswith(wording("fill-in-this-json-with-no"))


def test_second_repair_asks_anew_without_the_answer_that_a_small_model_would_copy() -> None:
    script = Scripted("no json", BAD, GOOD)

    assert isinstance(ask(script), ModelAnswer)
    (asked,) = script.asked[2][1]["messages"]
    assert asked["content"].startswith(wording("how-old-answer-with-one-json"))


def test_schema_that_is_no_flat_record_is_shown_as_it_is() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    script = Scripted("no json", "[1]")

    assert isinstance(ask(script, replace(JOB, format=schema)), ModelAnswer)
    assert json.dumps(schema) in script.asked[1][1]["messages"][2]["content"]


def test_number_in_quotes_is_told_as_mended() -> None:
    answer = answered(Scripted('{"age": "54"}'))

    assert (answer.parsed, answer.text, answer.is_mended) == ({"age": 54}, GOOD, True)


def test_tokens_and_seconds_of_repairs_are_part_of_the_answers() -> None:
    answer = answered(Scripted(BAD, BAD, GOOD))

    assert (answer.cost.prompt_tokens, answer.cost.eval_tokens) == (30, 15)
    assert (answer.cost.eval_seconds, answer.cost.wait_seconds) == (3.0, 3.0)


def test_answer_that_never_fits_is_a_failure_that_keeps_it_and_does_not_quote_it() -> None:
    script = Scripted(BAD, BAD, BAD)

    fault = failed(script)

    assert (fault.kind, fault.remedy) == ("invalid_answer", Remedy.NEVER)
    assert fault.message == wording("the-answer-does-not-fit-the-2")
    assert "Jane" not in repr(fault)
    kept = kept_of(fault)
    assert (kept.text, kept.repairs, kept.cost.prompt_tokens, kept.cost.eval_tokens) == (BAD, 2, 30, 15)
    assert len(script.asked) == 3


def test_no_repairs_where_none_are_wanted_or_there_is_no_time() -> None:
    for settings, has_time in ((replace(JOB, repairs=0), True), (JOB, False)):
        script = Scripted(BAD)
        fault = failed(script, settings, has_time=has_time)

        assert fault.message == wording("the-answer-does-not-fit-the-3")
        assert kept_of(fault).repairs == 0
        assert len(script.asked) == 1


def test_schema_of_a_line_wins_and_is_held_to() -> None:
    line = {"prompt": "Say.", "format": {"type": "array"}}

    assert isinstance(ask(Scripted(GOOD, GOOD, GOOD), line=line), Fault)
    answer = answered(Scripted("[1]"), line=line)
    assert answer.parsed == [1]


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "How old?", "format": ""},
        {"complete": "She is ", "format": ""},
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": "How old?"}],
                "response_format": {"type": "text"},
            },
        },
    ],
)
def test_line_that_wants_any_text_gets_it_where_the_job_has_a_schema(line: dict[str, Any]) -> None:
    script = Scripted("54, I think")

    answer = answered(script, line=line)

    assert answer.text == "54, I think"
    assert answer.parsed is NOT_PARSED
    assert "format" not in script.asked[0][1]


def test_null_says_nothing_of_the_format() -> None:
    script = Scripted(GOOD)

    answer = answered(script, line={"prompt": "How old?", "format": None})

    assert answer.parsed == {"age": 54}


def test_what_is_asked_for_no_json_is_left_as_it_is() -> None:
    text = f" So: ```{GOOD}``` <think>hm</think>"

    answer = answered(Scripted(text), replace(JOB, format=None))

    assert (answer.text, answer.thinking) == (text, None)
    assert answer.parsed is NOT_PARSED


@pytest.mark.parametrize(
    ("said", "text", "thinking"),
    [
        ("<think>hm</think>Hello", "Hello", "hm"),
        ("<think>\nhm\n</think>\n\n  def f(): pass", "  def f(): pass", "hm"),
        ("<reasoning></reasoning> Hello <think>so</think>", "Hello <think>so</think>", None),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello", "Hello", "hm"),
        ("<think>hm, and no end", "<think>hm, and no end", None),
        ("hm</think>Hello", "hm</think>Hello", None),
    ],
)
def test_r06_thoughts_at_the_beginning_of_a_text_are_moved(said: str, text: str, thinking: str | None) -> None:
    free = replace(JOB, format=None)

    answer, kept = answered(Scripted(said), free), answered(Scripted(said), replace(free, thoughts="keep"))

    assert (answer.text, answer.thinking, answer.raw) == (text, thinking, None)
    assert (kept.text, kept.thinking) == (said, None)


def test_native_thoughts_come_before_those_of_the_text() -> None:
    answer = answered(Scripted("<think>inline</think>Hello", thinking="native"), replace(JOB, format=None))

    assert (answer.text, answer.thinking) == ("Hello", "native\ninline")


@pytest.mark.parametrize("said", ["", "\n \n", "<think>hm</think>", "<think>hm"])
def test_r07_empty_answer_is_kept_tried_again_or_a_failure(said: str) -> None:
    free = replace(JOB, format=None)

    assert answered(Scripted(said), free).is_empty
    for empty, remedy in (("retry", Remedy.HERE), ("fail", Remedy.NEVER)):
        fault = failed(Scripted(said), replace(free, empty=empty))
        assert (fault.kind, fault.message) == ("empty_answer", wording("the-answer-is-empty"))
        assert (fault.remedy, fault.costs_attempt, kept_of(fault).cost.eval_tokens) == (remedy, True, 5)


def test_answer_that_calls_a_tool_is_not_empty() -> None:
    line = {"prompt": "Find it", "tools": [{"function": {"name": "find"}}]}
    script = Scripted("", tool_calls=[{"function": {"name": "find", "arguments": {}}}])

    assert answered(script, replace(JOB, format=None, empty="fail"), line).tool_calls


def test_r02_several_values_that_fit_are_repaired_and_then_kept_whole() -> None:
    said = '{"age": 54} {"age": 55}'

    assert answered(Scripted(said, GOOD)).repairs == 1
    fault = failed(Scripted(said, said, said))

    assert fault.kind == "invalid_answer"
    assert fault.message.startswith(wording("several-values-fit"))
    assert (kept_of(fault).text, kept_of(fault).repairs) == (said, 2)


@pytest.mark.parametrize("said", ['See {1}. {"age": 54}', "```\n" + GOOD + "\n```", "{'age': 54,}", '{"age": "54"}'])
def test_text_that_was_cut_or_corrected_is_kept_whole(said: str) -> None:
    answer = answered(Scripted(said))

    assert (answer.parsed, answer.text, answer.raw, answer.repairs) == ({"age": 54}, GOOD, said, 0)


def test_r05_thoughts_are_kept_and_nothing_is_cut() -> None:
    answer = answered(Scripted(f'<reasoning>{{"age": 1}}</reasoning>{GOOD}'))

    assert (answer.parsed, answer.thinking, answer.raw) == ({"age": 54}, '{"age": 1}', None)


@pytest.mark.parametrize(
    "said", ["{'age': 54}", '{"age": 54,}', '{"age": 54, "note": "two\nlines"}', '{"age": 54 // years\n}']
)
def test_r10_what_is_nearly_json_is_not_asked_again(said: str) -> None:
    script = Scripted(said)

    answer = answered(script)

    assert (answer.is_mended, answer.repairs, len(script.asked)) == (True, 0, 1)
    assert answer.parsed == json.loads(answer.text or "")


def test_thoughts_are_kept_apart_wherever_they_stand() -> None:
    answer = answered(Scripted(f"<think>inline</think>{GOOD}", thinking="native"))

    assert (answer.text, answer.thinking) == (GOOD, "native\ninline")


@pytest.mark.parametrize(("text", "thinking"), [("", "so"), ("<think>so", "")])
def test_answer_cut_off_in_thought_says_so_and_is_not_asked_again(text: str, thinking: str) -> None:
    script = Scripted(text, reason="length", thinking=thinking)

    fault = failed(script)

    assert (fault.kind, fault.remedy, kept_of(fault).thinking) == ("cut_in_thought", Remedy.NEVER, "so")
    assert wording("still-thought-before-its-first-word") in fault.message
    assert len(script.asked) == 1


def test_record_that_is_whole_before_the_cut_is_an_answer() -> None:
    answer = answered(Scripted(f"{GOOD}\n\n\nThe note says", reason="length"))

    assert (answer.parsed, answer.text) == ({"age": 54}, GOOD)


def test_record_that_is_cut_short_is_a_failure_that_keeps_it() -> None:
    fault = failed(Scripted('{"age": 5', '{"age": 5', '{"age": 5', reason="length"))

    assert (fault.kind, kept_of(fault).text) == ("cut_short", '{"age": 5')
    assert fault.message == (wording("the-answer-was-cut-off-so"))


def test_call_of_a_tool_is_no_misfit() -> None:
    called = reply("", tool_calls=[{"function": {"name": "weather", "arguments": {}}}])

    answer = answered(Scripted(called), line={"prompt": "How old?", "tools": TOOLS[1:]})

    assert answer.tool_calls


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ({"prompt": "How old?"}, [{"function": {"name": "search", "arguments": {}}}]),
        ({"prompt": "How old?", "tools": []}, [{"function": {"name": "search", "arguments": {}}}]),
        ({"prompt": "How old?", "tools": [{"function": {"name": "search"}}]}, [1]),
        ({"prompt": "How old?", "tools": [{"function": {"name": "search"}}]}, [{"function": {"arguments": {}}}]),
    ],
)
def test_what_is_no_call_of_a_tool_keeps_no_answer_from_its_schema(line: dict[str, Any], given: list[Any]) -> None:
    script = Scripted(reply("nope", tool_calls=given), GOOD)

    answer = answered(script, line=line)

    assert (answer.parsed, answer.repairs) == ({"age": 54}, 1)


#: A tool whose calls have to fit, and one whose calls need not.
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "required": ["text"]}}},
]
ASKED: dict[str, Any] = {"prompt": "Weather?", "tools": TOOLS}
FREE = JobSettings(model="m", num_predict=96)


def calls(*asked: tuple[str, Any]) -> Reply:
    return reply("", tool_calls=[{"function": {"name": name, "arguments": given}} for name, given in asked])


def named(answer: ModelAnswer) -> list[Any]:
    found: list[Any] = answer.tool_calls or []
    return [(call["function"]["name"], call["function"]["arguments"]) for call in found]


@pytest.mark.parametrize("settings", [FREE, JOB])
def test_calls_that_fit_are_asked_once(settings: JobSettings) -> None:
    answer = answered(Scripted(calls(("weather", {"city": "Riga"}), ("search", {"any": 1}))), settings, ASKED)

    assert named(answer) == [("weather", {"city": "Riga"}), ("search", {"any": 1})]
    assert answer.repairs == 0
    assert not answer.is_mended


def test_call_of_a_strict_tool_that_does_not_fit_is_repaired() -> None:
    wrong = calls(("search", {}), ("weather", {"town": "Riga"}))
    script = Scripted(wrong, wrong, calls(("weather", {"city": "Riga", "days": "3"})))

    answer = answered(script, FREE, ASKED)

    assert named(answer) == [("weather", {"city": "Riga", "days": 3})]
    assert (answer.repairs, answer.is_mended, answer.cost.eval_tokens) == (2, True, 15)
    said, told = script.asked[1][1]["messages"][-2:]
    assert said == {"role": "assistant", "content": "", "tool_calls": json.loads(wrong.body)["message"]["tool_calls"]}
    assert told == {
        "role": "user",
        "content": wording("that-answer-cannot-be-used-in"),
    }
    fresh = script.asked[2][1]["messages"]
    assert fresh == [{"role": "user", "content": f"Weather?\n\n{CALL_ANEW}"}]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("weather", {}), wording("in-its-call-of-weather-the")),
        (("weather", {"city": 5}), wording("in-its-call-of-weather-the-2")),
        (("weather", []), wording("in-its-call-of-weather-the-3")),
        (("forecast", {"city": "Riga"}), wording("it-calls-a-tool-that-was")),
        ((None, {}), wording("it-calls-a-tool-that-was")),
    ],
)
def test_call_that_never_fits_is_a_failure_that_keeps_it(given: tuple[Any, Any], reason: str) -> None:
    script = Scripted(*[calls(given)] * 3)

    fault = failed(script, FREE, ASKED)

    assert (fault.kind, fault.message) == ("invalid_answer", f"{reason}, after 2 repairs")
    assert kept_of(fault).tool_calls == [{"function": {"name": given[0], "arguments": given[1]}}]
    assert (kept_of(fault).repairs, kept_of(fault).cost.eval_tokens) == (2, 15)


def test_unknown_tool_is_told_with_those_that_there_are() -> None:
    script = Scripted(calls(("forecast", {})), calls(("weather", {"city": "Riga"})))

    assert isinstance(ask(script, FREE, ASKED), ModelAnswer)
    told = script.asked[1][1]["messages"][-1]["content"]
    assert wording("there-is-no-such-tool-those") in told


def test_model_that_answers_instead_of_calling_is_held_to_the_schema_of_the_job_alone() -> None:
    wrong = calls(("weather", {}))

    free = ask(Scripted(wrong, "Which city?"), FREE, ASKED)
    held = ask(Scripted(wrong, BAD, GOOD), JOB, ASKED)

    assert isinstance(free, ModelAnswer)
    assert (free.text, free.repairs) == ("Which city?", 1)
    assert isinstance(held, ModelAnswer)
    assert (held.parsed, held.repairs) == ({"age": 54}, 2)


def test_calls_are_left_as_they_are_where_no_tool_is_strict() -> None:
    given = calls(("nobody", {"x": 1}))

    answer = answered(Scripted(given), JOB, {"prompt": "Weather?", "tools": TOOLS[1:]})

    assert named(answer) == [("nobody", {"x": 1})]


def test_long_answer_is_not_repeated_whole() -> None:
    script = Scripted("word " * 10_000, GOOD)

    assert isinstance(ask(script), ModelAnswer)
    assert len(script.asked[1][1]["messages"][1]["content"]) == MAX_REPEATED


def test_completion_is_repaired_in_its_prompt() -> None:
    script = Scripted(BAD, GOOD)

    answered(script, line={"complete": "The record: "})

    path, body = script.asked[1]
    assert path == "/api/generate"
    assert body["prompt"].startswith(wording("the-record-that-answer-cannot-be", BAD))


TOO_LONG = Reply(400, b'{"error": "request (900 tokens) exceed_context_size_error (64 tokens)"}')
CASES: dict[str, tuple[Any, str]] = {
    "cancelled": (AbortedError("cancelled"), "cancelled"),
    "over time": (AbortedError("timed out"), "timeout"),
    "crash": (Reply(500, b'{"error": "unexpected EOF"}'), "crashed"),
}


@pytest.mark.parametrize("name", CASES)
def test_fault_of_the_endpoint_during_a_repair_is_the_requests(name: str) -> None:
    answer, kind = CASES[name]

    fault = failed(Scripted(BAD, answer))

    assert fault.kind == kind


def test_repair_that_cannot_be_asked_leaves_the_failure_with_its_answer() -> None:
    fault = failed(Scripted(BAD, TOO_LONG))

    assert (fault.kind, kept_of(fault).text) == ("invalid_answer", BAD)
    assert wording("asked-again-the-prompt-does-not") in fault.message


def test_repair_that_needs_a_larger_context_is_asked_there() -> None:
    fault = failed(Scripted(BAD, TOO_LONG), replace(JOB, num_ctx=64, num_ctx_max=4096))

    assert (fault.kind, fault.needs) == ("too_long", 900 + 96)


def test_time_is_asked_for_before_each_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 2.0, 5.0])
    monkeypatch.setattr("obcd.ollama.client.monotonic", lambda: next(times))
    took: list[float] = []

    def has_time(seconds: float) -> bool:
        took.append(seconds)
        return len(took) < 2

    request = parse_line(b'{"prompt": "How old?"}', 1)

    ask_fitting(cast("Transport", Scripted(BAD, BAD)), request, JOB, has_time)

    assert took == [2.0, 3.0]


def test_answer_on_which_the_schema_takes_too_long_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obcd.ollama.validation_process.SECONDS", 0.05)
    long = json.dumps("ab" * 5000)

    fault = failed(Scripted(long), replace(JOB, format={"pattern": r"(?:(?=.*x).)+y"}))

    assert (fault.kind, kept_of(fault).text) == ("invalid_answer", long)
    assert fault.message == (wording("the-schema-takes-longer-than-0"))
