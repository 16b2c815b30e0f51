"""A real Ray on faked GPUs, on a machine that has nothing else: its own network, processes and /proc.

@on_own_machine
def test_…(tmp_path: Path) -> None:
    with RayMachine(tmp_path, gpus=8) as ray:
        ray.start_head()
        ray.start_node()
        …

`on_own_machine` runs the test again inside namespaces, with pytest; when they end, the kernel ends every process that
was started there. Ray takes 127.0.0.1 as its address there, and reaches no network.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import pytest

from tests.acceptance.shell_blocks import LOOPBACK_UP
from tests.gpu_support import StandIns, cards
from tests.support import (
    NEVER_HEDGED,
    SOURCES,
    CoordinatorProcess,
    Running,
    make_environment,
    obcd_command,
    wait_until,
    write_config,
)

#: Set inside the namespaces.
INSIDE = "OBCD_TEST_OWN_MACHINE"
#: Seconds for Ray to start; the machine may be busy.
START_SECONDS = 120.0
PORT = 26379
#: Seconds between two starts of what has ended.
REVIVE_SECONDS = 3.0
#: Ray's own wait for a head that is away: 60 s.
HEAD_SECONDS = 10
#: Each server is a simulated Ollama; `flock` shows two servers on one card.
OLLAMA = """#!/bin/bash
cd {folder}
exec 9>"card-$CUDA_VISIBLE_DEVICES"
flock --nonblock 9 || echo "$CUDA_VISIBLE_DEVICES $$" >> twice
echo "$CUDA_VISIBLE_DEVICES $$ $OLLAMA_HOST" >> starts
exec {python} -m obcd simulate --load-seconds 0.01 --seconds {seconds} --account account-$$
"""


def own_machine() -> list[str]:
    """Return the words before a command that runs on its own machine."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    spaces = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child", *user]
    return [*spaces, sys.executable, "-c", LOOPBACK_UP]


def why_no_ray() -> str:
    """Return why no Ray can run here on its own machine, or nothing."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed: pip install 'obcd[ray]' (make test-engines does)"
    try:
        done = subprocess.run([*own_machine(), "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unshare (util-linux) is not installed"
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else ""


def on_own_machine(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Run a test inside namespaces, in another pytest; skip it with a sentence where that cannot be."""

    @functools.wraps(test)
    def run(tmp_path: Path) -> None:
        if INSIDE in os.environ:
            test(tmp_path)
            return
        if reason := why_no_ray():
            (pytest.fail if os.environ.get("OBCD_ENGINES") == "required" else pytest.skip)(reason)
        place = f"{sys.modules[test.__module__].__file__}::{test.__name__}"
        words = [
            "-q",
            "-rP",
            "-p",
            "no:cacheprovider",
            "-m",
            "engine or soak",
            "--basetemp",
            str(tmp_path / "inside"),
            place,
        ]
        done = subprocess.run(
            [*own_machine(), sys.executable, "-m", "pytest", *words, place],
            env={**os.environ, INSIDE: "1", "PYTHONPATH": str(SOURCES)}, cwd=SOURCES,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


class RayMachine:
    """Ray and what it needs in one folder; a head without GPUs, and one node with faked ones.

    Args:
        seconds: How long a server takes for a request.
        slots: Of each server.

    Attributes:
        hosts: The hosts folder.
        environment: In which all commands run.
    """

    def __init__(self, folder: Path, *, gpus: int, seconds: float = 0.05, slots: int = 4) -> None:
        self.folder, self._gpus = folder, gpus
        short = Path(tempfile.mkdtemp(prefix="obcd-", dir="/tmp"))  # for sockets: 107 bytes at most
        self.hosts, self.root, self._servers, work = folder / "hosts", folder / "root", folder / "servers", short / "w"
        for made in (self.hosts, self._servers, work):
            made.mkdir(parents=True)
        self.hosts.chmod(0o700)
        self._stand_ins = StandIns(folder / "gpus", cards(gpus))
        program = self._stand_ins.bin / "ollama"
        program.write_text(OLLAMA.format(folder=self._servers, python=sys.executable, seconds=seconds))
        programs = folder / "bin"
        programs.mkdir()
        (programs / "obcd").write_text(f'#!/bin/sh\nexec {sys.executable} -m obcd "$@"\n')
        (programs / "obcd").chmod(0o755)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        base = make_environment(work, TMPDIR=str(work), HOME=str(work), PATH=path)
        self.environment = {
            **self._stand_ins.environment(base),
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_SECONDS),
            "RAY_TMPDIR": str(work), "RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": f"127.0.0.1:{PORT}",
        }  # fmt: skip
        self.config = write_config(
            folder / "obcd.toml", [], cluster={"hosts": str(self.hosts)}, host={"num_parallel": slots}
        )
        self._short = short
        self._started: list[subprocess.Popen[bytes]] = []
        self.head: subprocess.Popen[bytes] | None = None
        self.node: subprocess.Popen[bytes] | None = None
        self.keeper: subprocess.Popen[bytes] | None = None
        self._kept: tuple[object, ...] = ()
        self._running: list[Running] = []
        self._revive_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for running in self._running:
            running.end()
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self._short, ignore_errors=True)
        if kind is not None:
            for path in sorted(self.folder.glob("*.log")):
                print(f"== {path.name}\n{path.read_text('utf-8', 'replace')[-6000:]}")

    def start_head(self) -> None:
        """Start the head, and wait for it. It has no GPU, so that no server is there."""
        self.head = self._start_head()
        wait_until(self._answers, START_SECONDS, "the head answers")

    def _start_head(self) -> subprocess.Popen[bytes]:
        words = ["--head", "--port", str(PORT), "--num-gpus", "0", "--include-dashboard", "false"]
        return self._ray("head", *words, "--temp-dir", str(self._short))

    def start_node(self) -> None:
        """Start the node with the GPUs; Ray gives up after 30 s on a busy machine: then it is started again."""
        self._start_node()
        wait_until(self._is_node_up, START_SECONDS, "the node is up")

    def _is_node_up(self) -> bool:
        assert self.node is not None
        if self.node.poll() is not None:
            self._start_node()
        return "Ray runtime started" in (self.folder / "node.log").read_text()

    def _start_node(self) -> None:
        self.node = self._ray("node", "--address", f"127.0.0.1:{PORT}", "--num-gpus", str(self._gpus))

    def _ray(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        # Ray starts as many workers at once as there are CPUs
        common = ["--node-ip-address", "127.0.0.1", "--num-cpus", "4", "--object-store-memory", "80000000"]
        return self.begin(name, ["ray", "start", *words, *common, "--disable-usage-stats", "--block"])

    def _answers(self) -> bool:
        assert self.head is not None
        assert self.head.poll() is None, (self.folder / "head.log").read_text()
        words = ["ray", "status", "--address", f"127.0.0.1:{PORT}"]
        done = subprocess.run(words, env=self.environment, capture_output=True, check=False, timeout=START_SECONDS)
        return done.returncode == 0

    def begin(self, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command, its output in `NAME.log`, in its own process group."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def keep(self, *words: object) -> subprocess.Popen[bytes]:
        """Start `obcd ray up` with some options."""
        self._kept = words
        options = ["--config", self.config, "--root", self.root, "--cpus", 0, "--memory-gib", 0.01, *words]
        self.keeper = self.begin("keeper", obcd_command("ray", "up", *options))
        return self.keeper

    def coordinate(self, root: Path | None = None, config: Path | None = None) -> CoordinatorProcess:
        """Start a coordinator, by default one that takes its endpoints from the hosts folder."""
        found = CoordinatorProcess(self.environment, root or self.root, config or self.config, NEVER_HEDGED)
        self._running.append(found)
        return found

    def revive(self) -> None:
        """Start head, node and keeper again if they have ended, as their units would: each once in some seconds."""
        now = time.monotonic()
        if now < self._revive_at:
            return
        if self.head is not None and self.head.poll() is not None:
            self.head = self._start_head()
        elif self.node is not None and self.node.poll() is not None:
            self._start_node()
        elif self.keeper is not None and self.keeper.poll() is not None:
            self.keep(*self._kept)
        else:
            return
        self._revive_at = now + REVIVE_SECONDS

    def obcd(self, *words: object, timeout: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command of obcd to its end."""
        return subprocess.run(
            obcd_command(*words), env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False,
            timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def records(self) -> list[dict[str, Any]]:
        """Return the records in the hosts folder that are not gone."""
        found = []
        for path in sorted(self.hosts.glob("*.json")):
            document = json.loads(path.read_bytes())
            if document["state"] != "gone":
                found.append(document)
        return found

    def serving(self) -> dict[str, str]:
        """Return {UUID: URL} of the endpoints in the records."""
        endpoints = [item for record in self.records() if record["state"] == "serving" for item in record["endpoints"]]
        return {item["gpu_uuid"]: item["url"] for item in endpoints}

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the processes whose command line has one of some words."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if process.info["status"] != psutil.STATUS_ZOMBIE and any(word in line for word in words):
                found.append(process)
        return found

    def servers(self) -> list[psutil.Process]:
        """Return the processes of servers and guards."""
        return self.processes("obcd simulate", "obcd.ray.guard", "serve-gpu")

    def kill(self, word: str, choose: Callable[[list[psutil.Process]], psutil.Process]) -> bool:
        """Kill one of the processes whose command line has a word; return whether there was one."""
        found = self.processes(word)
        if found:
            with contextlib.suppress(psutil.NoSuchProcess):
                choose(found).send_signal(signal.SIGKILL)
        return bool(found)

    def cpu_seconds(self) -> float:
        """Return the CPU that the processes of Ray, the keeper, the actors and the guards have used, so far."""
        words = ("/ray/", "ray::", "ray start", "obcd ray up", "obcd.ray.")
        return sum(sum(process.cpu_times()[:2]) for process in self.processes(*words))

    def on_one_card_twice(self) -> str:
        """Return the servers that found another one on their card; "" if there was none."""
        path = self._servers / "twice"
        return path.read_text() if path.exists() else ""

    def account(self, event: str) -> Counter[str]:
        """Return {prompt key: how often that happened to it}, e.g. `arrived` or `answered`."""
        return Counter(item["prompt"] for item in self._account() if item["event"] == event)

    def _account(self) -> Iterator[dict[str, Any]]:
        for path in self._servers.glob("account-*"):
            for line in path.read_bytes().splitlines():
                yield json.loads(line)
