"""Servers that fail, under the real coordinator and its workers: one result a line, attempts bounded, the rest goes on.

The table of single faults runs in one coordinator over two simulated servers and one that answers as no Ollama does.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from obcd.ollama.client import encode_body
from obcd.ollama.transport import AbortedError, Transport
from tests.faults.strange import Script, StrangeServer, answer, strange, whole
from tests.golden.wording import wording
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Published,
    Simulated,
    family,
    make_environment,
    prompt_key,
    prompt_lines,
    prompts,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration

#: Pauses are short, so that a table of faults runs in seconds.
QUICK = {
    "obcd.core.endpoint.retry:ENDPOINT_LIMIT": 0.2, "obcd.core.endpoint.retry:ENDPOINT_BASE": 0.1,
    "obcd.core.endpoint.health:ENDPOINT_LIMIT": 0.2, "obcd.core.endpoint.health:ENDPOINT_BASE": 0.1,
    "obcd.core.scheduling.attempt_count:REQUEST_BASE": 0.05, "obcd.core.scheduling.attempt_count:REQUEST_LIMIT": 0.2,
    "obcd.coordinator.endpoints.control_calls:PROBE_SOON": 0.05,
    "obcd.coordinator.endpoints.control_calls:PROBE_IDLE": 0.3,
}  # fmt: skip
ATTEMPTS, TIME_LIMIT = 2, 3.0


class Site:
    """A coordinator over one kind of server, for many tests."""

    def __init__(self, coordinator: CoordinatorProcess) -> None:
        self.coordinator = coordinator
        self._jobs = 0

    def run(self, lines: list[str]) -> Published:
        """Answer a job of its own."""
        self._jobs += 1
        self.coordinator.drop(lines, f"job{self._jobs}.jsonl")
        done = self.coordinator.published(f"job{self._jobs}")
        done.assert_complete(len(lines))
        return done


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="obcd-servers-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def start(folder: Path, names: list[str]) -> CoordinatorProcess:
    requests = {"attempts": ATTEMPTS, "request_timeout_seconds": TIME_LIMIT, "load_timeout_seconds": 5}
    config = write_config(folder / "obcd.toml", dict.fromkeys(names, 4), requests=requests)
    return CoordinatorProcess(make_environment(folder), folder / "root", config, {**QUICK, **NEVER_HEDGED})


@pytest.fixture(scope="module")
def simulated(folder: Path) -> Iterator[tuple[Site, Simulated]]:
    folder = folder / "simulated"
    folder.mkdir()
    server = Simulated(make_environment(folder), folder / "server.log", "--parallel", 4, "--seconds", 0.02, count=2)
    coordinator = start(folder, server.names)
    yield Site(coordinator), server
    coordinator.end()
    server.end()


#: {marker of the simulation: (class of the failure, "" for an answer; how often it is asked)}
FAULTS = {
    "hang": ("timeout", 2),
    "hang*1": ("", 2),
    "drip": ("timeout", 2),
    "drip*1": ("", 2),
    "status=503*4": ("", 5),  # busy costs no attempt
    "status=429": ("busy", 2),
    "status=429*1": ("", 2),
    "status=499*3": ("", 4),
    "status=500": ("server_error", 2),
    "status=500*1": ("", 2),
    "status=502": ("server_error", 2),
    "status=400": ("bad_request", 1),
    "cut": ("cut", 2),
    "cut*1": ("", 2),
    "done-false": ("aborted", 2),
    "done-false*1": ("", 2),
    "garbage": ("invalid_reply", 2),
    "garbage*1": ("", 2),
    "redirect": ("redirect", 2),
    "redirect*1": ("", 2),
    "crash*1": ("", 2),
    "crash-load*1": ("", 2),
    "length": ("", 1),
    "garbled": ("", 1),  # nobody can see it in one answer: that is what burn-in is for
    "empty-thinking": ("cut_in_thought", 1),
    "huge=70000000": ("too_large", 1),
    "seconds=6*1": ("", 2),  # its answer would come after the limit
}


@pytest.mark.case("C4", "C5", "C6", "C7", "C8", "C9", "C11", "C12", "C13", "C14", "C18")
@pytest.mark.parametrize("marker", FAULTS)
def test_each_fault_costs_what_it_should_and_its_line_only(marker: str, simulated: tuple[Site, Simulated]) -> None:
    site, server = simulated
    kind, times = FAULTS[marker]
    bad = f"[[simulate:{marker}]] the one with {marker}"

    done = site.run([*prompts(3, f"before {marker}"), bad, *prompts(3, f"after {marker}")])

    assert [(item["line"], item["class"]) for item in done.errors] == ([(4, kind)] if kind else [])
    assert server.asked()[prompt_key(bad)] == times
    assert "[[simulate" not in site.coordinator.text()
    assert "Traceback" not in site.coordinator.text()


def test_answers_that_are_cut_short_are_told_as_that(simulated: tuple[Site, Simulated]) -> None:
    done = simulated[0].run(["[[simulate:length]] a", "[[simulate:empty-thinking]] b"])

    assert [item["done_reason"] for item in done.responses] == ["length"]
    assert done.manifest["counts"]["cut_short"] == 1
    (error,) = done.errors  # it never began to answer
    assert (error["class"], error["response"], bool(error["thinking"])) == ("cut_in_thought", "", True)
    assert "raise num_predict" in error["message"]


# --- replies that no Ollama gives ------------------------------------------------------------------------------------

#: It expands to 256 MiB: sixteen members, since one takes a second to make.
BOMB = gzip.compress(bytes(2**24), 9) * 16


def endless(write: Callable[[bytes], Any]) -> None:
    """Write a gigabyte, as long as somebody reads it."""
    write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{")
    for _ in range(1024):
        write(b" " * 2**20)


#: {word in the prompt: what comes}
SCRIPTS: dict[str, Script] = {
    "no length and cut": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answer("never seen")[:-9],
    "chunked and cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{",
    "empty body": whole(b""),
    "no message": whole(answer("x", message=None)),
    "a list": whole(b"[1, 2]"),
    "page": whole(b"<html>welcome</html>", "Content-Type: text/html\r\n"),
    "gigabyte": endless,
    "bomb": whole(BOMB, "Content-Encoding: gzip\r\n"),
    "gzip": whole(gzip.compress(answer("packed")), "Content-Encoding: gzip\r\n"),
    "wrong type": whole(answer("as it should be"), "Content-Type: image/png\r\n"),
    "surrogate": whole(answer("lone \ud800 and NUL \0")),
    "digits": whole(b'{"message": {"content": "x"}, "done": true, "done_reason": "stop", "n": ' + b"9" * 5000 + b"}"),
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "error in a 200": whole(b'{"error": "an error was encountered while running the model: unexpected EOF"}'),
}

#: {word: class of the failure, "" for an answer}
STRANGE = {
    "no length and cut": "invalid_reply",
    "chunked and cut": "cut",
    "empty body": "invalid_reply",
    "no message": "invalid_reply",
    "a list": "invalid_reply",
    "page": "invalid_reply",
    "gigabyte": "too_large",
    "bomb": "invalid_reply",  # never unpacked: nobody asked for a packed one
    "gzip": "invalid_reply",
    "wrong type": "",
    "surrogate": "",
    "digits": "invalid_reply",
    "no http": "cut",
    "error in a 200": "crashed",
}


@pytest.fixture(scope="module")
def odd(folder: Path) -> Iterator[tuple[Site, StrangeServer]]:
    folder = folder / "odd"
    folder.mkdir()
    with strange(SCRIPTS) as server:
        coordinator = start(folder, [server.name])
        yield Site(coordinator), server
        coordinator.end()


@pytest.mark.case("C9", "C10", "C11", "C12", "C13", "C19", "C20")
@pytest.mark.parametrize("word", STRANGE)
def test_reply_that_no_ollama_gives_is_one_result(word: str, odd: tuple[Site, StrangeServer]) -> None:
    site, server = odd

    done = site.run(["before", word, "after"])

    kind = STRANGE[word]
    # A crash beside the other two costs nothing; then the third is the last, whatever `attempts` says.
    found = [(item["line"], item["class"].replace("poison", "crashed")) for item in done.errors]
    assert found == ([(2, kind)] if kind else [])
    assert 1 <= server.asked[word] <= 3
    for name in ("responses.jsonl", "errors.jsonl"):
        if (done.folder / name).exists():
            (done.folder / name).read_bytes().decode("utf-8")
    assert "Traceback" not in site.coordinator.text()


@pytest.mark.case("C13", "C20")
def test_gigabyte_and_bomb_stay_out_of_memory(odd: tuple[Site, StrangeServer]) -> None:
    site, server = odd
    (worker,) = (pid for name, pid in site.coordinator.worker_pids().items() if name == server.name)
    peak = 0

    def is_done() -> bool:
        nonlocal peak
        peak = max(peak, psutil.Process(worker).memory_info().rss)
        return (site.coordinator.outbox / "large" / "manifest.json").exists()

    site.coordinator.drop(["gigabyte 1", "bomb 1", "gigabyte 2"], "large.jsonl")
    wait_until(is_done)

    site.coordinator.published("large").assert_complete(3)
    assert peak < 400 * 2**20  # two at once of at most 64 MiB, each held twice while it grows
    assert site.coordinator.worker_pids()[server.name] == worker


@pytest.mark.case("C14")
def test_redirect_sends_nothing_to_the_other_host(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        place = f"Location: http://127.0.0.1:{other.getsockname()[1]}/api/chat\r\n"
        with strange({"moved": whole(b"", place, "307 Temporary Redirect")}) as server:
            (folder / "moved").mkdir()
            coordinator = start(folder / "moved", [server.name])
            try:
                done = Site(coordinator).run(["moved", "stays"])
            finally:
                coordinator.end()

        assert [item["class"] for item in done.errors] == ["redirect"]
        with pytest.raises(BlockingIOError):
            other.accept()


# --- poison ----------------------------------------------------------------------------------------------------------


@pytest.mark.case("B10")
@pytest.mark.parametrize("marker", ["crash", "crash-load"])
@pytest.mark.parametrize(("attempts", "kinds"), [(100, {"poison"}), (1, {"crashed", "poison"})])
def test_prompt_that_crashes_its_server_fails_alone_though_all_in_flight_die_with_it(
    marker: str, attempts: int, kinds: set[str], cluster: Cluster
) -> None:
    # given two servers of four slots each, which load their model for a while
    server = cluster.simulate("--parallel", 4, "--seconds", 0.2, "--load-seconds", 0.3, count=2)
    requests = {"attempts": attempts}
    config = cluster.configure(dict.fromkeys(server.names, 4), requests=requests)
    coordinator = cluster.coordinate(config)
    poison = f"[[simulate:{marker}]] poison"

    # when one of sixty prompts makes the runner crash that answers it
    coordinator.drop([*prompts(20, "first"), poison, *prompts(39, "last")])
    done = coordinator.published()

    # then it alone fails, though a crash ends all that is in flight there
    done.assert_complete(60)
    assert [item["line"] for item in done.errors] == [21]
    assert done.errors[0]["class"] in kinds
    asked = server.asked()
    assert asked.pop(prompt_key(poison)) <= 3
    assert max(asked.values()) >= 2  # there were neighbours
    assert sum(asked.values()) <= 59 + 3 * 7 + 2 * 8
    # and no endpoint was left alone for long
    assert all(item["state"] == "UP" for item in coordinator.status()["endpoints"])
    assert "is DOWN" not in coordinator.text()


def test_poison_is_asked_three_times_and_its_failure_says_where(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.05, count=2)
    config = cluster.configure(server.names, requests={"attempts": 100})
    coordinator = cluster.coordinate(config)
    coordinator.drop(["[[simulate:crash]] poison"])

    (error,) = coordinator.published().errors

    assert (error["class"], error["attempts"]) == ("poison", 3)
    assert wording("crashed-each-of-the-3-times") in error["message"]
    assert server.asked() == {prompt_key("[[simulate:crash]] poison"): 3}


# --- endpoints that are slow, gone, or come late ---------------------------------------------------------------------


@pytest.mark.case("C16")
def test_fast_endpoint_takes_most_and_the_tail_is_one_request_of_the_slow_one(cluster: Cluster) -> None:
    slow_seconds = 1.0
    fast = cluster.simulate("--parallel", 2, "--seconds", slow_seconds / 10)
    slow = cluster.simulate("--parallel", 2, "--seconds", slow_seconds)
    coordinator = cluster.coordinate(cluster.configure({slow.names[0]: 2, fast.names[0]: 2}))
    coordinator.drop(prompts(120))

    coordinator.published().assert_complete(120)

    by_fast, by_slow = fast.account(), slow.account()
    assert 120 <= len(by_fast) + len(by_slow) <= 122  # a straggler or two were asked on both
    assert len(by_fast) > 3 * len(by_slow) > 6  # ten to one where the machine has nothing else to do
    last_of_fast = max(record["finished"] for record in by_fast)
    assert sum(record["finished"] > last_of_fast for record in by_slow) <= 2  # what it had in its slots
    assert sum(record["arrived"] > last_of_fast for record in by_slow) == 0


@pytest.mark.case("C2")
def test_all_endpoints_gone_is_waiting_without_failures_and_goes_on_by_itself(cluster: Cluster) -> None:
    options = ("--parallel", 2, "--seconds", 0.3)
    servers = [cluster.simulate(*options), cluster.simulate(*options)]
    names = {server.names[0]: 2 for server in servers}  # no more in flight than they have slots
    config = cluster.configure(names, requests={"attempts": 1})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(60))
    wait_until(lambda: all(len(server.account()) > 4 for server in servers))
    for server in servers:
        server.kill()
    wait_until(lambda: any("no endpoint is up" in text for text in coordinator.status()["troubles"]))
    coordinator.drop(prompts(3, "later"), "later.jsonl")
    wait_until(lambda: len(coordinator.status()["jobs"]) == 2)
    down_at, failed = time.monotonic(), 0
    wait_until(lambda: time.monotonic() - down_at > 2.0)
    failed = sum(job["failed"] for job in coordinator.status()["jobs"])

    for server in servers:
        cluster.simulate(*options, "--port", server.port)
    done = coordinator.published()

    # What was in flight when they died may have broken off: that attempt counts (here there is but one). So does what
    # was sent to one that was dying: its kernel took it still.
    done.assert_complete(60)
    assert {item["class"] for item in done.errors} <= {"cut"}
    assert len(done.errors) <= 2 * 4
    assert failed == len(done.errors)
    later = coordinator.published("later")
    later.assert_complete(3)
    assert later.errors == []
    wait_until(lambda: coordinator.status()["troubles"] == [])


@pytest.mark.case("C1", "C17")
def test_endpoints_that_cannot_be_reached_leave_the_work_to_the_others(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.02)
    by_name = f"localhost:{server.port}"  # where that means ::1 first, nobody listens there
    gone = cluster.simulate()
    gone.kill()
    names = [gone.names[0], "no-such-host.invalid:11434", by_name]
    coordinator = cluster.coordinate(cluster.configure(names))
    coordinator.drop(prompts(20))

    done = coordinator.published()

    done.assert_complete(20)
    assert done.errors == []
    assert list(done.manifest["endpoints"]) == [by_name]
    states = {item["name"]: item["state"] for item in coordinator.status()["endpoints"]}
    assert states == {names[0]: "DOWN", names[1]: "DOWN", by_name: "UP"}


def test_server_that_still_starts_is_waited_for(cluster: Cluster) -> None:
    server = cluster.simulate("--start-seconds", 2.0, "--seconds", 0.02, "--load-seconds", 0.5)
    config = cluster.configure(server.names, requests={"attempts": 1, "request_timeout_seconds": 1})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(5))

    done = coordinator.published()

    done.assert_complete(5)
    assert done.errors == []
    assert set(server.asked().values()) == {1}


def test_server_that_fell_back_to_its_processor_answers_all_the_same(cluster: Cluster) -> None:
    server = cluster.simulate("--size-vram", "cpu", "--seconds", 0.02)
    coordinator = cluster.coordinate(cluster.configure(server.names))
    coordinator.drop(prompts(5))

    done = coordinator.published()

    done.assert_complete(5)
    assert done.errors == []


def test_endpoint_that_fails_is_left_alone_with_growing_pauses_and_comes_back_by_itself(cluster: Cluster) -> None:
    # given a server that fails whatever it is asked
    server = cluster.simulate("--parallel", 1, "--seconds", 0.0, "--fault", "status=500=1")
    tweaks = {
        "obcd.core.endpoint.health:ENDPOINT_BASE": 0.25,
        "obcd.coordinator.endpoints.control_calls:PROBE_SOON": 0.02,
    }
    config = cluster.configure({server.names[0]: 1}, requests={"attempts": 100})
    coordinator = cluster.coordinate(config, tweaks=tweaks)
    coordinator.drop(prompts(30))

    # when it was tried some times
    def arrivals() -> list[float]:
        """Return when requests came, without the tokens by which the endpoint is to prove itself."""
        return [record["arrived"] for record in server.account() if record["prompt"] != ONE_TOKEN]

    def gaps() -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(arrivals())]

    wait_until(lambda: len([gap for gap in gaps() if gap > 0.15]) >= 3)
    found = gaps()
    pauses = [gap for gap in found if gap > 0.15]

    # then three to five come at once (more of them while the endpoint is to prove itself), each further one after twice
    # the pause, of which up to a quarter is taken away
    assert max(found[:2]) < pauses[-1]
    assert len(found) - len(pauses) <= 5, found
    assert pauses[0] < pauses[1] < pauses[2], found
    assert pauses[2] > 0.7
    state = coordinator.status()["endpoints"][0]
    assert state["state"] in ("DOWN", "SUSPECT")

    # and a server that does not fail is asked again by itself
    server.kill()
    cluster.simulate("--seconds", 0.0, "--port", server.port)
    done = coordinator.published()
    done.assert_complete(30)
    assert done.errors == []
    wait_until(lambda: coordinator.status()["endpoints"][0]["state"] == "UP")


# --- servers that answer nobody --------------------------------------------------------------------------------------

#: Has a worker wait for little, so that a hang is found out and mended in seconds.
IMPATIENT = """
import obcd.core.endpoint.deadlines, obcd.core.endpoint.recovery_steps, obcd.ollama.recovery
obcd.core.endpoint.deadlines.LEAST_SECONDS, obcd.core.endpoint.deadlines.BATCH_TOKENS = 0.5, 0
obcd.ollama.recovery.GONE_SECONDS = 0.3
obcd.core.endpoint.recovery_steps.REST_BASE, obcd.core.endpoint.recovery_steps.REST_LIMIT = 0.2, 0.4
"""
ONE_TOKEN = prompt_key("Hi")
LIMITS = {"attempts": 4, "request_timeout_seconds": 60.0, "load_timeout_seconds": 5.0}


@pytest.fixture
def impatient(tmp_path: Path, cluster: Cluster) -> Callable[..., CoordinatorProcess]:
    """Return what starts a coordinator with impatient workers."""
    add_hook(tmp_path, cluster.environment, IMPATIENT)
    return partial(cluster.coordinate, tweaks=QUICK)


def add_hook(folder: Path, environment: dict[str, str], code: str) -> None:
    """Have every Python that is started from now on run this first."""
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(code, "utf-8")
    environment["PYTHONPATH"] = f"{hooks}{os.pathsep}{environment['PYTHONPATH']}"


def loads(server: Simulated) -> int:
    """Return how often models were to be loaded or unloaded."""
    return sum(requests.get(f"{url}/simulated/requests", timeout=10).json()["preloads"] for url in server.urls)


@pytest.mark.case("C4")
def test_model_that_hangs_is_unloaded_and_loaded_anew_and_answers_what_hung(
    cluster: Cluster, impatient: Callable[..., CoordinatorProcess]
) -> None:
    # given a server whose model hangs at the one prompt that has a short limit, beside three that have a long one
    server = cluster.simulate("--parallel", 4, "--seconds", 0.05)
    config = cluster.configure({server.names[0]: 4}, requests={**LIMITS, "num_predict": 2**16})
    coordinator = impatient(config)
    poison = "[[simulate:stuck*1]] poison"
    short = json.dumps({"prompt": poison, "options": {"num_predict": 8}}).encode() + b"\n"
    coordinator.drop(prompt_lines(prompts(12, "before")) + short + prompt_lines(prompts(8, "after")))

    done = coordinator.published()

    # then all are answered, and nothing was asked more often than that needs
    done.assert_complete(21)
    assert done.errors == []
    asked = server.asked()
    assert asked.pop(ONE_TOKEN) == 1
    assert asked[prompt_key(poison)] == 2
    assert max(asked.values()) == 2
    assert asked.total() <= 21 + 4  # what was in flight when it hung
    assert loads(server) == 3  # loaded, unloaded, loaded
    assert wording("the-model-s-process-hung-while") in coordinator.text()
    assert coordinator.text().count(wording("no-answer-within-the-time-limit")) == 1
    # and each step was said
    text = coordinator.text()
    steps = ("is DOWN: no request gets an answer", "one token is requested", "no token came", "it hung", "is UP again")
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert coordinator.status()["endpoints"][0]["state"] == "UP"


@pytest.mark.case("C4")
def test_hang_that_an_idle_endpoint_showed_is_mended_though_no_limit_was_reached(
    cluster: Cluster, impatient: Callable[..., CoordinatorProcess]
) -> None:
    # given two servers, of which one hangs near the end of a job, and limits far off
    server = cluster.simulate("--parallel", 4, "--seconds", 0.05, count=2)
    limits = {**LIMITS, "num_predict": 2**16}
    coordinator = impatient(cluster.configure(dict.fromkeys(server.names, 4), requests=limits))
    poison = "[[simulate:stuck*1]] poison"
    coordinator.drop([*prompts(40), poison])

    # when the other one answers what hung there
    done = coordinator.published()

    done.assert_complete(41)
    assert done.errors == []
    assert (done.responses[-1]["attempts"], done.responses[-1]["hedged"]) == (1, True)
    assert wording("no-answer-within-the-time-limit") not in coordinator.text()
    # then the one that hangs is found out by a token, and answers again
    wait_until(lambda: "it hung: its model is unloaded" in coordinator.text())
    wait_until(lambda: {item["state"] for item in coordinator.status()["endpoints"]} <= {"UP", "SUSPECT"})
    asked = server.asked()
    assert (asked.pop(ONE_TOKEN), asked[prompt_key(poison)]) == (1, 2)
    assert asked.total() <= 41 + 5
    coordinator.drop(prompts(40, "later"), "later.jsonl")
    coordinator.published("later").assert_complete(40)
    assert all(item["state"] == "UP" for item in coordinator.status()["endpoints"])


@pytest.mark.case("C4")
def test_model_that_is_slow_is_not_unloaded(cluster: Cluster, impatient: Callable[..., CoordinatorProcess]) -> None:
    # given a server of one slot that takes three times as long for one prompt as that may take
    server = cluster.simulate("--parallel", 1, "--seconds", 0.05)
    config = cluster.configure({server.names[0]: 1}, requests={**LIMITS, "request_timeout_seconds": 1})
    coordinator = impatient(config)
    slow = "[[simulate:seconds=3*1]] slow"
    coordinator.drop([*prompts(4, "before"), slow, *prompts(4, "after")])

    done = coordinator.published()

    done.assert_complete(9)
    assert done.errors == []
    asked = server.asked()
    assert (asked.pop(ONE_TOKEN), asked.pop(prompt_key(slow))) == (1, 2)
    assert set(asked.values()) == {1}
    assert wording("it-is-slow-and-does-not") in coordinator.text()
    assert "unloaded" not in coordinator.text()


@pytest.mark.case("C4")
def test_model_that_cannot_be_unloaded_leaves_its_endpoint_at_rest_until_it_can(
    cluster: Cluster, impatient: Callable[..., CoordinatorProcess]
) -> None:
    # given a server whose model hangs, and a request of somebody else in it
    server = cluster.simulate("--parallel", 4, "--seconds", 0.05)
    requests_of = {**LIMITS, "request_timeout_seconds": 1}
    config = cluster.configure({server.names[0]: 4}, requests=requests_of)
    coordinator = impatient(config)
    other = Transport(server.urls[0])
    # it needs the same loaded as obcd's, or each would unload the other's
    options: dict[str, Any] = {"options": {"num_ctx": 8192}, "shift": False}
    messages = [{"role": "user", "content": "[[simulate:stuck*1]] mine"}]
    body = encode_body({"model": "llama3.2", "messages": messages, **options})

    def ask_mine() -> None:
        with contextlib.suppress(AbortedError):
            other.post("/api/chat", body)

    thread = threading.Thread(target=ask_mine)
    thread.start()
    wait_until(lambda: server.asked().total() == 1)
    coordinator.drop(prompts(8))

    def reason() -> str:
        (endpoint,) = coordinator.status()["endpoints"]
        return str(endpoint["reason"]) if endpoint["state"] == "DOWN" else ""

    # then it is said what to do, and tried again with pauses
    wait_until(lambda: "it stays loaded, perhaps because another program uses it" in reason())
    before = server.asked().total()
    wait_until(lambda: "cannot be unloaded" in coordinator.text())  # repeats are logged as a number
    wait_until(lambda: server.asked().total() > before)
    before = server.asked().total()

    # and when that request is gone, it comes back by itself
    other.abort("gone")
    thread.join(60)
    done = coordinator.published()
    done.assert_complete(8)
    assert done.errors == []
    assert server.asked().total() <= before + 8 + 3
    wait_until(lambda: coordinator.status()["endpoints"][0]["state"] == "UP")


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.mark.case("B8")
def test_stopped_worker_is_replaced_and_its_requests_asked_again(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.3, count=2)
    tweaks = {"obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.5}
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=tweaks)
    coordinator.drop(prompts(24))
    first, second = server.names
    pids = wait_until(lambda: coordinator.worker_pids() if {first, second} <= coordinator.worker_pids().keys() else {})
    wait_until(lambda: server.in_flight() == 4)

    os.kill(pids[first], 19)  # SIGSTOP: its own limits (25 minutes here) are not kept by anybody now
    done = coordinator.published()

    done.assert_complete(24)
    assert done.errors == []
    assert max(server.asked().values()) <= 2
    assert sum(server.asked().values()) <= 26
    assert not psutil.pid_exists(pids[first])
    wait_until(lambda: coordinator.worker_pids().get(first, pids[first]) != pids[first])
    assert coordinator.worker_pids()[second] == pids[second]


@pytest.mark.case("B9")
def test_worker_that_dies_at_every_start_is_started_after_growing_pauses_and_the_others_go_on(
    tmp_path: Path, cluster: Cluster
) -> None:
    # given an endpoint whose worker ends as soon as it has started
    server = cluster.simulate("--parallel", 2, "--seconds", 0.05, count=2)
    ill, well = server.names
    starts = tmp_path / "starts"
    add_hook(tmp_path, cluster.environment, DYING.format(name=ill, starts=str(starts)))
    coordinator = cluster.coordinate(cluster.configure(server.names))

    # when there is work
    coordinator.drop(prompts(40))
    done = coordinator.published()

    # then the other endpoint does it
    done.assert_complete(40)
    assert done.errors == []
    assert list(done.manifest["endpoints"]) == [well]
    # and the pauses grow
    wait_until(lambda: len(starts.read_text("utf-8").split()) >= 6)
    times = [float(text) for text in starts.read_text("utf-8").split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(later > 1.3 * earlier for earlier, later in itertools.pairwise(gaps[1:])), gaps

    def is_openai_line() -> bool:
        state = next(item for item in coordinator.status()["endpoints"] if item["name"] == ill)
        return state["state"] == "DOWN" and "its worker ended soon after its start" in state["reason"]

    wait_until(is_openai_line)
    assert len(family(coordinator.pid)) <= 7  # fork server, resource tracker, clerks, workers


#: Makes the worker of one endpoint end at its start, in every process of ours.
DYING = """
import os, time
import obcd.workers.worker as worker
_run_worker = worker.run_worker
def run_worker(sock, spec):
    if spec.endpoint == {name!r}:
        with open({starts!r}, "a") as file:
            file.write(f"{{time.monotonic()}}\\n")
        os._exit(1)
    _run_worker(sock, spec)
worker.run_worker = run_worker
"""
