"""One question to a simulated server, with every fault it knows; and control calls to what is no Ollama at all."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from obcd.core.answer.outcomes import KeptAnswer, ModelAnswer
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, signature_of
from obcd.ollama import control
from obcd.ollama import transport as transport_module
from obcd.ollama.client import TIMED_OUT, ask, preload
from obcd.ollama.control import probe, probe_all
from obcd.ollama.structured import ask_fitting
from obcd.ollama.transport import Transport
from obcd.standins.simulated.faults import KINDS, VECTOR_KINDS
from obcd.standins.simulated.gpu_server import Behaviour
from obcd.standins.simulated.prefix_cache import PrefixCaching
from tests.golden.wording import wording
from tests.integration.loopback import (
    Script,
    SimulatedServer,
    drips,
    floods,
    hangs,
    ok,
    read_request,
    replies,
    serving,
    simulating,
)
from tests.support import wait_until

pytestmark = pytest.mark.integration

JOB = JobSettings(model="llama3.2", num_ctx=4096, num_predict=64)
SECRET = "Jane Doe, MRN 123456, was seen"


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedServer]:
    with simulating() as started:
        yield started


@pytest.fixture
def transport(server: SimulatedServer) -> Iterator[Transport]:
    made = Transport(server.url)
    yield made
    made.close()


def request(prompt: str, **wishes: Any) -> Request:
    return parse_line(json.dumps({"prompt": prompt, **wishes}).encode(), 3)


def fault_of(transport: Transport, prompt: str, settings: JobSettings = JOB, **wishes: Any) -> Fault:
    result = ask(transport, request(f"{SECRET} {prompt}", **wishes), settings)
    assert isinstance(result, Fault)
    assert "Jane" not in result.message
    return result


@contextlib.contextmanager
def aborting_when(holds: Callable[[], bool], transport: Transport) -> Iterator[None]:
    """Break the exchange off, in another thread, as soon as a condition holds."""

    def run() -> None:
        wait_until(holds)
        transport.abort(TIMED_OUT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)


def kept_of(fault: Fault) -> KeptAnswer:
    assert fault.kept is not None
    return fault.kept


class TestAsking:
    def test_answer_holds_all_that_is_kept_of_it(self, transport: Transport) -> None:
        line = request("Why is the sky blue?", system="Be brief.")

        result = ask(transport, line, JOB)

        assert isinstance(result, ModelAnswer)
        assert result.text
        assert (result.model, result.done_reason) == ("llama3.2", "stop")
        assert result.cost.prompt_tokens > 0
        assert result.cost.eval_tokens > 0
        assert 0 <= result.cost.wait_seconds <= result.cost.seconds < 10

    def test_tokens_from_the_prefix_cache_are_kept_where_the_reply_names_them(self) -> None:
        remembering = Behaviour(seconds=0.0, load_seconds=0.0, prefix_cache=PrefixCaching.MEMORY)
        with simulating(remembering) as server, contextlib.closing(Transport(server.url)) as transport:
            costs = [ask(transport, request("d" * 4000 + question), JOB).cost for question in ("one?", "two?")]  # type: ignore[union-attr]

        assert [(cost.prompt_tokens, cost.cached_tokens) for cost in costs] == [(1005, 0), (1005, 1004)]

    @pytest.mark.parametrize("count", [None, "4", 4.0, True, -1, 10])
    def test_count_of_cached_tokens_that_cannot_be_is_not_kept(self, count: object) -> None:
        body = {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True, "done_reason": "stop"}
        body |= {"prompt_eval_count": 9, "eval_count": 1, "prompt_eval_cached_count": count}
        with (
            serving(replies(ok(json.dumps(body).encode()))) as server,
            contextlib.closing(Transport(server.url)) as transport,
        ):
            result = ask(transport, request("Hello"), JOB)

        assert isinstance(result, ModelAnswer)
        assert (result.cost.prompt_tokens, result.cost.cached_tokens) == (9, None)

    def test_many_questions_go_over_one_connection(self, transport: Transport) -> None:
        socks = {transport._sock for _ in range(10) if isinstance(ask(transport, request("Hello"), JOB), ModelAnswer)}

        assert len(socks) == 1

    def test_lone_surrogates_and_control_characters_travel(self, transport: Transport) -> None:
        assert isinstance(ask(transport, request("a\ud800b\x00\x1b[2J\u2028"), JOB), ModelAnswer)

    def test_answer_in_json_fits_its_schema(self, transport: Transport) -> None:
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}

        result = ask(transport, request("How old?", format=schema), JOB)

        assert isinstance(result, ModelAnswer)
        assert isinstance(json.loads(result.text or "")["age"], int)

    def test_preload_loads_and_asks_nothing(self) -> None:
        with simulating() as server, contextlib.closing(Transport(server.url)) as transport:
            assert preload(transport, signature_of(request("Hello"), JOB)) is None
            assert server.requests() == []

    def test_preload_of_a_model_that_is_not_there_says_so(self, transport: Transport) -> None:
        fault = preload(transport, signature_of(request("Hello", model="nobody-has-it"), JOB))

        assert fault is not None
        assert fault.kind == "model_missing"


#: {marker: (kind, remedy, costs an attempt, harm)}; `hang`, `stuck` and `drip` have tests of their own
MARKED: dict[str, tuple[str, Remedy, bool, Harm]] = {
    "crash": ("crashed", Remedy.ELSEWHERE, True, Harm.STRIKE),
    "status=400": ("bad_request", Remedy.NEVER, True, Harm.NONE),
    "status=401": ("forbidden", Remedy.ELSEWHERE, False, Harm.DOWN),
    "status=404": ("model_missing", Remedy.ELSEWHERE, True, Harm.NONE),
    "status=429": ("busy", Remedy.HERE, True, Harm.NONE),
    "status=500": ("server_error", Remedy.ELSEWHERE, True, Harm.STRIKE),
    "status=503": ("busy", Remedy.HERE, False, Harm.NONE),
    "cut": ("cut", Remedy.ELSEWHERE, True, Harm.STRIKE),
    "done-false": ("aborted", Remedy.ELSEWHERE, True, Harm.STRIKE),
    "repeat": ("repetition", Remedy.NEVER, True, Harm.NONE),
    "eof": ("server_error", Remedy.ELSEWHERE, True, Harm.STRIKE),
    "redirect": ("redirect", Remedy.ELSEWHERE, True, Harm.STRIKE),
    "garbage": ("invalid_reply", Remedy.ELSEWHERE, True, Harm.STRIKE),
}


class TestFaults:
    @pytest.mark.parametrize("marker", MARKED)
    def test_fault_has_its_meaning_and_the_next_question_is_answered(self, marker: str, transport: Transport) -> None:
        fault = fault_of(transport, f"[[simulate:{marker}]]")

        assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == MARKED[marker]
        assert isinstance(ask(transport, request("Hello"), JOB), ModelAnswer)

    def test_every_fault_that_the_simulation_knows_is_tested_here(self) -> None:
        elsewhere = {
            "crash-load",
            "kill-server",
            "hang",
            "stuck",
            "drip",
            "huge",
            "length",
            "empty-thinking",
            "seconds",
            "tokens",
            "garbled",
            "blank",
        }

        assert {marker.partition("=")[0] for marker in MARKED} | elsewhere | VECTOR_KINDS == set(KINDS)

    def test_load_after_a_crash_may_fail_once(self, transport: Transport) -> None:
        kinds = [fault_of(transport, f"{marker} Hello").kind for marker in ("[[simulate:crash-load]]", "")]

        assert kinds == ["crashed", "load_failed"]
        assert isinstance(ask(transport, request("Hello"), JOB), ModelAnswer)

    @pytest.mark.parametrize("marker", ["hang", "drip"])
    def test_server_that_never_ends_is_broken_off_and_the_next_question_is_answered(self, marker: str) -> None:
        with simulating() as server, contextlib.closing(Transport(server.url)) as transport:
            with aborting_when(lambda: any(item["started"] for item in server.requests()), transport):
                fault = fault_of(transport, f"[[simulate:{marker}]]")

            assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == (
                "timeout",
                Remedy.ELSEWHERE,
                True,
                Harm.STRIKE,
            )
            wait_until(lambda: server.requests()[0]["outcome"] == "cancelled")  # no slot is left computing for nobody
            transport.arm()
            assert isinstance(ask(transport, request("Hello"), JOB), ModelAnswer)

    def test_cancelled_question_costs_nothing_and_harms_nobody(self, transport: Transport) -> None:
        transport.abort("cancelled")

        fault = fault_of(transport, "")

        assert (fault.kind, fault.costs_attempt, fault.harm) == ("cancelled", False, Harm.NONE)

    def test_huge_answer_is_refused_for_good(self, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport_module, "MAX_REPLY_BYTES", 2**20)

        fault = fault_of(transport, "[[simulate:huge=2000000]]")

        assert (fault.kind, fault.remedy) == ("too_large", Remedy.NEVER)
        assert isinstance(ask(transport, request("Hello"), JOB), ModelAnswer)

    def test_answer_that_is_cut_short_is_an_answer(self, transport: Transport) -> None:
        result = ask(transport, request("[[simulate:length]]"), JOB)

        assert isinstance(result, ModelAnswer)
        assert result.done_reason == "length"

    def test_answer_that_is_cut_short_is_a_failure_where_json_was_wanted(self, transport: Transport) -> None:
        line = request("[[simulate:length]]", format="json", options={"num_predict": 7})
        fault = ask_fitting(transport, line, replace(JOB, repairs=0), lambda _: True)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy) == ("cut_short", Remedy.NEVER)
        assert fault.message.endswith(wording("raise-num-predict-now-7-or"))
        assert str(kept_of(fault).text).startswith("{")

    def test_thoughts_without_an_answer_are_a_failure_that_keeps_them(self, transport: Transport) -> None:
        fault = fault_of(transport, "[[simulate:empty-thinking]]")

        assert (fault.kind, fault.remedy) == ("cut_in_thought", Remedy.NEVER)
        assert wording("before-its-first-word-raise-num") in fault.message
        assert (kept_of(fault).text, bool(kept_of(fault).thinking)) == ("", True)

    def test_prompt_that_does_not_fit_fails_for_good_and_says_by_how_much(self, transport: Transport) -> None:
        fault = fault_of(transport, "word " * 1000, replace(JOB, num_ctx=64))

        assert (fault.kind, fault.remedy) == ("too_long", Remedy.NEVER)
        assert "tokens where 64 fit" in fault.message

    def test_prompt_that_was_planned_too_short_says_which_context_it_needs(self, transport: Transport) -> None:
        planned = replace(JOB, num_ctx=64, num_ctx_max=2048)

        more = "[[simulate:tokens=1000]]"
        tokens = (len(f"{SECRET} {more}") + 3) // 4 + 4 + 1000
        assert fault_of(transport, more, planned).needs == tokens + JOB.num_predict

        own = fault_of(transport, more, planned, options={"num_ctx": 64})
        longer = fault_of(transport, "[[simulate:tokens=2048]]", planned)
        assert (own.kind, own.needs) == (longer.kind, longer.needs) == ("too_long", 0)

    def test_answer_that_a_planned_context_cut_short_says_which_one_it_needs(self, transport: Transport) -> None:
        planned = replace(JOB, num_ctx=64, num_ctx_max=200)

        fault = fault_of(transport, "[[simulate:tokens=30]]", planned)
        tokens = (len(f"{SECRET} [[simulate:tokens=30]]") + 3) // 4 + 4 + 30
        assert (fault.kind, fault.remedy, fault.needs) == ("too_long", Remedy.NEVER, tokens + JOB.num_predict)
        assert fault.message == wording("the-answer-filled-the-context-before")

        line = request(f"{SECRET} [[simulate:tokens=30]]")
        for most in (None, 64, tokens + JOB.num_predict - 1):  # not planned, the largest already, still too small
            assert isinstance(ask(transport, line, replace(planned, num_ctx_max=most)), ModelAnswer)
        brief = replace(line, options={"num_predict": 64 - tokens})
        assert isinstance(ask(transport, brief, planned), ModelAnswer)

    def test_model_that_is_not_there(self, transport: Transport) -> None:
        assert fault_of(transport, "", model="nobody-has-it").kind == "model_missing"

    def test_nobody_listens(self) -> None:
        with contextlib.closing(Transport("http://" + unused_address())) as transport:
            fault = fault_of(transport, "")

        assert (fault.kind, fault.costs_attempt, fault.harm) == ("unreachable", False, Harm.DOWN)
        assert fault.message == "not reachable: connection refused"

    def test_no_prompt_is_logged(
        self, server: SimulatedServer, transport: Transport, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)

        for marker in MARKED:
            fault_of(transport, f"[[simulate:{marker}]]")
        probe(server.url)

        assert "Jane" not in caplog.text


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


VERSION = ok(b'{"version": "0.33.0"}')
TAGS = ok(b'{"models": [{"name": "Llama3.2:latest", "digest": "abc"}]}')
NOT_OLLAMA = "it replies, but not like Ollama: is this the right port?"
BROKEN = "the connection broke in the middle of its answer"
SILENT = "it accepts connections but does not answer"


class TestProbing:
    def test_simulated_server_tells_its_version_and_models(self, server: SimulatedServer) -> None:
        found = probe(server.url)

        assert found.failure is None
        assert found.version == "0.33.0-obcd-simulated"
        assert list(found.digests) == ["llama3.2:latest"]

    def test_server_without_models_is_well(self) -> None:
        with serving(replies(VERSION, ok(b'{"models": null}'))) as server:
            assert probe(server.url).failure is None

    @pytest.mark.parametrize(
        ("script", "failure"),
        [
            (replies(ok(b"<html>It works!</html>")), NOT_OLLAMA),
            (replies(ok(b"[]")), NOT_OLLAMA),
            (replies(VERSION, ok(b'{"models": [5]}')), NOT_OLLAMA),
            (replies(VERSION, ok(b'{"models": "many"}')), NOT_OLLAMA),
            (replies(VERSION, ok(b'{"models": [{"digest": "x"}]}')), NOT_OLLAMA),
            (replies(ok(b"\xff\xfe")), NOT_OLLAMA),
            (replies(ok(b'{"version":' * 50_000)), NOT_OLLAMA),
            (replies(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), wording("it-answers-with-status-404")),
            (replies(b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"), wording("it-answers-with-status-502")),
            (replies(VERSION, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), BROKEN),
            (replies(VERSION, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), BROKEN),
            (replies(ok(b"no gzip", "Content-Encoding: gzip\r\n")), BROKEN),
            (replies(b"SSH-2.0-OpenSSH_9.6\r\n"), "not reachable (ConnectionError)"),
            (replies(b""), "not reachable (ConnectionError)"),
            (hangs(), SILENT),
            (hangs(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), SILENT),
            (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"), SILENT),
            (drips(b"HTTP/1.1 200 OK\r\n\r\n{"), SILENT),
            (drips(b"HTTP/1.1 200 OK\r\nX: "), SILENT),
            (drips(b""), SILENT),
            (floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"x"), NOT_OLLAMA),
            (floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", b"x"), NOT_OLLAMA),
            (floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), SILENT),
            (floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"), SILENT),
        ],
    )
    def test_what_is_no_healthy_ollama_is_told_apart(
        self, script: Script, failure: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(control, "PROBE_SECONDS", 0.5)
        monkeypatch.setattr(control, "MAX_CONTROL_BYTES", 10**6)

        with serving(script) as server:
            assert probe(server.url).failure == failure

    def test_nobody_listens(self) -> None:
        assert probe("http://" + unused_address()).failure == wording("connection-refused-no-server-listens-there")

    @pytest.mark.parametrize("url", ["http://no-such-host.invalid:1", "http://" + "a" * 70 + ":1", "http://a..b:1"])
    def test_name_that_is_none_is_no_exception(self, url: str) -> None:
        assert probe(url).failure

    def test_redirect_is_not_followed_and_the_other_host_sees_nothing(self) -> None:
        with serving(replies(VERSION)) as other:
            moved = f"HTTP/1.1 307 Moved\r\nLocation: {other.url}/\r\nContent-Length: 0\r\n\r\n".encode()
            with serving(replies(moved)) as server:
                failure = probe(server.url).failure
            assert other.connections == 0

        assert failure == wording("it-answers-with-a-redirect-307")

    def test_proxy_and_netrc_of_the_environment_are_ignored(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
    ) -> None:
        seen = []

        def script(conn: socket.socket) -> None:
            for reply in (VERSION, TAGS):
                seen.append(read_request(conn))
                conn.sendall(reply)

        (tmp_path / "netrc").write_text("default login alice password hunter2\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        with serving(replies(VERSION)) as proxy, serving(script) as server:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
                monkeypatch.setenv(name, proxy.url)
            assert probe(server.url).failure is None
            assert proxy.connections == 0

        assert b"authorization" not in b"".join(seen).lower()

    def test_compressed_list_of_models_is_read_and_a_bomb_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(control, "MAX_CONTROL_BYTES", 10_000)
        packed = ok(gzip.compress(b'{"models": [{"name": "m"}]}'), "Content-Encoding: gzip\r\n")
        bomb = ok(gzip.compress(b" " * 10**7), "Content-Encoding: gzip\r\n")

        with serving(replies(VERSION, packed), replies(VERSION, bomb)) as server:
            assert probe(server.url).digests == {"m:latest": ""}
            assert probe(server.url).failure == NOT_OLLAMA

    def test_version_cannot_reach_the_terminal_as_a_command(self) -> None:
        with serving(replies(ok(b'{"version": "\\u001b[2J"}'), TAGS)) as server:
            assert probe(server.url).version == r"\x1b[2J"

    def test_only_what_can_be_a_model_is_kept_and_no_more_than_a_thousand(self) -> None:
        names = ["a\x1b[2J", "b" * 201, "c\u202e", *(f"m{number}" for number in range(2000))]
        tags = json.dumps({"models": [{"name": name, "digest": "\x1b" + "d" * 1000} for name in names]}).encode()

        with serving(replies(VERSION, ok(tags))) as server:
            digests = probe(server.url).digests

        assert list(digests) == [f"m{number}:latest" for number in range(1000)]
        assert all(digest.isprintable() and len(digest) < 300 for digest in digests.values())

    def test_several_are_asked_at_once(self, server: SimulatedServer) -> None:
        found = probe_all([server.url, "http://" + unused_address(), server.url])

        assert [item.failure is None for item in found] == [True, False, True]


def line(**document: Any) -> Request:
    return parse_line(json.dumps(document).encode(), 3)


@pytest.fixture(scope="module")
def able_server() -> Iterator[SimulatedServer]:
    behaviour = Behaviour(models=("llama3.2", "llava", "qwen3", "nomic-embed-text"), seconds=0.01, load_seconds=0.0)
    with simulating(behaviour) as started:
        yield started


@pytest.fixture
def able(able_server: SimulatedServer) -> Iterator[Transport]:
    made = Transport(able_server.url)
    yield made
    made.close()


class TestKinds:
    def test_texts_get_a_vector_each(self, able: Transport) -> None:
        result = ask(able, line(embed=["one", "two"], model="nomic-embed-text"), JOB)

        assert isinstance(result, ModelAnswer)
        assert [len(vector) for vector in result.embeddings or ()] == [64, 64]
        assert (result.model, result.cost.eval_tokens) == ("nomic-embed-text", 0)
        assert result.cost.prompt_tokens == 2
        assert result.text is None

    def test_vectors_are_as_short_as_asked(self, able: Transport) -> None:
        result = ask(able, line(embed="one", model="nomic-embed-text", dimensions=8), JOB)

        assert isinstance(result, ModelAnswer)
        assert len((result.embeddings or [])[0]) == 8

    def test_embedding_model_is_loaded_without_a_chat(self, able_server: SimulatedServer, able: Transport) -> None:
        signature = signature_of(line(embed="one", model="nomic-embed-text"), JOB)
        before = len(able_server.requests())

        assert preload(able, signature) is None
        assert len(able_server.requests()) == before

    @pytest.mark.parametrize("marker", ["short", "empty", "zeros", "nan"])
    def test_200_without_vectors_is_no_answer(self, able: Transport, marker: str) -> None:
        fault = ask(able, line(embed=[f"[[simulate:{marker}]] {SECRET}", "b"], model="nomic-embed-text"), JOB)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy, fault.harm) == ("invalid_reply", Remedy.ELSEWHERE, Harm.STRIKE)
        assert "Jane" not in fault.message

    def test_text_that_is_too_long_is_refused_and_never_cut(self, able: Transport) -> None:
        fault = ask(able, line(embed=SECRET * 1000, model="nomic-embed-text"), JOB)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy, fault.needs) == ("too_long", Remedy.NEVER, 0)

    def test_chat_model_that_cannot_embed_says_so(self, able: Transport) -> None:
        fault = ask(able, line(embed="one"), JOB)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy) == ("unsupported", Remedy.NEVER)

    def test_crash_of_an_embedding_model_strikes_though_it_is_a_400(self, able: Transport) -> None:
        fault = ask(able, line(embed="[[simulate:crash*1]]", model="nomic-embed-text"), JOB)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy, fault.harm) == ("crashed", Remedy.ELSEWHERE, Harm.STRIKE)

    def test_text_goes_on(self, able: Transport) -> None:
        result = ask(able, line(complete="Once upon a time", logprobs=True), JOB)

        assert isinstance(result, ModelAnswer)
        assert result.text
        found: list[Any] = result.logprobs or []
        assert found[0]["token"]

    def test_thought_is_kept_apart_and_can_be_forbidden(self, able: Transport) -> None:
        thinking, silent = (ask(able, line(prompt="Why?", model="qwen3", think=think), JOB) for think in (True, False))

        assert isinstance(thinking, ModelAnswer)
        assert isinstance(silent, ModelAnswer)
        assert thinking.thinking
        assert thinking.text == silent.text
        assert silent.thinking is None

    def test_model_that_cannot_think_says_so(self, able: Transport) -> None:
        fault = ask(able, line(prompt="Why?", think=True), JOB)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy) == ("unsupported", Remedy.NEVER)

    def test_call_of_a_tool_comes_back_as_data(self, able: Transport) -> None:
        parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}

        result = ask(able, line(prompt="Weather in Bonn?", tools=[tool]), JOB)

        assert isinstance(result, ModelAnswer)
        calls: list[Any] = result.tool_calls or []
        (call,) = calls
        assert call["function"]["name"] == "weather"
        assert isinstance(call["function"]["arguments"]["city"], str)

    def test_probabilities_are_kept_for_every_token(self, able: Transport) -> None:
        result = ask(able, line(prompt="Why?", logprobs=True, top_logprobs=3), JOB)

        assert isinstance(result, ModelAnswer)
        found: list[Any] = result.logprobs or []
        assert "".join(item["token"] for item in found) == result.text
        assert all(item["logprob"] < 0 and len(item["top_logprobs"]) == 3 for item in found)

    def test_server_that_tells_no_probabilities_is_no_answer(self) -> None:
        body = json.dumps({"message": {"content": "So."}, "done": True, "done_reason": "stop"}).encode()
        with serving(replies(ok(body))) as old, contextlib.closing(Transport(old.url)) as transport:
            fault = ask(transport, line(prompt="Why?", logprobs=True), JOB)

        assert isinstance(fault, Fault)
        assert (fault.kind, fault.remedy) == ("unsupported", Remedy.ELSEWHERE)
        assert "0.12.11" in fault.message

    def test_pictures_travel_as_base64(self, able: Transport) -> None:
        request = line(prompt="What is this?", images=["data:image/png;base64," + "AAAA" * 20], model="llava")

        assert isinstance(ask(able, request, JOB), ModelAnswer)

    def test_pictures_for_a_model_that_sees_none_are_the_requests_own_fault(self, able: Transport) -> None:
        fault = ask(able, line(prompt="What is this?", images=["data:image/png;base64," + "AAAA" * 20]), JOB)

        assert isinstance(fault, Fault)
        assert (fault.remedy, fault.harm) == (Remedy.NEVER, Harm.NONE)
