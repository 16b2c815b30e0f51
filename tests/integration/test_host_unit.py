"""obcd-host.service under a real systemd: four stand-in cards, and everything killed that can be."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.golden.wording import wording
from tests.gpu_support import StandIns, cards
from tests.integration.systemd_sandbox import VENV, SystemdSandbox
from tests.support import wait_until

pytestmark = pytest.mark.integration

HOST = "obcd-host.service"
FOLDER = Path("/srv/standins")
PORTS = range(11432, 11436)
ALL_ANSWER = "4/4 servers answer"
#: Where the stand-ins are, and limits that a test need not wait out; the rest is the unit as it is installed.
DROP_IN = f"""[Service]
Environment=PATH={FOLDER}/bin:/usr/bin:/bin PYTHONPATH={FOLDER}/python STANDIN_FOLDER={FOLDER}/records
ReadWritePaths={FOLDER}
WatchdogSec=8
TimeoutStopSec=4
"""


class Host:
    """A machine on which the unit runs."""

    def __init__(self, machine: SystemdSandbox, stand_ins: StandIns) -> None:
        self.machine = machine
        self.stand_ins = stand_ins

    def status(self) -> str:
        return self.machine.show(HOST, "StatusText")

    def pids(self) -> dict[int, int]:
        """Return `{port: process id of its server}`."""
        return {port: self.stand_ins.pid(port) for port in PORTS}

    def runners(self) -> set[int]:
        return {self.stand_ins.runner(port) for port in PORTS}

    def alive(self) -> set[int]:
        """Return the servers and runners that run, as numbered inside."""
        done = self.machine.run("pgrep", "-f", f"{FOLDER}/bin/ollama", check=False)
        return {int(word) for word in done.stdout.split()}

    def await_all(self, *, without: set[int], timeout: float) -> None:
        """Wait until four servers answer of which none is among `without`, and nothing else of ours runs."""

        def is_whole() -> bool:
            now = set(self.pids().values()) | self.runners()
            return not now & without and self.alive() == now and all(map(self._listens, PORTS))

        wait_until(is_whole, timeout, lambda: self.machine.messages(HOST))
        wait_until(lambda: self.status() == ALL_ANSWER, what=lambda: f"{self.status()}\n{self.machine.messages(HOST)}")

    def _listens(self, port: int) -> bool:
        return self.machine.run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}", check=False).returncode == 0

    def supervisor_children(self) -> dict[str, int]:
        """Return `{program: process id}` as supervisord tells."""
        said = self.machine.run("pgrep", "-f", "host-watch").stdout.split()
        return {"watch": int(said[0])}


@pytest.fixture(scope="module")
def machine(systemd: SystemdSandbox) -> SystemdSandbox:
    systemd.obcd("install")
    return systemd


@pytest.fixture(scope="module")
def installed(machine: SystemdSandbox) -> Host:
    place = machine.path(str(FOLDER))
    stand_ins = StandIns(place, cards(4), seen_as=FOLDER, interpreter=f"{VENV}/bin/python")
    machine.run("chown", "-R", "obcd:obcd", FOLDER)
    machine.drop_in(HOST, DROP_IN)
    return Host(machine, stand_ins)


@pytest.fixture
def host(installed: Host) -> Host:
    """Return the machine with all four servers answering."""
    installed.machine.run("systemctl", "start", HOST)
    wait_until(lambda: installed.status() == ALL_ANSWER, what=lambda: installed.machine.messages(HOST))
    return installed


def test_start_waits_until_the_servers_answer_and_each_has_its_card(host: Host) -> None:
    recorded = [host.stand_ins.recorded(port) for port in PORTS]

    assert host.machine.show(HOST, "ActiveState") == "active"
    assert [item["CUDA_VISIBLE_DEVICES"] for item in recorded] == [card["uuid"] for card in cards(4)]
    assert {item["HOME"] for item in recorded} == {"/var/lib/obcd"}
    assert not {name for item in recorded for name in item} & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "SUPERVISOR_ENABLED"}


def test_commands_speak_to_the_host_as_root_and_not_as_anybody(host: Host) -> None:
    host.machine.add_user("ben")

    shown = host.machine.obcd("host", "status").stdout
    table = host.machine.obcd("host", "endpoints").stdout
    refused = host.machine.obcd("host", "status", user="ben", check=False)

    assert shown.startswith("4/4 servers answer")
    assert re.findall(r'"127.0.0.1:(\d+)" = \{gpu = (\d), slots = 16\}', table) == [
        (str(port), str(number)) for number, port in enumerate(PORTS)
    ]
    assert refused.returncode != 0
    assert "sudo" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_killed_server_comes_back_and_its_runner_is_gone(host: Host) -> None:
    before, runner = host.pids(), host.stand_ins.runner(PORTS[1])

    host.machine.signal(before[PORTS[1]], signal.SIGKILL)

    host.await_all(without={before[PORTS[1]], runner}, timeout=20)
    after = host.pids()
    assert {port: pid for port, pid in after.items() if port != PORTS[1]} == {
        port: pid for port, pid in before.items() if port != PORTS[1]
    }


def test_killed_watch_comes_back_and_disturbs_nobody(host: Host) -> None:
    before, watch = host.pids(), host.supervisor_children()["watch"]

    host.machine.signal(watch, signal.SIGKILL)

    wait_until(
        lambda: host.machine.run("pgrep", "-f", "host-watch", check=False).stdout.split() not in ([], [str(watch)]),
        what=lambda: host.machine.messages(HOST),
    )
    wait_until(lambda: host.status() == ALL_ANSWER, what=host.status)
    assert host.pids() == before
    assert host.machine.show(HOST, "NRestarts") == "0"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_supervisord_that_gets_a_signal_leaves_nothing_of_the_old(host: Host, number: signal.Signals) -> None:
    before = set(host.pids().values()) | host.runners()

    host.machine.signal(host.machine.main_pid(HOST), number)

    host.await_all(without=before, timeout=30)
    assert not host.alive() & before


def test_stopped_supervisord_is_found_by_the_watchdog(host: Host) -> None:
    before = set(host.pids().values()) | host.runners()

    host.machine.signal(host.machine.main_pid(HOST), signal.SIGSTOP)

    host.await_all(without=before, timeout=60)
    assert "atchdog" in host.machine.messages(HOST).lower()


@pytest.mark.parametrize("how", [("stop",), ("kill", "--signal=KILL", "--kill-whom=all")])
def test_unit_that_ends_leaves_nothing(host: Host, how: tuple[str, ...]) -> None:
    host.stand_ins.switch("stubborn", PORTS[0])
    before = host.alive()
    assert len(before) == 8

    host.machine.run("systemctl", *how, HOST)

    wait_until(lambda: not host.alive() & before, 60, lambda: host.machine.messages(HOST))
    host.stand_ins.switch("stubborn", PORTS[0], on=False)
    host.machine.run("systemctl", "stop", HOST)
    assert host.alive() == set()


def test_card_that_is_gone_costs_no_other_server(host: Host) -> None:
    host.stand_ins.describe(cards(4, lost=[2]))
    host.machine.run("systemctl", "restart", HOST)

    wait_until(lambda: host.status() == "3/3 servers answer", what=host.status)
    assert set(host.stand_ins.starts(PORTS[3])) & host.alive()
    host.stand_ins.describe(cards(4))
    host.machine.run("systemctl", "restart", HOST)


def test_commands_of_root_mean_the_unit_and_believe_nobody_elses_folder(host: Host) -> None:
    machine = host.machine
    planted = '{"bind": "6.6.6.6", "name": "evil", "vendor": "nvidia", "ollama": "", "parallel": 1, "servers": []}'
    machine.add_user("carl")
    machine.run("setpriv", "--reuid", "carl", "--clear-groups", "mkdir", "-m", "755", "/tmp/obcd-0-host")
    machine.write("/tmp/obcd-0-host/plan.json", planted)

    assert machine.obcd("host", "status").stdout.startswith(
        wording("pid-run-obcd-host", ALL_ANSWER, machine.main_pid(HOST))
    )
    assert '"127.0.0.1:11432"' in machine.obcd("host", "endpoints").stdout
    second = machine.obcd("host", user="carl", check=False)
    assert (second.returncode, wording("obcd-host-service-runs-here") in second.stderr) == (7, True), second.stderr
    assert wording("journalctl-u-obcd-host") in machine.obcd("host", "logs", "watch").stderr


def test_dry_run_beside_the_unit_is_of_the_unit(host: Host) -> None:
    done = host.machine.obcd("serve-gpu", "1", "--dry-run")

    assert "HOME=/var/lib/obcd" in done.stdout
    assert wording("the-server-gpu1-of-sudo-systemctl", HOST) in done.stderr


@pytest.mark.parametrize(
    ("table", "state", "why"),
    [
        ("gpus = [7]", "failed", wording("names-7-which-is-not-on")),
        ('ollama = "/nowhere/ollama"', "failed", "/nowhere/ollama"),
        ('bind = "192.0.2.77"', "activating", wording("192-0-2-77-is-not")),
    ],
)
def test_wrong_host_table_fails_at_once_and_is_said(host: Host, table: str, state: str, why: str) -> None:
    machine, path = host.machine, host.machine.path("/etc/obcd/obcd.toml")
    kept = path.read_text("utf-8")
    key = table.split(maxsplit=1)[0]
    text, count = re.subn(rf"(?m)^(# ?)?{key} = .*$", lambda _: table, kept, count=1)
    assert count == 1
    path.write_text(text)
    try:
        done = machine.run("systemctl", "restart", HOST, check=False)
        said = machine.obcd("host", "status", check=False)
        assert done.returncode != 0
        assert machine.show(HOST, "ActiveState") == state
        assert why in machine.messages(HOST)
        words = "has failed" if state == "failed" else "keeps failing"
        assert (said.returncode, wording("journalctl-u-obcd-host-2", HOST, words) in said.stderr) == (6, True), (
            said.stderr
        )
    finally:
        path.write_text(kept)
        machine.run("systemctl", "stop", HOST)
        machine.run("systemctl", "reset-failed", HOST, check=False)


def test_journal_reads_well(host: Host) -> None:
    entries = host.machine.journal(HOST, "--boot")

    ours = [entry for entry in entries if "OBCD_ACTION" in entry]
    assert "host_status" in {entry["OBCD_ACTION"] for entry in ours}
    assert {entry["_SYSTEMD_UNIT"] for entry in ours} == {HOST}
    assert not [entry for entry in entries if "Traceback" in str(entry["MESSAGE"])]
