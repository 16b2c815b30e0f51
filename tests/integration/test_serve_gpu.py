"""`obcd serve-gpu` with processes: what is ended and what is not, who holds a port, what a pull holds up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest
import requests

from obcd.cli.host.common import _shared
from obcd.errors import AlreadyRunningError, ConfigurationError, ExitCode
from obcd.host.servers import leftovers
from obcd.host.servers.launcher import Launch, check_port
from obcd.host.servers.leftovers import end_leftovers, neighbours, slot
from obcd.host.servers.plan import HostPlan, Server, write_plan
from tests.golden.wording import wording
from tests.gpu_support import StandIns, card_uuid, cards
from tests.support import Running, is_gone, make_environment, obcd_command, run_obcd, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="obcd host is for Linux"),
]


@dataclass
class Rig:
    """A host of two cards and a plan for it."""

    stand_ins: StandIns
    environment: dict[str, str]
    runtime: Path
    plan: HostPlan
    started: list[Running] = field(default_factory=list)

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.plan.servers]

    def start(self, label: str, **changes: str) -> Running:
        """Start a server as supervisor does."""
        command = obcd_command("serve-gpu", label, "--plan", self.runtime / "plan.json")
        process = Running(command, {**self.environment, **changes}, self.runtime / f"log-{len(self.started)}")
        self.started.append(process)
        return process

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `obcd serve-gpu` to its end; it waits for a port only briefly."""
        tweaks = {"obcd.host.servers.launcher:PORT_SECONDS": 0.2}
        return run_obcd(self.environment, "serve-gpu", *arguments, tweaks=tweaks)

    def serve(self, label: str = "0") -> Running:
        """Start a server and wait until it answers."""
        process = self.start(label)
        self.wait_for(process, self.ports[int(label)])
        return process

    def wait_for(self, process: Running, port: int) -> None:
        def answers() -> bool:
            assert process.process.poll() is None, process.text()
            with contextlib.suppress(requests.ConnectionError):
                return self.stand_ins.pid(port) == process.pid and bool(
                    requests.get(f"http://127.0.0.1:{port}/api/version", timeout=5).json()
                )
            return False

        wait_until(answers, what=process.text)


@pytest.fixture
def rig(tmp_path: Path, runtime: Path) -> Iterator[Rig]:
    stand_ins = StandIns(tmp_path / "stand-ins", cards(2))
    plan = make_plan(stand_ins, free_ports(2))
    write_plan(plan, runtime)
    made = Rig(stand_ins, stand_ins.environment(make_environment(runtime)), runtime, plan)
    yield made
    for process in made.started:
        process.end()
    stand_ins.end()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in found:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in found]


def make_plan(stand_ins: StandIns, ports: list[int]) -> HostPlan:
    servers = tuple(
        Server(
            label=str(index),
            pin=card_uuid(index),
            gpu=index,
            card="",
            memory_bytes=0,
            port=port,
            variables={
                "CUDA_VISIBLE_DEVICES": card_uuid(index),
                "OLLAMA_HOST": f"127.0.0.1:{port}",
                "GREETING": 'it\'s 100% $HOME; "here"',
            },
        )
        for index, port in enumerate(ports)
    )
    ollama = str(stand_ins.bin / "ollama")
    return HostPlan(bind="127.0.0.1", name="127.0.0.1", vendor="nvidia", ollama=ollama, parallel=16, servers=servers)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return what starts a process that sleeps, with some variables, and does not heed TERM if so told."""
    made: list[subprocess.Popen[bytes]] = []

    def start(environment: Mapping[str, str], *, is_stubborn: bool = False) -> subprocess.Popen[bytes]:
        ready = tmp_path / f"ready-{len(made)}"
        number = "signal.SIG_IGN" if is_stubborn else "signal.SIG_DFL"
        script = (
            f"import pathlib, signal, time; signal.signal(signal.SIGTERM, {number}); "
            f"pathlib.Path({str(ready)!r}).touch(); signal.alarm(120); time.sleep(120)"
        )
        process = subprocess.Popen([sys.executable, "-IS", "-c", script], env=dict(environment))
        made.append(process)
        wait_until(ready.exists)
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()


def test_it_becomes_ollama_with_the_environment_of_the_plan(rig: Rig) -> None:
    process = rig.start("1", OLLAMA_LLM_LIBRARY="cpu", SUPERVISOR_ENABLED="1", NOTIFY_SOCKET="/run/x", LISTEN_FDS="1")
    rig.wait_for(process, rig.ports[1])

    found = rig.stand_ins.recorded(rig.ports[1])

    assert rig.stand_ins.pid(rig.ports[1]) == process.pid
    assert rig.plan.servers[1].variables.items() <= found.items()
    assert found["OBCD_SLOT"] == f"{rig.runtime}:1"
    assert found["STANDIN_FOLDER"] == str(rig.stand_ins.folder)
    assert not found.keys() & {"OLLAMA_LLM_LIBRARY", "SUPERVISOR_ENABLED", "NOTIFY_SOCKET", "LISTEN_FDS"}


def test_signals_reach_ollama_as_if_python_had_never_been(rig: Rig) -> None:
    words = obcd_command("serve-gpu", "0", "--plan", rig.runtime)
    ignoring = ["sh", "-c", f"trap '' USR1 INT; exec {shlex.join(words)}"]
    process = Running(ignoring, rig.environment, rig.runtime / "log")
    rig.started.append(process)
    rig.wait_for(process, rig.ports[0])

    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    runner = rig.stand_ins.runner(rig.ports[0])
    process.send(signal.SIGTERM)

    # the stand-in is Python too, which ignores SIGPIPE (13) and SIGXFSZ (25) again: nothing else may be; 32 and 33 are
    # the C library's own, which nobody can change, and come from whoever started the tests
    ignored = {number for number in range(1, 65) if int(status["SigIgn"], 16) >> (number - 1) & 1}
    assert ignored <= {signal.SIGPIPE, signal.SIGXFSZ, 32, 33}
    assert int(status["SigBlk"], 16) == 0
    assert process.wait() == 0
    wait_until(lambda: is_gone(runner))


def test_orphaned_runner_is_ended_by_the_next_start_of_its_slot_alone(rig: Rig) -> None:
    first, other = rig.serve("0"), rig.serve("1")
    runner, other_runner = (rig.stand_ins.runner(port) for port in rig.ports)
    first.kill()
    assert not is_gone(runner)

    rig.serve("0")

    assert is_gone(runner)
    assert not is_gone(rig.stand_ins.runner(rig.ports[0]))
    assert not is_gone(other.pid)
    assert not is_gone(other_runner)


def test_server_that_outlived_its_supervisor_is_replaced(rig: Rig) -> None:
    first = rig.serve("0")
    runner = rig.stand_ins.runner(rig.ports[0])

    second = rig.serve("0")

    assert first.wait() == 0  # it was asked, and ended in order
    assert is_gone(runner)
    assert second.pid == rig.stand_ins.pid(rig.ports[0])
    assert wording("ending-what-an-earlier-server-left") in second.text()


def test_stubborn_leftover_is_killed(
    rig: Rig, sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "TERM_SECONDS", 0.1)
    stubborn = sleeper({**rig.environment, "OBCD_SLOT": f"{rig.runtime}:0"}, is_stubborn=True)
    willing = sleeper({**rig.environment, "OBCD_SLOT": f"{rig.runtime}:0"})

    ended = end_leftovers(rig.runtime, "0")

    assert sorted(ended) == sorted([stubborn.pid, willing.pid])
    assert (stubborn.wait(), willing.wait()) == (-signal.SIGKILL, -signal.SIGTERM)


@pytest.mark.parametrize("has_pidfd", [True, False])
def test_only_marked_processes_of_this_host_are_ended(
    rig: Rig, sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, has_pidfd: bool
) -> None:
    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    if not has_pidfd:
        monkeypatch.setattr(os, "pidfd_open", missing)
    marks = {
        "a": f"{rig.runtime}:0",
        "b": f"{rig.runtime}:1.2",
        "c": f"{rig.runtime}-other:0",
        "d": f"x{rig.runtime}:0",
    }
    made = {name: sleeper({**rig.environment, "OBCD_SLOT": mark}) for name, mark in marks.items()}
    made["unmarked"] = sleeper({**rig.environment, "SLOT": f"{rig.runtime}:0"})

    ended = end_leftovers(rig.runtime, None)

    assert sorted(ended) == sorted([made["a"].pid, made["b"].pid])
    assert [name for name, process in made.items() if process.poll() is None] == ["c", "d", "unmarked"]
    assert end_leftovers(rig.runtime, None) == []


def test_nobody_ends_itself_or_who_started_it(rig: Rig) -> None:
    script = (
        "import subprocess, sys; from pathlib import Path; from obcd.host.servers.leftovers import end_leftovers\n"
        f"ended = end_leftovers(Path({str(rig.runtime)!r}), None)\n"
        "if len(sys.argv) > 1: sys.exit(len(ended))\n"
        "sys.exit(len(ended) + subprocess.run([sys.executable, __file__, 'child']).returncode)\n"
    )
    path = rig.runtime / "marked.py"
    path.write_text(script)
    marked = {**rig.environment, "OBCD_SLOT": f"{rig.runtime}:0"}

    outcome = subprocess.run([sys.executable, path], env=marked, timeout=30, check=False)

    assert outcome.returncode == 0


def test_host_reached_by_another_path_is_the_same(
    rig: Rig, tmp_path: Path, sleeper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    marked = sleeper({**rig.environment, "OBCD_SLOT": slot(rig.runtime, "0")})
    (tmp_path / "link").symlink_to(rig.runtime)

    assert end_leftovers(tmp_path / "link", "0") == [marked.pid]


def test_process_of_another_user_is_not_touched(
    rig: Rig, sleeper: Callable[..., subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = sleeper({**rig.environment, "OBCD_SLOT": f"{rig.runtime}:0"})
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)

    ended = end_leftovers(rig.runtime, None)

    assert (ended, marked.poll()) == ([], None)


def test_taken_port_is_refused_with_who_holds_it(rig: Rig) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", rig.ports[0]))
        holder.listen()

        outcome = rig.run("0", "--plan", rig.runtime)

    assert outcome.returncode == ExitCode.ALREADY_RUNNING
    name = psutil.Process().name()
    assert wording("port-meant-for-gpu-0-is", rig.ports[0], os.getpid(), name) in outcome.stderr
    assert rig.stand_ins.starts(rig.ports[0]) == []


def test_port_that_becomes_free_in_a_moment_is_waited_for(rig: Rig) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", rig.ports[0]))
        holder.listen()
        process = rig.start("0")
        wait_until(lambda: f"port {rig.ports[0]} is not free" in process.text())

    rig.wait_for(process, rig.ports[0])

    assert rig.stand_ins.pid(rig.ports[0]) == process.pid


def test_old_connections_do_not_hold_the_port(rig: Rig) -> None:
    first = rig.serve("0")
    with socket.create_connection(("127.0.0.1", rig.ports[0])) as client:
        client.sendall(b"GET /api/version HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100)
        first.send(signal.SIGTERM)  # the server closes first, so TIME_WAIT is on its side
        first.wait()
        while client.recv(1000):
            pass

    second = rig.serve("0")

    assert "held by" not in second.text()


@pytest.mark.parametrize("bind", ["0.0.0.0", "127.0.0.1", "localhost"])
def test_listener_on_one_address_is_in_the_way_of_all(rig: Rig, bind: str) -> None:
    wanted = make_launch(rig, bind)
    check_port(wanted, seconds=0)

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", rig.ports[0]))
        holder.listen()
        with pytest.raises(AlreadyRunningError, match=wording("port-meant-for-gpu-0", rig.ports[0])):
            check_port(wanted, seconds=0)


def test_address_of_another_machine_is_refused(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match=wording("bind-192-0-2-1-is")):
        check_port(make_launch(rig, "192.0.2.1"), seconds=0)


def make_launch(rig: Rig, bind: str) -> Launch:
    plan = replace(rig.plan, bind=bind)
    return Launch(plan=plan, server=plan.servers[0], runtime=rig.runtime, supervisor=None)


def test_lost_card_ends_with_its_own_code_and_the_other_still_serves(rig: Rig) -> None:
    rig.stand_ins.describe(cards(2, lost=[0]))

    outcome = run_obcd(rig.environment, "serve-gpu", "0", "--plan", rig.runtime)
    other = rig.serve("1")

    assert outcome.returncode == ExitCode.NO_ENDPOINT
    assert wording("gpu-0-is-lost", card_uuid(0)) in outcome.stderr
    assert other.process.poll() is None


def test_server_ends_with_its_supervisor_and_takes_its_runner_along(rig: Rig) -> None:
    command = obcd_command("serve-gpu", "0", "--plan", rig.runtime / "plan.json")
    script = f"import subprocess; subprocess.run({command!r})"
    supervisor = Running([sys.executable, "-c", script], rig.environment, rig.runtime / "supervisor.log")
    rig.started.append(supervisor)
    pid = wait_until(lambda: rig.stand_ins.pid(rig.ports[0]), what=supervisor.text)
    runner = rig.stand_ins.runner(rig.ports[0])

    supervisor.kill()

    wait_until(lambda: is_gone(pid) and is_gone(runner))


def test_start_waits_while_a_model_is_pulled(rig: Rig) -> None:
    with open(rig.runtime / "pull.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting, ended = rig.start("0"), rig.start("1")
        wait_until(lambda: all("a model is being pulled" in process.text() for process in (waiting, ended)))
        assert rig.stand_ins.starts(rig.ports[0]) == []
        ended.send(signal.SIGTERM)
        assert ended.wait() == -signal.SIGTERM

    rig.wait_for(waiting, rig.ports[0])

    assert waiting.text().count(wording("a-model-is-being-pulled")) == 1
    with open(rig.runtime / "pull.lock", "w") as lock:  # nothing of it is left in the server
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_dry_run_prints_a_line_that_starts_the_server_and_changes_nothing(rig: Rig) -> None:
    given = {**rig.environment, "HIP_VISIBLE_DEVICES": "1", "OLLAMA_DEBUG": "1"}
    process = rig.serve("1")
    busy = run_obcd(given, "serve-gpu", "1", "--plan", rig.runtime, "--dry-run")
    outcome = run_obcd(given, "serve-gpu", "0", "--plan", rig.runtime, "--dry-run")

    assert (busy.returncode, f"held by process {process.pid}" in busy.stderr) == (0, True)
    assert process.process.poll() is None
    assert (outcome.returncode, outcome.stderr, outcome.stdout.count("\n")) == (0, "", 1)
    assert rig.stand_ins.starts(rig.ports[0]) == []

    shell = Running(["sh", "-c", f"exec {outcome.stdout}"], given, rig.runtime / "shell.log")
    rig.started.append(shell)
    rig.wait_for(shell, rig.ports[0])
    pasted = rig.stand_ins.recorded(rig.ports[0])
    shell.send(signal.SIGTERM)
    shell.wait()
    real = rig.start("0", HIP_VISIBLE_DEVICES="1", OLLAMA_DEBUG="1")
    rig.wait_for(real, rig.ports[0])
    incidental = {"PWD", "OLDPWD", "SHLVL", "_"}

    def comparable(environment: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if name not in incidental and name != "OBCD_SLOT"}

    assert comparable(pasted) == comparable(rig.stand_ins.recorded(rig.ports[0]))


def test_by_hand_it_needs_no_plan_and_spares_a_server_that_runs(rig: Rig, tmp_path: Path) -> None:
    base = free_ports(1)[0]
    config = tmp_path / "obcd.toml"
    config.write_text(f'[host]\ngpus = ["{card_uuid(1)}"]\nbase_port = {base - 1}\n[host.environment]\nA = "b c"\n')
    process = Running(obcd_command("serve-gpu", "1", "--config", config), rig.environment, tmp_path / "log")
    rig.started.append(process)
    rig.wait_for(process, base)

    again = rig.run("1", "--config", config)
    unknown = run_obcd(rig.environment, "serve-gpu", "0", "--config", config)

    found = rig.stand_ins.recorded(base)
    assert (found["CUDA_VISIBLE_DEVICES"], found["OLLAMA_HOST"], found["A"]) == (
        card_uuid(1),
        f"127.0.0.1:{base}",
        "b c",
    )
    assert (again.returncode, f"held by process {process.pid}" in again.stderr) == (ExitCode.ALREADY_RUNNING, True)
    assert process.process.poll() is None
    assert (
        unknown.returncode,
        wording("gpu-0-has-no-server-here") in unknown.stderr,
    ) == (ExitCode.USAGE, True)


def test_plan_that_is_not_there_is_said(rig: Rig) -> None:
    (rig.runtime / "plan.json").unlink()

    outcome = run_obcd(rig.environment, "serve-gpu", "0", "--plan", rig.runtime / "plan.json")
    odd = run_obcd(rig.environment, "serve-gpu", "0", "--plan", rig.runtime / "other.json")

    assert (outcome.returncode, wording("no-obcd-host-runs-here") in outcome.stderr) == (ExitCode.INPUT, True)
    assert (odd.returncode, wording("plan-names-the-plan-json") in odd.stderr) == (ExitCode.USAGE, True)


def test_with_a_plan_nothing_heavy_is_imported(rig: Rig) -> None:
    script = (
        "import json, os, sys\n"
        "os.execve = lambda *_: print(json.dumps(sorted(sys.modules))) or sys.exit()\n"
        "from obcd.__main__ import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", script, "serve-gpu", "0", "--plan", str(rig.runtime)]

    outcome = subprocess.run(words, env=rig.environment, capture_output=True, timeout=30, check=False)

    assert not set(json.loads(outcome.stdout)) & {"pydantic", "requests", "psutil", "rich", "watchdog", "toml"}


def test_line_of_a_plan_with_every_kind_of_character_survives_a_shell(rig: Rig) -> None:
    outcome = run_obcd(rig.environment, "serve-gpu", "0", "--plan", rig.runtime, "--dry-run")

    words = shlex.split(outcome.stdout)

    assert f"GREETING={rig.plan.servers[0].variables['GREETING']}" in words
    assert words[-2:] == [rig.plan.ollama, "serve"]


def test_the_servers_of_another_host_are_told_by_their_cards(rig: Rig, tmp_path: Path) -> None:
    rig.serve("1")
    folder = os.path.realpath(rig.runtime)
    # The host of a test beside this one may have cards with the same names for a while.
    wait_until(lambda: neighbours(tmp_path)[card_uuid(1)] == folder)
    assert folder not in neighbours(rig.runtime).values()
    wait_until(
        lambda: any(wording("gpu1-its-card-has-a-server", folder) in line for line in _shared(rig.plan, tmp_path))
    )


def test_a_card_of_another_host_s_live_server_is_refused_and_free_when_its_last_process_has_ended(
    rig: Rig, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    moved = make_plan(rig.stand_ins, free_ports(2))
    write_plan(moved, other)
    first = rig.serve("0")
    tweaks = {"obcd.host.servers.card_locks:CARD_SECONDS": 0.0}
    command = ("serve-gpu", "0", "--plan", other, "--parent", os.getpid())

    refused = run_obcd(rig.environment, *command, tweaks=tweaks)
    runner = rig.stand_ins.runner(rig.ports[0])
    first.send(signal.SIGKILL)
    first.wait()
    still = run_obcd(rig.environment, *command, tweaks=tweaks)  # the runner holds the card's memory
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: is_gone(runner))
    second = Running(obcd_command(*command), rig.environment, tmp_path / "second.log")
    rig.started.append(second)

    assert (refused.returncode, still.returncode) == (ExitCode.ALREADY_RUNNING, ExitCode.ALREADY_RUNNING)
    assert wording("gpu-0-is-held-by-process", card_uuid(0), first.pid) in refused.stderr
    assert wording("gpu-0-is-held-by-process", card_uuid(0), runner) in still.stderr
    rig.wait_for(second, moved.servers[0].port)


def test_a_server_by_hand_prints_its_url_and_the_next_one_for_its_card_is_refused(rig: Rig) -> None:
    chosen = ("serve-gpu", card_uuid(1), "--port", "0", "--bind", "127.0.0.2")
    process = Running(obcd_command(*chosen), rig.environment, rig.runtime / "by-hand.log")
    rig.started.append(process)
    url = wait_until(lambda: next((line for line in process.text().splitlines() if line.startswith("http")), ""))

    wait_until(lambda: rig.stand_ins.pid(int(url.rpartition(":")[2])) == process.pid, what=process.text)
    assert requests.get(f"{url}/api/version", timeout=5).ok
    assert rig.run(*chosen[1:]).returncode == ExitCode.ALREADY_RUNNING
    assert requests.get(f"{url}/api/version", timeout=5).ok
