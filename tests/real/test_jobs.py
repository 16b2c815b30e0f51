"""Whole jobs against a real Ollama whose processes are killed, stopped and unloaded: no innocent line fails.

`OBCD_REAL_LINES` sets the lines of each job (40), `OBCD_REAL_POISON` those a server refuses or dies of (2).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.battery import LLAMA_SERVER, numbers
from tests.real.server import CONTEXT, MODEL, PATIENCE, RealOllama, find_program
from tests.support import Cluster, CoordinatorProcess, Published, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(7200)]

LINES = int(os.environ.get("OBCD_REAL_LINES", "40"))
POISON = int(os.environ.get("OBCD_REAL_POISON", "2"))
#: Most seconds of a job: each line may take this long on a busy machine, beside the server's starts.
JOB_SECONDS = 600.0 + 5.0 * LINES
#: A pattern that obcd sends as it is, and what takes its place on the wire: v0.24 dies of it, later versions refuse it.
#: obcd itself sends neither of the two.
HARMLESS, DEADLY, REFUSED = "^[abcde][a-z]q$", "^(?=a)[a-z]{2}$", "[abcde][a-z]qqq"
EXCHANGED = """
import socket
_send = socket.socket.sendall
socket.socket.sendall = lambda sock, data, *rest: _send(sock, bytes(data).replace({old!r}, {new!r}), *rest)
"""

Coordinate = Callable[..., CoordinatorProcess]


@pytest.fixture
def coordinate(cluster: Cluster) -> Coordinate:
    """Return what starts a coordinator for a server."""

    def start(server: RealOllama, slots: int | str) -> CoordinatorProcess:
        requests = {"num_ctx": CONTEXT, "num_predict": 16, "options": {"temperature": 0.0}}
        config = cluster.configure({server.name: slots}, model=MODEL, requests=requests)  # type: ignore[dict-item]
        return cluster.coordinate(config)

    return start


def questions(count: int, begin: int = 0) -> list[dict[str, Any]]:
    """Return prompts of which no two are the same."""
    return [{"id": number, "prompt": f"Tell me one fact about the number {number}."} for number in range(begin, count)]


def drop(coordinator: CoordinatorProcess, lines: list[dict[str, Any]], name: str = "notes") -> None:
    coordinator.drop(b"".join(json.dumps(line).encode() + b"\n" for line in lines), f"{name}.jsonl")


def done_lines(coordinator: CoordinatorProcess) -> int:
    """Return how many lines of the job have a result."""
    return sum(job["done"] for job in coordinator.status()["jobs"])


def wait_for(coordinator: CoordinatorProcess, share: float) -> None:
    """Wait until a share of the lines has a result."""
    wait_until(lambda: done_lines(coordinator) >= share * LINES, JOB_SECONDS, coordinator.text)


def assert_all_answered(done: Published, table: list[str], server: RealOllama, what: str) -> None:
    failed = [(error["line"], error["class"], error["message"]) for error in done.errors]
    seconds = done.manifest["times"]["span_seconds"]
    table.append(f"{server.version()}  job: {what:52} {LINES} lines, {len(failed)} failed, {seconds:.0f} s")
    assert failed == []
    done.assert_complete(LINES)


def test_kill_of_the_server_costs_no_line(ollama_folder: Path, coordinate: Coordinate, table: list[str]) -> None:
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="4") as server:
        server.keep_alive()
        coordinator = coordinate(server, 4)
        drop(coordinator, questions(LINES))
        for share in (0.1, 0.4, 0.7):
            wait_for(coordinator, share)
            server.kill()

        done = coordinator.published(timeout=JOB_SECONDS)

        assert_all_answered(done, table, server, f"kill -9 of the server, {server.revived} times")


def test_kill_of_the_runner_costs_no_line(ollama_folder: Path, coordinate: Coordinate, table: list[str]) -> None:
    killed = 0
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="2") as server:
        coordinator = coordinate(server, 4)  # two of them wait for a slot when the runner dies
        drop(coordinator, questions(LINES))
        for share in (0.1, 0.4, 0.7):
            wait_for(coordinator, share)
            killed += server.kill_runners()

        done = coordinator.published(timeout=JOB_SECONDS)

        assert killed >= 3
        assert_all_answered(done, table, server, f"kill -9 of the runner, {killed} times")


def test_stopped_runner_costs_no_line(ollama_folder: Path, coordinate: Coordinate, table: list[str]) -> None:
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="4") as server:
        coordinator = coordinate(server, 4)
        drop(coordinator, questions(LINES))
        wait_for(coordinator, 0.3)
        assert server.kill_runners(signal.SIGSTOP)

        done = coordinator.published(timeout=JOB_SECONDS)

        assert_all_answered(done, table, server, "SIGSTOP of the runner")


def test_unload_costs_no_line(ollama_folder: Path, coordinate: Coordinate, table: list[str]) -> None:
    program = find_program()
    assert program is not None
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="4") as server:
        coordinator = coordinate(server, 4)
        drop(coordinator, questions(LINES))
        for share in (0.1, 0.4, 0.7):
            wait_for(coordinator, share)
            own = {**os.environ, "OLLAMA_HOST": server.name, "HOME": str(ollama_folder / "home")}
            subprocess.run([program, "stop", MODEL], env=own, check=True, timeout=PATIENCE, capture_output=True)

        done = coordinator.published(timeout=JOB_SECONDS)

        assert_all_answered(done, table, server, "ollama stop, 3 times")


class OtherClient(threading.Thread):
    """Another client, which needs the model with another context: each request makes the server load it again."""

    def __init__(self, server: RealOllama) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._is_over = threading.Event()
        #: {status: how often}
        self.statuses: dict[int, int] = {}

    def __enter__(self) -> OtherClient:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self.join(PATIENCE)

    def run(self) -> None:
        """Send one request a second."""
        body = {"model": MODEL, "options": {"num_ctx": 2 * CONTEXT}}
        while not self._is_over.wait(1.0):
            status, _ = self._server.post("/api/chat", body)
            self.statuses[status] = self.statuses.get(status, 0) + 1


def test_full_queue_costs_no_line(ollama_folder: Path, coordinate: Coordinate, table: list[str]) -> None:
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="2", OLLAMA_MAX_QUEUE="1") as server:
        coordinator = coordinate(server, 4)
        with OtherClient(server) as other:
            drop(coordinator, questions(LINES))
            wait_for(coordinator, 0.6)
        done = coordinator.published(timeout=JOB_SECONDS)

        busy = server.log.read_text("utf-8", "replace").count("| 503 |")
        assert_all_answered(done, table, server, f"MAX_QUEUE=1, another client; {busy} times busy, {other.statuses}")


def test_poison_fails_alone(
    ollama_folder: Path, cluster: Cluster, coordinate: Coordinate, tmp_path: Path, table: list[str]
) -> None:
    lines = questions(LINES)
    poison = {(number + 1) * LINES // (POISON + 1) for number in range(POISON)}
    for number in poison:
        lines[number]["format"] = {"type": "object", "properties": {"code": {"type": "string", "pattern": HARMLESS}}}
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="4") as server:
        server.keep_alive()
        harmful = DEADLY if numbers(server.version()) < LLAMA_SERVER else REFUSED
        script = EXCHANGED.format(old=HARMLESS.encode(), new=harmful.encode())
        (tmp_path / "sitecustomize.py").write_text(script, "utf-8")
        cluster.environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{cluster.environment['PYTHONPATH']}"
        coordinator = coordinate(server, 4)
        drop(coordinator, lines)

        done = coordinator.published(timeout=JOB_SECONDS)

        failed = {error["id"]: error["class"] for error in done.errors}
        innocents = set(failed) - poison
        seconds = done.manifest["times"]["span_seconds"]
        found = sorted(failed[number] for number in poison & set(failed))
        table.append(
            f"{server.version()}  job: {POISON} poison lines among {LINES}: {len(innocents)} innocents failed, "
            f"poison {found}, {server.revived} deaths, {seconds:.0f} s"
        )
        assert set(failed) == poison
        done.assert_complete(LINES)
        assert server.revived <= 3 * POISON


@pytest.mark.parametrize("parallel", [1, 4, 8])
def test_slots_are_found(parallel: int, ollama_folder: Path, coordinate: Coordinate, table: list[str]) -> None:
    count = max(60, LINES)
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL=str(parallel)) as server:
        coordinator = coordinate(server, "auto")
        drop(coordinator, questions(count))
        history = []
        for least in (20, 40, count):
            wait_until(lambda least=least: done_lines(coordinator) >= least or is_over(coordinator), JOB_SECONDS)  # type: ignore[misc]
            history.append(coordinator.status()["endpoints"][0]["slots"])
        coordinator.published(timeout=JOB_SECONDS)

        found = history[1]
        table.append(
            f"{server.version()}  slots found at NUM_PARALLEL={parallel} after 20, 40, {count} answers: {history}"
        )
        assert abs(found - parallel) <= 1, history


def is_over(coordinator: CoordinatorProcess) -> bool:
    """Return whether the job is published."""
    return (coordinator.outbox / "notes" / "manifest.json").exists()


#: Rounds of pairs that are measured; 0 leaves the measurement out.
PAIRS = int(os.environ.get("OBCD_REAL_PAIRS", "0"))


@pytest.mark.skipif(
    not PAIRS, reason="OBCD_REAL_PAIRS=N measures throughput in N pairs, on a machine that does nothing else"
)
@pytest.mark.parametrize("parallel", [1, 4, 8])
def test_throughput_beside_the_best_fixed_client(
    parallel: int, ollama_folder: Path, coordinate: Coordinate, table: list[str]
) -> None:
    """Answer the same prompts by obcd and by plain clients of fixed concurrency, one after the other, N times."""
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL=str(parallel)) as server:
        coordinator = coordinate(server, "auto")
        drop(coordinator, questions(LINES), "warm")
        coordinator.published("warm", JOB_SECONDS)
        ratios = []
        for turn in range(PAIRS):
            begin = 1000 * (turn + 1)
            texts = [line["prompt"] for line in questions(begin + LINES, begin)]
            drop(coordinator, questions(begin + LINES, begin), f"round{turn}")
            done = coordinator.published(f"round{turn}", JOB_SECONDS)
            done.assert_complete(len(texts))
            ours = done.manifest["times"]["span_seconds"]
            fixed = {count: plain_seconds(server, texts, count) for count in sorted({parallel, parallel + 1})}
            ratios.append(min(fixed.values()) / ours)
            table.append(
                f"{server.version()}  NUM_PARALLEL={parallel} round {turn}: obcd {ours:.1f} s, fixed "
                + ", ".join(f"{count}: {seconds:.1f} s" for count, seconds in fixed.items())
            )
        median = sorted(ratios)[len(ratios) // 2]
        table.append(f"{server.version()}  NUM_PARALLEL={parallel}: throughput over the best fixed {median:.3f}")


def plain_seconds(server: RealOllama, texts: list[str], count: int) -> float:
    """Return the seconds of a plain client with so many requests in flight."""
    waiting: Iterator[str] = iter(texts)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                text = next(waiting, None)
            if text is None:
                return
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": text}],
                "stream": False,
                "truncate": False,
                "shift": False,  # as obcd sends it: another value makes some versions load the model again
                "options": {"num_ctx": CONTEXT, "num_predict": 16, "temperature": 0.0},
            }
            status, raw = server.post("/api/chat", body)
            assert status == 200, raw

    workers = [threading.Thread(target=work) for _ in range(count)]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.monotonic() - began
