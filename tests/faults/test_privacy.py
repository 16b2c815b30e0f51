"""Prompts and answers are in the spool and nowhere else, whatever goes wrong: one run over all that can.

The prompts hold one secret word, the answers another, and servers repeat what they were asked in their errors.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import pytest

from obcd.standins.simulated.faults import KINDS
from tests.faults.strange import Script, answer, strange, whole
from tests.support import (
    Cluster,
    CoordinatorProcess,
    family,
    prompt_lines,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration

#: The first is in every prompt, the second in every answer and error of a server.
ASKED, ANSWERED = "zanzibar-asked", "timbuktu-answered"
QUICK = {
    "obcd.core.endpoint.health:ENDPOINT_LIMIT": 0.2, "obcd.core.endpoint.health:ENDPOINT_BASE": 0.1,
    "obcd.core.scheduling.attempt_count:REQUEST_BASE": 0.05,
    "obcd.coordinator.endpoints.control_calls:PROBE_SOON": 0.05,
    "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3,
    "obcd.coordinator.jobs.progress_folders:PROGRESS_SECONDS": 0.2,
}  # fmt: skip
#: Those that end with the request, so that no look at the server takes its half minute.
PLAYED = [kind for kind in KINDS if kind != "stuck"]
VALUES = {"status": "=500", "huge": "=70000000", "seconds": "=0.1"}


def echo(status: int, text: str) -> bytes:
    """Return an error that repeats what was asked, as proxies and llama-server do."""
    return whole(json.dumps({"error": f"{text} {ASKED} {ANSWERED}"}).encode(), status=f"{status} Of Some Kind")


#: {word in the prompt: what comes}; every kind of error quotes
SCRIPTS: dict[str, Script] = {
    **{f"status {status}": echo(status, f"bad {status}") for status in (400, 401, 403, 404, 413, 429, 500, 502, 503)},
    "schema": echo(400, "JSON schema conversion failed"),
    "context": echo(400, "request (9000 tokens) exceeds the available context size (8192 tokens)"),
    "crashed": echo(500, "an error was encountered while running the model: unexpected EOF"),
    "load": echo(500, "llama-server process has terminated: exit status 2"),
    "header": whole(b"", f"Location: http://127.0.0.1:9/{ANSWERED}\r\nRetry-After: {ANSWERED}\r\n", "307 Moved"),
    "reason": f"HTTP/1.1 500 {ASKED}\r\nContent-Length: 0\r\n\r\n".encode(),
    "start": f"HTTP/{ANSWERED}\r\n\r\n".encode(),
    "chunk": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ANSWERED}\r\n".encode(),
    "field": whole(answer(ANSWERED, done_reason=ANSWERED)),
    "counter": whole(answer(ANSWERED, eval_count=ANSWERED)),
    "text": whole(ANSWERED.encode()),
    "error": whole(json.dumps({"error": ANSWERED}).encode()),
}
#: Lines that cannot be asked, each with the word where its reader stumbles.
BAD_LINES = [
    f"{ASKED}",
    f'{{"prompt": "{ASKED}"',
    f'{{"prompt": "{ASKED}", "options": {{"heat": "{ASKED}"}}}}',
    f'{{"prompt": "{ASKED}", "options": {{"num_predict": "{ASKED}"}}}}',
    f'{{"prompt": "{ASKED}", "think": "{ASKED}"}}',
    f'{{"prompt": ["{ASKED}"]}}',
    f'{{"prompt": "{ASKED}", "prompt": "{ASKED}"}}',
    f'{{"messages": [{{"role": "{ASKED}", "content": "{ASKED}"}}]}}',
    f'{{"prompt": "{ASKED}", "images": ["{ASKED}"]}}',
    f'{{"prompt": "{ASKED}", "format": "{ASKED}"}}',
    f'["{ASKED}"]',
    f'"{ASKED}"',
    f'{{"prompt": "{ASKED}\x01"}}',
    f'{{"prompt": "{ASKED}"}} {{"prompt": "{ASKED}"}}',
]
NAMES = ["bad\nname.jsonl", "\x1b[31mred.jsonl", "\u202etxt.jsonl", "-rf.jsonl", "a b.jsonl", "%s{}.jsonl"]


class Watcher(threading.Thread):
    """Reads what a coordinator shows, again and again, and keeps the names of what held a secret."""

    def __init__(self, coordinator: CoordinatorProcess) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.seen: set[str] = set()
        self._coordinator = coordinator
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.05):
            self.look()

    def stop(self) -> None:
        self._is_over.set()
        self.join()
        self.look()

    def look(self) -> None:
        coordinator = self._coordinator
        places = [*coordinator.outbox.glob("*/progress.json"), *coordinator.outbox.glob("*/why.txt")]
        places += Path(coordinator.environment["XDG_RUNTIME_DIR"]).glob("obcd-*/status.json")
        for pid in [coordinator.pid, *family(coordinator.pid)]:
            places += [Path(f"/proc/{pid}/cmdline"), Path(f"/proc/{pid}/environ")]
            self._look_at_limits(pid)
        for place in places:
            try:
                text = place.read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            self.seen.add(place.name)
            if ASKED in text or ANSWERED in text:
                self.found.add(str(place))

    def _look_at_limits(self, pid: int) -> None:
        """Find a process that would leave a dump; that of a process which just ended cannot be read."""
        try:
            text = Path(f"/proc/{pid}/limits").read_text("utf-8")
            mask = Path(f"/proc/{pid}/coredump_filter").read_text("utf-8")
        except OSError:
            return
        self.seen.add("limits")
        (line,) = (line for line in text.splitlines() if line.startswith("Max core file size"))
        if line.split()[4:6] != ["0", "0"] or (mask.strip() and int(mask, 16)):
            self.found.add(f"core limit of {pid}")


@pytest.mark.case("F17", "F21")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_prompt_and_no_answer_is_shown_whatever_goes_wrong(cluster: Cluster) -> None:
    # given servers that fail in every way that is known, and one that repeats what it is asked
    server = cluster.simulate("--parallel", 4, "--seconds", 0.02, count=2)
    requests = {"attempts": 2, "request_timeout_seconds": 1.5, "load_timeout_seconds": 5}
    with strange(SCRIPTS, text=ANSWERED) as odd:
        config = cluster.configure({**dict.fromkeys(server.names, 4), odd.name: 4}, requests=requests,
            spool={"incomplete_hold_seconds": 0.5},
        )  # fmt: skip
        coordinator = cluster.coordinate(config, tweaks=QUICK, options=("--verbose",))
        watcher = Watcher(coordinator)
        watcher.start()

        # when a job holds them all, beside files of every bad kind
        kinds = [f"[[simulate:{kind}{VALUES.get(kind, '')}]] {ASKED} {kind}" for kind in PLAYED]
        content = prompt_lines([*kinds, *(f"{ASKED} {word}" for word in SCRIPTS for _ in range(3))])
        coordinator.drop(content + "\n".join(BAD_LINES).encode() + b"\n", "all.jsonl")
        coordinator.drop(prompt_lines([ASKED]) + f'{{"prompt": "{ASKED}'.encode(), "torn.jsonl")
        coordinator.drop(f"{ASKED}\x00\x01\n".encode() * 3, "binary.jsonl")
        coordinator.drop(f"{ASKED}\n".encode("utf-16"), "wide.jsonl")
        for name in NAMES:
            coordinator.drop(prompt_lines([ASKED]), name)
        worker = coordinator.worker_pids().get(server.names[0])
        if worker:
            os.kill(worker, 9)
        done = coordinator.published("all")
        wait_until((coordinator.outbox / "torn.rejected" / "manifest.json").exists)
        wait_until(lambda: len(list(coordinator.outbox.glob("*/manifest.json"))) >= 3)
        watcher.stop()

        # then every line has its result, and the words are in no place but those of the submitter
        lines = len(PLAYED) + 3 * len(SCRIPTS) + len(BAD_LINES)
        done.assert_complete(lines)
        assert watcher.seen >= {"cmdline", "environ", "status.json", "progress.json", "why.txt", "limits"}
        assert watcher.found == set()
        log = coordinator.text()
        assert ASKED not in log
        assert ANSWERED not in log
        assert "DEBUG" in log or "INFO" in log
        for manifest in coordinator.outbox.glob("*/manifest.json"):
            text = manifest.read_text("utf-8")
            assert ASKED not in text, manifest
            assert ANSWERED not in text, manifest
        # Also where the submitter alone reads, a message quotes nothing.
        assert done.errors
        assert [item for item in done.errors if ASKED in item["message"] or ANSWERED in item["message"]] == []
        coordinator.end()


@pytest.mark.case("F17")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("command", ["batch", "up"])
def test_processes_of_other_commands_leave_no_core_dump_either(command: str, tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 3, "--parallel", 2)
    config = cluster.configure(server.names)
    (tmp_path / "p.jsonl").write_bytes(prompt_lines(["a", "b"]))
    options: dict[str, tuple[object, ...]] = {
        "batch": ("--prompts", tmp_path / "p.jsonl", "--output-dir", tmp_path / "out"),
        "up": ("--root", tmp_path / "root"),
    }
    running = cluster.begin(command, "--config", config, *options[command])
    wait_until(lambda: len(family(running.pid)) >= 3)

    limits = [Path(f"/proc/{pid}/limits").read_text("utf-8") for pid in [running.pid, *family(running.pid)]]

    for text in limits:
        (line,) = (line for line in text.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]


@pytest.mark.case("F19")
@pytest.mark.parametrize("command", ["coordinator", "reload", "check", "batch"])
def test_endpoint_at_a_public_address_is_warned_of(command: str, tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.02)
    public = "0.0.0.0:9"  # asked in vain, on this machine only: no test asks a public address
    config = cluster.configure([*server.names, public] if command != "reload" else server.names)
    (tmp_path / "p.jsonl").write_bytes(prompt_lines(["a"]))
    warning = "0.0.0.0 means every address of a machine"

    if command in ("coordinator", "reload"):
        coordinator = cluster.coordinate(config)
        if command == "reload":
            assert warning not in coordinator.text()
            write_config(config, [*server.names, public])
            coordinator.obcd("reload")
        wait_until(lambda: warning in coordinator.text())
        return
    options: dict[str, tuple[object, ...]] = {
        "batch": ("--prompts", tmp_path / "p.jsonl", "--output-dir", tmp_path / "out"),
        "check": ("--root", tmp_path / "root"),
    }
    done = run_obcd(cluster.environment, command, "--config", config, *options[command])
    assert warning in done.stdout + done.stderr
