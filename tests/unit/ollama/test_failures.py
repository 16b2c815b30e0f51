"""What every reply means: for the request, for its attempts, and for the endpoint (ollama v0.33)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import Kind, Request
from obcd.ollama.failures import EMBED_RULES, RULES, SENTENCES, error_text, judge, judge_loaded
from obcd.ollama.transport import Reply
from tests.golden.wording import wording

HERE, ELSEWHERE, NEVER = Remedy.HERE, Remedy.ELSEWHERE, Remedy.NEVER
NONE, STRIKE, DOWN = Harm.NONE, Harm.STRIKE, Harm.DOWN
COSTS, FREE = True, False

CHAT = Request(line=1, id=1, prompt="Why?", messages=[{"role": "user", "content": "Why?"}])
#: llama-server's reasons for a schema, of which only Ollama's own words are passed on: {text: what is passed on}
REASONS = {
    "JSON schema conversion failed:\nPattern must start with '^' and end with '$'\nUnrecognized schema: \"Jane\"":
        "JSON schema conversion failed: Pattern must start with '^' and end with '$'",
    'JSON schema conversion failed:\nUnrecognized schema: {"const":"Jane Doe"}':
        "JSON schema conversion failed: Unrecognized schema",
    "JSON schema conversion failed:\nError resolving ref #/$defs/Jane: Jane not in {}":
        "JSON schema conversion failed: Error resolving ref",
    "Failed to initialize samplers: failed to parse grammar": "failed to parse grammar",
}  # fmt: skip

SECRET = "The patient Jane Doe, MRN 123456, was seen on 3 May."


def native(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def inner(message: str, kind: str = "server_error", code: int = 500) -> bytes:
    """Return an error of llama-server as Ollama passes it on: its JSON as a string."""
    return native(json.dumps({"error": {"code": code, "message": message, "type": kind}}))


def judged(status: int, body: bytes, retry_after: float = 0.0) -> Fault:
    fault = judge(Reply(status, body, retry_after), CHAT)
    assert isinstance(fault, Fault)
    return fault


CONTEXT = "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it"

#: (status, body, kind, remedy, costs an attempt, harm), row by row as Ollama's sources have them
ROWS: list[tuple[int, bytes, str, Remedy, bool, Harm]] = [
    (400, native("missing request body"), "bad_request", NEVER, COSTS, NONE),
    (400, native("invalid character 'x' looking for beginning of value"), "bad_request", NEVER, COSTS, NONE),
    (400, native("json: cannot unmarshal string into Go struct field"), "bad_request", NEVER, COSTS, NONE),
    (400, native("unexpected EOF"), "bad_request", NEVER, COSTS, NONE),
    (400, native("model is required"), "bad_request", NEVER, COSTS, NONE),
    (400, native("invalid model name"), "bad_request", NEVER, COSTS, NONE),
    (400, native("use either :local or :cloud, not both"), "bad_request", NEVER, COSTS, NONE),
    (400, native('invalid think value: "x"'), "bad_request", NEVER, COSTS, NONE),
    (400, native("top_logprobs must be between 0 and 20"), "bad_request", NEVER, COSTS, NONE),
    (400, native('time: missing unit in duration "300"'), "bad_request", NEVER, COSTS, NONE),
    (400, native('"m" does not support chat'), "unsupported", NEVER, COSTS, NONE),
    (400, native('"m" does not support thinking'), "unsupported", NEVER, COSTS, NONE),
    (400, native("registry.ollama.ai/library/m:latest does not support tools"), "unsupported", NEVER, COSTS, NONE),
    (400, native("image generation models are not currently supported"), "bad_request", NEVER, COSTS, NONE),
    (
        400,
        native("the prompt is longer than the context length currently available to the model; …"),
        "too_long",
        NEVER,
        COSTS,
        NONE,
    ),
    (400, inner(CONTEXT, "exceed_context_size_error", 400), "too_long", NEVER, COSTS, NONE),
    (400, inner("JSON schema conversion failed: …", "invalid_request_error", 400), "bad_schema", NEVER, COSTS, NONE),
    (403, b"", "forbidden", ELSEWHERE, FREE, DOWN),
    (403, native("ollama cloud is disabled: …"), "bad_request", NEVER, COSTS, NONE),
    (401, b"", "forbidden", ELSEWHERE, FREE, DOWN),
    (407, b"<html>", "forbidden", ELSEWHERE, FREE, DOWN),
    (404, native("model 'x' not found"), "model_missing", ELSEWHERE, COSTS, NONE),
    (404, native('model "x" not found, try pulling it first'), "model_missing", ELSEWHERE, COSTS, NONE),
    (404, b"404 page not found", "server_error", ELSEWHERE, COSTS, STRIKE),
    (404, b"<html><h1>404 Not Found</h1>nginx</html>", "server_error", ELSEWHERE, COSTS, STRIKE),
    (405, b"405 method not allowed", "server_error", ELSEWHERE, COSTS, STRIKE),
    (429, b"", "busy", HERE, COSTS, NONE),
    (499, native("request canceled"), "busy", HERE, FREE, NONE),
    (500, native('option "num_ctx" must be of type integer'), "bad_request", NEVER, COSTS, NONE),
    (500, native("invalid format: …"), "bad_request", NEVER, COSTS, NONE),
    (500, native("template: :1:20: executing …"), "bad_request", NEVER, COSTS, NONE),
    (500, inner("image input is not supported - hint: you may need mmproj"), "unsupported", NEVER, COSTS, NONE),
    (500, native("llama-server returned invalid tool call arguments for f"), "bad_sample", HERE, COSTS, NONE),
    (500, native("harmony parser: unexpected token"), "bad_sample", HERE, COSTS, NONE),
    (500, native("llama-server process has terminated: exit status 2"), "load_failed", ELSEWHERE, COSTS, STRIKE),
    (500, native("llama runner process has terminated: signal: killed"), "load_failed", ELSEWHERE, COSTS, STRIKE),
    (500, native("error starting llama-server: …"), "load_failed", ELSEWHERE, COSTS, STRIKE),
    (500, native("timed out waiting for llama-server to start - 5m"), "load_failed", ELSEWHERE, COSTS, STRIKE),
    (500, native("llama-server reported out-of-memory during startup"), "out_of_memory", ELSEWHERE, COSTS, STRIKE),
    (500, native("CUDA error: out of memory"), "out_of_memory", ELSEWHERE, COSTS, STRIKE),
    (
        500,
        native("model requires more system memory (9 GiB) than is available (4 GiB)"),
        "out_of_memory",
        ELSEWHERE,
        COSTS,
        STRIKE,
    ),
    (
        500,
        native("this model may be incompatible with your version of Ollama. …"),
        "incompatible",
        ELSEWHERE,
        COSTS,
        NONE,
    ),
    (
        500,
        native("model runner has unexpectedly stopped, this may be due to resource limitations"),
        "crashed",
        ELSEWHERE,
        COSTS,
        STRIKE,
    ),
    (
        500,
        native("an error was encountered while running the model: unexpected EOF"),
        "crashed",
        ELSEWHERE,
        COSTS,
        STRIKE,
    ),
    (500, native("CUDA error: an illegal memory access"), "crashed", ELSEWHERE, COSTS, STRIKE),
    (500, native("health resp: connection refused"), "server_error", ELSEWHERE, COSTS, STRIKE),
    (500, native("server not responding"), "server_error", ELSEWHERE, COSTS, STRIKE),
    (500, native("prediction aborted, token repeat limit reached"), "repetition", NEVER, COSTS, NONE),
    (500, b"", "server_error", ELSEWHERE, COSTS, STRIKE),
    (502, b"<html>Bad Gateway</html>", "server_error", ELSEWHERE, COSTS, STRIKE),
    (504, b"", "server_error", ELSEWHERE, COSTS, STRIKE),
    (
        503,
        native("server busy, please try again.  maximum pending requests exceeded"),
        "busy",
        HERE,
        FREE,
        NONE,
    ),
    (307, b"", "redirect", ELSEWHERE, COSTS, STRIKE),
    (301, b"<html>", "redirect", ELSEWHERE, COSTS, STRIKE),
    (204, b"", "invalid_reply", ELSEWHERE, COSTS, STRIKE),
]


@pytest.mark.parametrize(
    ("status", "body", "kind", "remedy", "costs", "harm"),
    ROWS,
    ids=[f"{status} {error_text(body)[:40]}" for status, body, *_ in ROWS],
)
def test_error_reply_has_its_meaning(
    status: int, body: bytes, kind: str, remedy: Remedy, costs: bool, harm: Harm
) -> None:
    fault = judged(status, body)

    assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == (kind, remedy, costs, harm)
    assert fault.message.isprintable()
    assert 10 < len(fault.message) < 300


def test_text_that_no_rule_knows_is_kept_and_in_no_message() -> None:
    fault = judged(500, native(f"nobody knows this: {SECRET}"))

    assert (fault.kind, fault.reply) == ("server_error", f"nobody knows this: {SECRET}")
    assert "nobody" not in fault.message
    assert SECRET not in repr(fault)
    assert judged(400, native(SECRET)).reply == ""


#: What Ollama and llama-server say of a schema, by version: (status, body).
SCHEMA_REFUSALS = [
    (500, native("invalid JSON schema in format")),  # up to v0.24
    (500, native("Failed to create new sequence: unable to create sampling context")),
    (400, inner("Failed to initialize samplers: failed to parse grammar", "invalid_request_error", 400)),
    (400, inner("JSON schema conversion failed: Unrecognized schema: {}", "invalid_request_error", 400)),
    (500, inner("failed to convert JSON schema to grammar")),
]


@pytest.mark.parametrize(("status", "body"), SCHEMA_REFUSALS)
def test_r20_schema_that_the_server_refuses_is_the_fault_of_its_line_alone(status: int, body: bytes) -> None:
    fault = judged(status, body)

    assert (fault.kind, fault.remedy, fault.harm) == ("bad_schema", NEVER, NONE)
    assert "send_schema = false" in fault.message


def test_r21_schema_refused_under_200_is_the_same() -> None:
    fault = judged(200, native("failed to load model vocabulary required for format"))

    assert (fault.kind, fault.remedy, fault.harm) == ("bad_schema", NEVER, NONE)
    assert "send_schema = false" in fault.message


@pytest.mark.parametrize("request_", ["chat", "embed"])
@pytest.mark.parametrize("status", [400, 500])
def test_r23_input_above_the_maximum_context_is_too_long(request_: str, status: int) -> None:
    reply = Reply(status, native("input length exceeds maximum context length"))

    fault = judge(reply, EMBED if request_ == "embed" else CHAT)

    assert isinstance(fault, Fault)
    assert (fault.kind, fault.remedy, fault.harm) == ("too_long", NEVER, NONE)


@pytest.mark.parametrize(
    "text",
    [
        "llama-server process no longer running: unknown ",
        "llama-server process no longer running: exit status 2 CUDA error",
        "llama runner process no longer running: -1 ",  # up to v0.24
    ],
)
@pytest.mark.parametrize(("status", "is_embed"), [(500, False), (500, True), (400, True)])
def test_r27_request_that_waited_when_the_process_ended_belongs_to_the_crash(
    text: str, status: int, is_embed: bool
) -> None:
    fault = judge(Reply(status, native(text)), EMBED if is_embed else CHAT)

    assert isinstance(fault, Fault)
    assert (fault.kind, fault.remedy, fault.harm) == ("crashed", ELSEWHERE, NONE)
    assert (fault.costs_attempt, fault.reached_model) == (False, False)


def chat(**changes: Any) -> bytes:
    reply: dict[str, Any] = {
        "model": "m",
        "message": {"role": "assistant", "content": "Blue."},
        "done": True,
        "done_reason": "stop",
    }
    reply.update(changes)
    return json.dumps({key: value for key, value in reply.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (chat(done=False, done_reason=...), "aborted"),
        (chat(done=..., done_reason=...), "aborted"),
        (chat(done=False), "aborted"),
        (chat(done="yes"), "aborted"),
        (chat(done_reason="load"), "aborted"),
        (chat(done_reason="unload"), "aborted"),
        (chat(done_reason=...), "aborted"),
        (chat(done_reason=["stop"]), "aborted"),
        (chat(message=...), "invalid_reply"),
        (chat(message="Blue."), "invalid_reply"),
        (chat(message={"content": None}), "invalid_reply"),
        (chat(message={"content": 5}), "invalid_reply"),
        (b"", "invalid_reply"),
        (b"<html>It works!</html>", "invalid_reply"),
        (b"[]", "invalid_reply"),
        (chat()[:-5], "invalid_reply"),
        (chat() + chat(), "invalid_reply"),
        (b"\x1f\x8b\x08", "invalid_reply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_reply"),
        (b"[" * 100_000, "invalid_reply"),
    ],
)
def test_200_that_is_no_answer_is_tried_elsewhere_and_counts_against_the_endpoint(body: bytes, kind: str) -> None:
    fault = judged(200, body)

    assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == (kind, ELSEWHERE, COSTS, STRIKE)


@pytest.mark.parametrize("part", ["content", "thinking"])
def test_r25_answer_that_ends_in_one_word_again_and_again_is_a_repetition(part: str) -> None:
    text = "I do not know." + " no" * 40
    message = {"role": "assistant", "content": "", part: text}

    fault = judged(200, chat(message=message, done=False, done_reason=...))

    assert (fault.kind, fault.remedy, fault.harm) == ("repetition", NEVER, NONE)
    assert fault.kept is not None
    assert text in (fault.kept.text, fault.kept.thinking)


def test_error_under_200_is_judged_by_its_text() -> None:
    assert judged(200, native(wording("prediction-aborted-token-repeat-limit-reached"))).kind == "repetition"
    assert judged(200, inner(wording("image-input-is-not-supported"))).kind == "unsupported"
    assert judged(200, b'{"error": null}').kind == "server_error"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"done_reason": "length"},
        {"message": {"role": "assistant", "content": ""}},
        {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done_reason": "length"},
        {"message": {"role": "assistant", "tool_calls": []}},
        {"message": {"role": "assistant", "content": "\ud800\x00"}},
    ],
)
def test_true_answer_is_given_back_as_it_came(changes: dict[str, Any]) -> None:
    body = chat(**changes)

    assert judge(Reply(200, body), CHAT) == json.loads(body)


def test_overflow_says_how_many_tokens_there_were_and_how_many_fit() -> None:
    message = judged(400, inner(CONTEXT, "exceed_context_size_error", 400)).message

    assert message == (wording("the-prompt-does-not-fit-into"))


def test_time_that_the_server_asks_for_is_kept() -> None:
    assert judged(503, b"", retry_after=12.0).retry_after == 12.0


class TestWords:
    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (native("plain"), "plain"),
            (inner("deep", "kind"), "kind: deep"),
            (b'{"error": {"type": "kind", "message": "deep"}}', "kind: deep"),
            (native(json.dumps({"error": json.dumps({"error": "deepest"})})), "deepest"),
            (b"no json", "no json"),
            (b"", ""),
            (b'"a string"', '"a string"'),
            (b'{"message": "other"}', "other"),
            (b'{"error": 5}', "5"),
            (b"\xff\xfe", "\ufffd\ufffd"),
            (b"[" * 100_000, "[" * 500),
        ],
    )
    def test_error_text_is_unwrapped(self, body: bytes, text: str) -> None:
        assert error_text(body) == text

    @pytest.mark.parametrize(
        "text",
        [
            f"Failed to parse messages; messages = [{{'content': '{SECRET}'}}]",
            f"invalid: {SECRET[4:30]}",
            SECRET,
            SECRET[:20],
        ],
    )
    @pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 503, 507])
    def test_message_never_repeats_the_prompt(self, status: int, text: str) -> None:
        message = judged(status, native(text)).message

        assert not any(SECRET[start : start + 16] in message for start in range(len(SECRET) - 15))

    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 503])
    @pytest.mark.parametrize(
        "text",
        [
            "cannot: Name: John Smith DOB: 1970-01-02 HIV+ k2",
            "cannot read 'John Smith'",
            wording("json-schema-conversion-failed-john-smith"),
            wording("john-smith-does-not-support-tools"),
            wording("option-john-smith-must-be-of"),
            wording("option-num-ctx-must-be-of"),
            wording("invalid-character-j-looking-for-beginning"),
            wording("invalid-think-value-john"),
            wording("llama-server-process-has-terminated-exit"),
            "template: John:1:2: John",
            "a\x1b[2J\n\tJohn\u202e",
        ],
    )
    def test_words_beside_a_known_phrase_are_left_out(self, status: int, text: str) -> None:
        message = judged(status, native(text)).message

        assert not any(word in message for word in ("John", "Smith", "DOB", "1970", "HIV", "\x1b", "'J'"))

    @pytest.mark.parametrize(
        ("status", "text", "kept"),
        [
            (400, wording("invalid-think-value-x"), wording("invalid-think-value")),
            (400, wording("m-does-not-support-tools"), wording("does-not-support-tools")),
            (400, wording("json-schema-conversion-failed-at-x"), wording("json-schema-conversion-failed")),
            (500, wording("option-num-ctx-must-be-of-2"), wording("option-num-ctx-must-be-of-2")),
            (500, wording("cuda-error-out-of-memory"), wording("cuda-error-out-of-memory")),
            (
                500,
                wording("llama-server-process-has-terminated-exit-2"),
                wording("llama-server-process-has-terminated-exit-3"),
            ),
            (500, wording("llama-runner-process-has-terminated-signal"), "terminated: signal: killed"),
            (500, wording("model-requires-more-system-memory-9"), wording("requires-more-system-memory-9-5")),
        ],
    )
    def test_words_that_help_are_kept(self, status: int, text: str, kept: str) -> None:
        assert judged(status, native(text)).message.endswith(f"{kept})")


def test_every_rule_has_its_sentence_and_the_last_takes_what_is_left() -> None:
    assert {rule.kind for rule in (*RULES, *EMBED_RULES)} == set(SENTENCES)
    assert (RULES[-1].status, RULES[-1].pattern.pattern) == (None, "")


EMBED = Request(line=1, id=1, prompt="one", messages=[], kind=Kind.EMBED, inputs=("one", "two"))
COMPLETE = Request(line=1, id=1, prompt="one", messages=[], kind=Kind.COMPLETE)


@pytest.mark.parametrize(
    ("request_", "text", "advice"),
    [
        (CHAT, '"nomic-embed-text" does not support chat', wording("an-embedding-model-makes-vectors-only")),
        (COMPLETE, '"nomic-embed-text" does not support generate', wording("an-embedding-model-makes-vectors-only")),
        (EMBED, '"llama3.2" does not support embeddings', wording("write-prompt-in-place-of-embed")),
    ],
)
def test_model_of_another_kind_is_met_with_the_key_for_it(request_: Request, text: str, advice: str) -> None:
    fault = judge(Reply(400, native(text)), request_)

    assert isinstance(fault, Fault)
    assert fault.message.endswith(advice)


#: (status, body, kind, remedy, harm): what /api/embed says; 400 is also what has no status of its own there
EMBED_ROWS: list[tuple[int, bytes, str, Remedy, Harm]] = [
    (400, native("the input length exceeds the context length"), "too_long", NEVER, NONE),
    (400, inner("input is too large to process. increase the physical batch size"), "too_long", NEVER, NONE),
    (400, native('"llama3.2" does not support embeddings'), "unsupported", NEVER, NONE),
    (501, native("this model does not support embeddings"), "unsupported", NEVER, NONE),
    (400, native("invalid input type"), "bad_request", NEVER, NONE),
    (
        400,
        native("json: cannot unmarshal string into Go struct field EmbedRequest.truncate"),
        "bad_request",
        NEVER,
        NONE,
    ),
    (404, native("model 'x' not found"), "model_missing", ELSEWHERE, NONE),
    (503, native("server busy"), "busy", HERE, NONE),
    (401, b"", "forbidden", ELSEWHERE, DOWN),
    (400, native("do embedding request: unexpected EOF"), "crashed", ELSEWHERE, STRIKE),
    (500, native("llama-server process has terminated: exit status 2"), "load_failed", ELSEWHERE, STRIKE),
    (400, native("llama-server process has terminated: signal: killed"), "load_failed", ELSEWHERE, STRIKE),
    (500, native("failed to encode response: json: unsupported value: NaN"), "bad_sample", ELSEWHERE, NONE),
    (400, native("something that nobody has seen"), "server_error", ELSEWHERE, STRIKE),
    (500, b"", "server_error", ELSEWHERE, STRIKE),
    (200, b'{"model":"m"}', "invalid_reply", ELSEWHERE, STRIKE),
    (200, b'{"embeddings":[]}', "invalid_reply", ELSEWHERE, STRIKE),
    (200, b'{"embeddings":[[1.0]]}', "invalid_reply", ELSEWHERE, STRIKE),
    (200, b'{"embeddings":[[],[]]}', "invalid_reply", ELSEWHERE, STRIKE),
    (200, b'{"embeddings":[[1.0],[NaN]]}', "invalid_reply", ELSEWHERE, STRIKE),
    (200, b'{"embeddings":[[1.0],[0]]}', "invalid_reply", ELSEWHERE, STRIKE),
    (200, b'{"error":"the input length exceeds the context length"}', "too_long", NEVER, NONE),
    (200, b"<html>", "invalid_reply", ELSEWHERE, STRIKE),
]


@pytest.mark.parametrize(("status", "body", "kind", "remedy", "harm"), EMBED_ROWS)
def test_reply_of_embed_has_its_meaning(status: int, body: bytes, kind: str, remedy: Remedy, harm: Harm) -> None:
    fault = judge(Reply(status, body), EMBED)

    assert isinstance(fault, Fault)
    assert (fault.kind, fault.remedy, fault.harm) == (kind, remedy, harm)


def test_vectors_are_given_back_as_they_came() -> None:
    body = b'{"model":"m","embeddings":[[0.6,0.8],[1.0,0.0]],"prompt_eval_count":2}'

    assert judge(Reply(200, body), EMBED) == json.loads(body)


def test_completion_is_judged_by_its_own_keys() -> None:
    done: dict[str, Any] = {"response": "go on", "done": True, "done_reason": "stop"}

    assert judge(Reply(200, json.dumps(done).encode()), COMPLETE) == done
    for changes in ({"response": 5}, {"done": False}, {"done_reason": "load"}):
        fault = judge(Reply(200, json.dumps({**done, **changes}).encode()), COMPLETE)
        assert isinstance(fault, Fault)
        assert fault.remedy is ELSEWHERE


def test_reply_that_only_loads_is_told_from_one_that_holds_nothing() -> None:
    loaded = chat(done_reason="load", message={"role": "assistant", "content": ""})

    assert judge_loaded(Reply(200, loaded), Kind.CHAT) is None
    assert judge_loaded(Reply(200, b'{"embeddings": []}'), Kind.EMBED) is None
    for kind in (Kind.CHAT, Kind.EMBED):
        fault = judge_loaded(Reply(200, b"{}"), kind)
        assert fault is not None
        assert fault.kind == "invalid_reply"


@pytest.mark.parametrize("text", REASONS)
def test_r20_the_servers_own_reason_for_a_schema_is_passed_on_and_nothing_of_the_schema(text: str) -> None:
    message = judged(400, inner(text, "invalid_request_error", 400)).message

    assert REASONS[text] in message
    assert "Jane" not in message
