"""The commands as people call them: help, exit codes, and a whole `obcd up` under a real supervisord."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.golden.wording import wording
from tests.support import (
    Cluster,
    Published,
    Running,
    all_gone,
    family,
    obcd_command,
    prompt_lines,
    run_here,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.acceptance

#: {command: options that its help has to list}
OPTIONS = {
    "batch": ["--config", "--prompts", "--output-dir", "--profile", "--files", "--again", "--verbose"],
    "submit": [
        "--from",
        "--profile",
        "--name",
        "--once",
        "--lock",
        "--wait",
        "--timeout",
        "--quiet",
        "--config",
        "--root",
    ],
    "status": ["--json", "--watch", "--config", "--root"],
    "up": ["--embedded", "--simulate", "--servers", "--parallel", "--threads", "--model-name", "--config", "--root"],
    "coordinator": ["--config", "--root", "--verbose"],
    "check": ["--json", "--keys", "--config", "--root"],
    "verify": ["--json"],
    "bench": ["--model", "--prompts", "--slots", "--max", "--requests", "--seconds", "--out", "--json", "--config"],
    "burn-in": ["--minutes", "--seconds", "--model", "--prompts", "--slots", "--json", "--config"],
    "simulate": ["--count", "--port", "--parallel", "--seconds", "--fault", "--models"],
    "embedded": ["--model", "--name", "--port", "--parallel", "--threads"],
}


# --- help and usage --------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_the_exit_codes(environment: dict[str, str]) -> None:
    done = run_obcd(environment, "--help")

    assert done.returncode == 0
    for name in OPTIONS:
        assert re.search(rf"(?m)^  {name} ", done.stdout), name
    for code in ("0 done", "3 some lines failed", "4 configuration", "5 input", "6 no endpoint", "7 already running"):
        assert code in done.stdout


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_lists_its_options_and_an_example(environment: dict[str, str], command: str) -> None:
    done = run_here(environment, command, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    for option in OPTIONS[command]:
        assert option in done.stdout
    assert "Example" in done.stdout
    assert f"obcd {command}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["nonsense"],
        ["batch"],
        ["submit"],
        ["submit", "--timeout", "-1", "x.jsonl"],
        ["up", "--simulate", "--embedded", "x.gguf"],
        ["up", "--simulate", "--servers", "0"],
        ["bench", "--slots", "1,x"],
        ["bench", "--slots", "1", "--max", "4"],
        ["burn-in"],
        ["burn-in", "--seconds", "1", "--minutes", "1"],
    ],
)
def test_wrong_command_line_is_exit_code_two(environment: dict[str, str], arguments: list[str]) -> None:
    done = run_here(environment, *arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_list_of_commands_imports_none_of_them() -> None:
    listed = "print([name for name in sys.modules if name.startswith('obcd')])"
    code = f"import sys; from obcd.cli.main import run; run(['--help']); {listed}"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert set(ast.literal_eval(printed.splitlines()[-1])) == {
        "obcd", "obcd.cli", "obcd.cli.main", "obcd.errors", "obcd.text"
    }  # fmt: skip


def test_version_is_told(environment: dict[str, str]) -> None:
    assert re.fullmatch(wording("obcd-version-d-d-d-s"), run_obcd(environment, "--version").stdout)


# --- exit codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["coordinator"], ["status"], ["check"], ["submit", "x.jsonl"], ["up"]])
def test_configuration_that_is_wrong_is_exit_code_four(
    environment: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    config = tmp_path / "obcd.toml"
    config.write_text("[spool]\nsettle_seconds = -1\ncolour = 1\n", "utf-8")

    done = run_obcd(environment, *command, "--config", config, "--root", tmp_path / "root")

    assert done.returncode == 4
    assert "settle_seconds" in done.stderr
    assert "colour" in done.stderr
    assert not (tmp_path / "root").exists()


def test_check_tells_what_serves_and_what_lacks(cluster: Cluster) -> None:
    server, gone = cluster.simulate(), cluster.simulate()
    gone.kill()
    config = cluster.configure(server.names)

    good = run_obcd(cluster.environment, "check", "--config", config)
    assert good.returncode == 0
    assert "configuration" in good.stdout
    assert wording("a-stand-in-not-ollama") in good.stdout

    some = run_obcd(
        cluster.environment, "check", "--config", write_config(config, [*server.names, *gone.names]), "--json"
    )
    assert some.returncode == 3
    findings = json.loads(some.stdout)["endpoints"]
    assert [bool(item["failure"]) for item in findings] == [False, True]

    none = run_obcd(cluster.environment, "check", "--config", write_config(config, gone.names))
    assert none.returncode == 6
    assert "connection refused" in none.stdout

    lacking = run_obcd(cluster.environment, "check", "--config", write_config(config, server.names, model="phi4"))
    assert lacking.returncode == 6
    assert "ollama pull phi4" in lacking.stdout


def test_check_lists_every_key(environment: dict[str, str]) -> None:
    done = run_here(environment, "check", "--keys")

    assert done.returncode == 0
    for key in ("settle_seconds = 5.0", "num_ctx = 8192", "[ollama_instances]", "[profiles.NAME]", "schema"):
        assert key in done.stdout


def test_submit_without_a_spool_is_exit_code_five(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(prompt_lines(["a"]))

    done = run_obcd(environment, "submit", tmp_path / "x.jsonl", "--root", tmp_path / "nowhere")

    assert done.returncode == 5
    assert wording("there-is-no-inbox") in done.stderr


# --- up --------------------------------------------------------------------------------------------------------------


class Up(Running):
    """`obcd up --simulate` in a folder."""

    def __init__(self, environment: dict[str, str], root: Path) -> None:
        self.root = root
        config = write_config(root.with_suffix(".toml"), ["127.0.0.1:9"])
        arguments = ("--simulate", "--servers", 2, "--parallel", 2, "--config", config, "--root", root)
        tied = {**environment, "OBCD_DIE_WITH_PARENT": "1"}
        super().__init__(obcd_command("up", *arguments), tied, root.with_suffix(".log"))
        self.status_files = Path(environment["XDG_RUNTIME_DIR"])
        wait_until(self.is_up, what=self.logs)

    def logs(self) -> str:
        return "\n".join([self.text(), *(path.read_text("utf-8") for path in (self.root / "logs").glob("*.log"))])

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.logs()
        for path in self.status_files.glob("obcd-*/status.json"):
            states = [item["state"] for item in json.loads(path.read_bytes())["endpoints"]]
            return states == ["UP", "UP"]
        return False

    def ports(self) -> list[int]:
        return [int(port) for port in re.findall(r"endpoint http://127\.0\.0\.1:(\d+)", self.text())]

    def coordinator_pid(self) -> int:
        """Return the process that wrote the status file, 0 while there is none."""
        return next(
            (int(json.loads(path.read_bytes())["pid"]) for path in self.status_files.glob("obcd-*/status.json")), 0
        )


@pytest.fixture
def up(environment: dict[str, str], tmp_path: Path, started: list[Running]) -> Up:
    process = Up(environment, tmp_path / "root")
    started.append(process)
    return process


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_over(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def assert_nothing_is_left(up: Up, children: list[int], ports: list[int]) -> None:
    wait_until(partial(all_gone, children), what="all processes of obcd up end")
    assert not any(map(is_listening, ports))


def test_drop_into_what_up_started_is_answered(up: Up, environment: dict[str, str]) -> None:
    (up.root / "inbox" / "notes.jsonl").write_bytes(prompt_lines(["one", "two", "three"]))

    wait_until((up.root / "outbox" / "notes" / "manifest.json").exists, what=up.logs)

    done = Published(up.root / "outbox" / "notes")
    done.assert_complete(3)
    assert run_obcd(environment, "status", "--root", up.root).returncode == 0
    assert len(up.ports()) == 2
    names = sorted(os.listdir(up.root / "logs"))
    assert names == ["coordinator.log", "server0.log", "server1.log", "supervisord.log"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_signal_ends_everything_the_coordinator_first(up: Up, number: signal.Signals) -> None:
    children, ports = family(up.pid), up.ports()
    assert len(children) >= 5  # two servers, the coordinator, its fork server and its workers
    assert all(map(is_listening, ports))
    coordinator = psutil.Process(up.coordinator_pid())
    up.send(number)
    while up.process.poll() is None:
        is_served = all(map(is_listening, ports))
        assert is_served or is_over(coordinator)

    assert up.wait() == 0
    assert_nothing_is_left(up, children, ports)
    assert "Traceback" not in up.logs()


def test_killed_supervisord_takes_everything_with_it(up: Up) -> None:
    children, ports = family(up.pid), up.ports()
    (up.root / "inbox" / "notes.jsonl").write_bytes(prompt_lines(["[[simulate:hang]] a"]))
    wait_until(lambda: list((up.root / "jobs").glob("*/job.json")))

    up.kill()

    assert_nothing_is_left(up, children, ports)


def test_killed_coordinator_and_server_are_started_again(up: Up) -> None:
    pid = up.coordinator_pid()
    psutil.Process(pid).kill()
    wait_until(lambda: up.coordinator_pid() != pid and up.is_up())
    assert re.search(r"WARN exited: coordinator \(terminated by SIGKILL", up.text()), "it is told where one looks"
    assert "running as root" not in up.text()
    (server,) = (
        child for child in psutil.Process(up.pid).children() if str(up.ports()[0]) in " ".join(child.cmdline())
    )
    server.kill()
    (up.root / "inbox" / "notes.jsonl").write_bytes(prompt_lines([f"prompt {number}" for number in range(20)]))

    wait_until((up.root / "outbox" / "notes" / "manifest.json").exists, what=up.logs)

    done = Published(up.root / "outbox" / "notes")
    done.assert_complete(20)
    assert done.errors == []
    wait_until(up.is_up, what=up.logs)


def test_second_up_on_the_same_root_is_refused_and_harms_nothing(up: Up, environment: dict[str, str]) -> None:
    written = sorted(path for path in up.status_files.glob("obcd-*/*") if path.name != "status.json")
    before = {path: path.stat().st_mtime_ns for path in written if path.name in ("supervisord.conf", "obcd.toml")}

    second = run_obcd(environment, "up", "--simulate", "--root", up.root)

    assert second.returncode == 7
    assert wording("another-coordinator-pid-runs-on", up.coordinator_pid()) in second.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert up.is_up()


def test_up_over_configured_endpoints_starts_no_server(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.02)
    config = cluster.configure(server.names)
    root = tmp_path / "root"
    process = cluster.begin("up", "--config", config, "--root", root)
    wait_until((root / "logs" / "coordinator.log").exists)
    (root / "inbox" / "notes.jsonl").write_bytes(prompt_lines(["a"]))

    wait_until((root / "outbox" / "notes" / "manifest.json").exists)

    assert len(psutil.Process(process.pid).children()) == 1
    children = family(process.pid)
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    wait_until(partial(all_gone, children))


def test_coordinator_without_a_usable_root_is_exit_code_five(tmp_path: Path, cluster: Cluster) -> None:
    config = cluster.configure(["127.0.0.1:9"])
    (tmp_path / "root").write_text("a file", "utf-8")

    process = cluster.coordinate(config, is_awaited=False)

    assert process.wait() == 5
    assert wording("is-not-a-folder-take-it") in process.text()
