"""`obcd host` with the real supervisord, and stand-ins for `ollama` and NVML.

Two hosts run for the whole module: one of four cards that most tests share, and one of a single card whose server
hangs from the beginning on, so that the half minute which its replacement may take passes meanwhile.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from obcd.errors import NoEndpointError
from obcd.host.servers.locks import hold_pull
from obcd.host.supervisord.remote import Remote
from obcd.ollama.pulling import stream_pull
from tests.golden.wording import wording
from tests.gpu_support import TAIL, StandIns, card_uuid, cards, free_base
from tests.support import Running, all_gone, family, is_gone, make_environment, obcd_command, run_obcd, wait_until

pytestmark = pytest.mark.integration

#: The watch's pauses, shortened where a test would wait for nothing else.
QUICK: dict[str, Any] = {
    "obcd.host.control.programs:START_SECONDS": 3,  # a busy machine takes two to find that it cannot start
    "obcd.host.control.programs:START_RETRIES": 1,
    "obcd.host.control.programs:WATCH_OPTIONS": (
        "--limit",
        "start_pause=0.3",
        "--limit",
        "longest_start_pause=0.6",
        "--limit",
        "probe=0.5",
        "--limit",
        "reading=0.5",
    ),
}


class Host:
    """One `obcd host` on a machine of stand-ins."""

    def __init__(self, folder: Path, count: int, tweaks: dict[str, Any] | None = None, tail: str = TAIL) -> None:
        folder.mkdir(exist_ok=True)
        self.runtime, self.count, self._tweaks = folder / "run", count, tweaks
        self.stand_ins = StandIns(folder / "machine", cards(count, tail=tail))
        self.base = free_base(count)
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(folder / "notify"))
        self._messages: list[str] = []
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()
        base = make_environment(folder, XDG_STATE_HOME=str(folder / "state"), NOTIFY_SOCKET=str(folder / "notify"))
        self.environment = self.stand_ins.environment(base)
        self._log = folder / "host.log"
        self.process = self.start()

    def start(self) -> Running:
        command = obcd_command("host", "--gpus", self.count, "--base-port", self.base, "--runtime", self.runtime,
                               tweaks=self._tweaks)  # fmt: skip
        self.process = Running(command, self.environment, self._log)
        return self.process

    def run(self, *arguments: object, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return run_obcd(self.environment, "host", *arguments, "--runtime", self.runtime, timeout=timeout)

    def _listen(self) -> None:
        """Take messages as systemd does, always: few fit into the socket, and a sender would wait."""
        while message := self._notified.recv(65536):
            self._messages += message.decode().splitlines()

    def messages(self) -> list[str]:
        """Return what systemd would have been told so far."""
        return self._messages

    def status(self) -> str:
        """Return what systemd was told last."""
        told = [message.removeprefix("STATUS=") for message in self.messages() if message.startswith("STATUS=")]
        return told[-1] if told else ""

    def answers(self, number: int) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.base + number}/api/version", timeout=2).ok
        except requests.RequestException:
            return False

    def wait_for_all(self, timeout: float = 30.0) -> None:
        wait_until(self._all_answer, timeout, self.text)

    def _all_answer(self) -> bool:
        assert self.process.process.poll() is None, self.text()
        return all(map(self.answers, range(self.count)))

    def pid(self, number: int) -> int:
        return self.stand_ins.pid(self.base + number)

    def pids(self) -> dict[int, int]:
        return {number: self.pid(number) for number in range(self.count)}

    def switch(self, behaviour: str, number: int, *, on: bool = True) -> None:
        self.stand_ins.switch(behaviour, self.base + number, on=on)

    def condition(self, number: int) -> dict[str, Any]:
        """Return what the watch wrote that it remembers of a server; nothing before it has."""
        try:
            document = json.loads((self.runtime / "watch.json").read_bytes())
            found: dict[str, Any] = document["servers"][str(number)]["condition"]
        except (FileNotFoundError, KeyError):
            return {"trouble": "", "remark": "", "restarts": [], "restart_count": -1, "is_answering": False}
        return found

    def trouble(self, number: int) -> str:
        return str(self.condition(number)["trouble"])

    def text(self) -> str:
        logs = self.runtime / "logs"
        return self.process.text() + "".join(path.read_text("utf-8", "replace") for path in logs.glob("*.log"))

    def stop(self) -> None:
        """Ask it to stop, not waiting for it."""
        if self.process.process.poll() is None:
            self.process.send(signal.SIGTERM)

    def end(self) -> None:
        self.stop()
        self.process.wait()
        self.stand_ins.end()
        self.process.end()
        self._notified.shutdown(socket.SHUT_RDWR)
        self._listening.join()
        self._notified.close()


class Hung:
    """A host of one card whose server hangs, is deaf to TERM, and has a runner that is so too."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.host.wait_for_all()
        wait_until(lambda: self.host.condition(0)["is_answering"], what="the watch saw it answer")
        self.host.switch("stubborn", 0)
        self.host.switch("hang-ps", 0)
        self.since = time.time()
        self.processes = [self.host.pid(0), self.host.stand_ins.runner(self.host.base)]

    def replaced_at(self) -> float:
        """Return when the second server was started; 0.0 when it was not yet."""
        lines = (self.host.stand_ins.folder / f"starts-{self.host.base}").read_text().splitlines()
        return float(lines[1].split()[1]) if len(lines) > 1 else 0.0


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hung]:
    machine = Host(tmp_path_factory.mktemp("hung"), 1, tail=secrets.token_hex(6))
    try:
        yield Hung(machine)
    finally:
        machine.switch("stubborn", 0, on=False)
        machine.end()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, hung: Hung) -> Iterator[Host]:
    machine = Host(tmp_path_factory.mktemp("host"), 4, QUICK)
    try:
        yield machine
    finally:
        hung.host.switch("stubborn", 0, on=False)
        hung.host.stop()  # both at once
        machine.end()


@pytest.fixture(autouse=True)
def _well(host: Host) -> None:
    """Begin every test with four servers that answer, and a watch that has seen it."""
    host.wait_for_all()
    wait_until(lambda: host.status() == "4/4 servers answer", what=host.text)


def test_every_card_has_a_server_pinned_to_it(host: Host) -> None:
    pins = [host.stand_ins.recorded(host.base + number)["CUDA_VISIBLE_DEVICES"] for number in range(4)]
    assert pins == [card_uuid(number) for number in range(4)]
    assert host.process.text().count("http://127.0.0.1:") == 4


def test_supervisord_holds_the_lock_and_its_children_do_not(host: Host) -> None:
    lock = str(host.runtime / "lock")

    def holds(pid: int) -> bool:
        descriptors = Path(f"/proc/{pid}/fd")
        return lock in [os.readlink(descriptors / name) for name in os.listdir(descriptors)]

    with Remote(host.runtime) as remote:
        children = [state.pid for state in remote.states().values()]
    assert len(children) == 5
    assert holds(host.process.pid)
    assert not any(map(holds, children))


def test_a_second_host_is_refused_and_told_who_holds_the_first(host: Host) -> None:
    second = host.run("--gpus", 4)
    assert second.returncode == 7
    assert f"pid {host.process.pid}" in second.stderr
    assert host.process.process.poll() is None


def test_a_killed_server_is_replaced_within_three_seconds_and_no_other_is_disturbed(host: Host) -> None:
    before, runner = host.pids(), host.stand_ins.runner(host.base + 1)
    os.kill(before[1], signal.SIGKILL)
    wait_until(lambda: host.pid(1) != before[1] and host.answers(1), what="another server answers")
    assert is_gone(runner)
    assert {**host.pids(), 1: 0} == {**before, 1: 0}
    wait_until(lambda: host.condition(1)["restarts"], what="the watch saw it")
    assert host.condition(1)["restarts"][-1]["by"] == "supervisor"


def test_a_server_off_its_card_is_restarted_once_and_then_left_alone(host: Host) -> None:
    before = host.pids()
    host.switch("cpu", 2)
    wait_until(lambda: "leaves it alone" in host.trouble(2), what=host.text)
    assert len(set(host.stand_ins.starts(host.base + 2))) == 2
    assert {**host.pids(), 2: 0} == {**before, 2: 0}
    last = host.condition(2)["restarts"][-1]
    assert (last["by"], wording("off-its-card") in last["reason"]) == ("watch", True)
    host.switch("cpu", 2, on=False)
    wait_until(lambda: not host.trouble(2), what="it is well again")


def test_a_server_that_cannot_start_is_given_up_by_supervisor_and_comes_back_when_it_can(host: Host) -> None:
    before = host.pids()
    host.switch("fail", 3)
    os.kill(host.pid(3), signal.SIGKILL)
    wait_until(lambda: host.trouble(3) == "it does not start: Error: told to fail", what=host.text)
    assert any(message.startswith("STATUS=3/4 servers answer; gpu3: ") for message in host.messages())
    host.switch("fail", 3, on=False)
    wait_until(lambda: host.answers(3), what=host.text)
    assert {**host.pids(), 3: 0} == {**before, 3: 0}


def test_a_lost_card_is_said_and_its_server_comes_back_with_it(host: Host) -> None:
    before = host.pids()
    host.stand_ins.describe(cards(4, lost=[0]))
    wait_until(lambda: host.trouble(0) == "its card is gone" and is_gone(before[0]), what=host.text)
    host.stand_ins.describe(cards(4))
    wait_until(lambda: host.answers(0), what=host.text)
    assert {**host.pids(), 0: 0} == {**before, 0: 0}


def test_a_killed_watch_comes_again_restarts_no_server_and_remembers(host: Host) -> None:
    before, remembered = host.pids(), host.condition(2)["restart_count"]
    with Remote(host.runtime) as remote:
        first = remote.states()["watch"].pid
    host.messages().clear()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: "READY=1" in host.messages(), what="the new watch says READY")
    assert host.pids() == before
    wait_until(lambda: host.condition(2)["restart_count"] == remembered, what="it remembers restarts")


def test_status_shows_every_server_and_its_card(host: Host) -> None:
    def first_server() -> set[str]:
        return {cell.strip() for cell in host.run("status").stdout.splitlines()[2].split("  ")}

    # a watch that has just begun has not read the cards yet
    wait_until(lambda: {"90 %", "60 °C", "NVIDIA H100 80GB HBM3"} <= first_server(), what=host.text)
    shown = host.run("status")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"4/4 servers answer  pid {host.process.pid}")
    assert [line.split()[:2] for line in lines[2:6]] == [[f"gpu{n}", str(host.base + n)] for n in range(4)]
    assert "llama3.2:latest 8192 100 % GPU" in lines[2]


def test_status_works_without_the_watch_and_says_so(host: Host) -> None:
    with Remote(host.runtime) as remote:
        remote.stop("watch")
        wait_until(lambda: remote.states()["watch"].state == "STOPPED", what="the watch has stopped")
        document = json.loads(host.run("status", "--json").stdout)
        host.messages().clear()
        remote.start("watch")
    assert wording("the-watch-does-not-run") in document["watch"]["trouble"]
    assert [server["answer"] for server in document["servers"]] == ["answers"] * 4
    assert document["servers"][1]["reading"]["utilisation_percent"] == 91


def test_restart_waits_for_the_new_server(host: Host) -> None:
    before = host.pids()
    done = host.run("restart", "gpu1")
    assert (done.returncode, host.pid(1) != before[1], host.answers(1)) == (0, True, True)
    assert f"(pid {host.pid(1)})" in done.stderr
    assert {**host.pids(), 1: 0} == {**before, 1: 0}


def test_restart_says_why_a_server_does_not_come(host: Host) -> None:
    host.switch("fail", 1)
    said = ""
    for seconds in (2, 8, 30):  # a busy machine takes a while to start a server that fails
        done = host.run("restart", "1", "--timeout", seconds)
        assert done.returncode == 8
        said += done.stderr
        if wording("its-log-says-error-told-to") in said:
            break
    host.switch("fail", 1, on=False)
    assert wording("its-log-says-error-told-to") in said
    wait_until(lambda: host.answers(1), what=host.text)


def test_a_port_that_a_stranger_holds_keeps_no_other_card_idle_and_all_of_them_no_host(runtime: Path) -> None:
    machine = Host(runtime, 2, {"obcd.host.servers.launcher:PORT_SECONDS": 0.2}, secrets.token_hex(6))
    with socket.socket() as stranger, socket.socket() as another:
        machine.process.end()  # begun before the stranger came
        stranger.bind(("127.0.0.1", machine.base + 1))
        stranger.listen()
        held = f"port {machine.base + 1}, meant for GPU 1, is held by process {os.getpid()} ("
        try:
            machine.start()
            wait_until(lambda: machine.status().startswith("1/2 servers answer; gpu1: it does not start: " + held),
                       what=machine.text)  # fmt: skip
            assert wording("gpu1-cannot-start-yet", held) in machine.process.text()
            machine.process.send(signal.SIGTERM)
            assert machine.process.wait() == 0
            another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the server that ended had connections
            another.bind(("127.0.0.1", machine.base))
            another.listen()
            machine.start()
            assert machine.process.wait() == 7
            assert wording("so-are-the-ports-of-the") in machine.process.text()
        finally:
            machine.end()


def test_a_restart_during_a_pull_is_refused_unless_forced(host: Host) -> None:
    before = host.pids()
    with hold_pull(host.runtime, "llama3.2"):
        done = host.run("restart", "all")
    assert done.returncode == 7
    assert wording("pid-pulls-llama3-2", os.getpid()) in done.stderr
    assert "--force" in done.stderr
    assert host.pids() == before


def test_a_server_that_is_not_there_is_named_with_those_that_are(host: Host) -> None:
    for command in ("restart", "logs"):
        done = host.run(command, "gpu9")
        assert done.returncode == 2
        assert wording("gpu0-gpu1-gpu2-gpu3") in done.stderr


def test_logs_of_servers_watch_and_supervisord(host: Host) -> None:
    server = host.run("logs", "0", "-n", 1)
    assert server.stdout == f"Listening on 127.0.0.1:{host.base} (version 0.99.0)\n"
    assert "servers answer" in host.run("logs", "watch").stdout
    assert "supervisord started" in host.run("logs", "supervisord", "-n", 1000).stdout


def test_logs_that_are_followed_end_quietly_with_ctrl_c(host: Host, tmp_path: Path) -> None:
    command = obcd_command("host", "logs", "gpu0", "-n", 1, "-f", "--runtime", host.runtime)
    following = Running(command, host.environment, tmp_path / "follow.log")
    wait_until(lambda: "Listening on" in following.text(), what=following.text)
    following.send(signal.SIGINT)
    assert following.wait() == 0
    assert "interrupted" not in following.text()


def test_a_pull_whose_server_ends_is_said_without_names_of_classes() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(NoEndpointError, match=wording("the-server-broke-off-it-was")):
            list(stream_pull(f"http://127.0.0.1:{nobody.getsockname()[1]}", "m"))


def test_pull_goes_through_one_server_and_all_have_the_model(host: Host) -> None:
    done = host.run("pull", "qwen3:0.6b")
    assert done.returncode == 0, done.stderr
    assert "pulling qwen3:0.6b through gpu0" in done.stderr
    assert wording("every-server-of-this-host-has") in done.stderr
    assert (host.stand_ins.folder / "pulled").read_text().splitlines() == [f"{host.base} qwen3:0.6b"]


def test_an_error_under_status_200_is_an_error(host: Host) -> None:
    host.switch("fail-pull", 0)
    done = host.run("pull", "nosuch")
    host.switch("fail-pull", 0, on=False)
    assert done.returncode == 6
    assert wording("nosuch-pull-model-manifest-file-does") in done.stderr


def test_a_second_pull_is_told_who_pulls_and_a_server_that_starts_waits(host: Host) -> None:
    before = host.pids()
    with hold_pull(host.runtime, "llama3.2"):
        done = host.run("pull", "qwen3:0.6b")
        os.kill(before[3], signal.SIGKILL)
        wait_until(lambda: host.condition(3)["remark"] == "it waits for a pull to end", what="it waits")
        assert not host.answers(3)
    assert done.returncode == 7
    assert wording("pid-pulls-llama3-2-2", os.getpid()) in done.stderr
    wait_until(lambda: host.answers(3), what="it starts when the pull is through")


def test_endpoints_are_the_table_of_the_coordinator(host: Host) -> None:
    done = host.run("endpoints")
    table = tomllib.loads(done.stdout)["ollama_instances"]
    assert table == {f"127.0.0.1:{host.base + n}": {"gpu": n, "slots": 16} for n in range(4)}
    assert wording("ollama-has-no-authentication") in done.stderr
    assert 'bind = "10.0.0.5"' in done.stderr


def test_without_a_host_every_command_says_so(host: Host, tmp_path: Path) -> None:
    for command in (("status",), ("restart", "0"), ("pull", "llama3.2")):
        done = run_obcd(host.environment, "host", *command, "--runtime", tmp_path / "none")
        assert (done.returncode, done.stderr.count("\n")) == (6, 1)
        assert wording("no-obcd-host-runs-here") in done.stderr


def test_systemd_is_told_ready_status_and_watchdog(host: Host) -> None:
    wait_until(lambda: "WATCHDOG=1" in host.messages(), what="a tick of supervisord feeds the watchdog")
    assert "READY=1" in host.messages()
    assert "STATUS=4/4 servers answer" in host.messages()
    told = {name for number in range(4) for name in host.stand_ins.recorded(host.base + number)}
    assert "NOTIFY_SOCKET" not in told


def test_a_killed_supervisord_leaves_nothing_that_the_next_start_does_not_end(host: Host, runtime: Path) -> None:
    machine = Host(runtime, 2, QUICK, secrets.token_hex(6))
    try:
        machine.wait_for_all()
        machine.switch("stubborn", 0)
        old = [machine.process.pid, *family(machine.process.pid), *machine.stand_ins.alive()]
        machine.process.kill()
        assert machine.run("status").returncode == 6
        machine.switch("stubborn", 0, on=False)
        machine.start()
        machine.wait_for_all()
        assert all_gone(old)
        assert len(machine.stand_ins.alive()) == 4

        machine.process.send(signal.SIGTERM)
        assert machine.process.wait() == 0
        assert machine.stand_ins.alive() == []
    finally:
        machine.end()


def test_a_server_that_hangs_is_replaced_within_thirty_seconds(hung: Hung) -> None:
    replaced = wait_until(hung.replaced_at, what=hung.host.text)
    assert replaced - hung.since < 30.0
    hung.host.switch("hang-ps", 0, on=False)
    hung.host.wait_for_all()
    assert all_gone(hung.processes)
