"""The units: what systemd's own tools say of them, and what they do under a real systemd."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.install.found import Machine
from obcd.install.plan import UNIT_FOLDER, UNITS, make_plan
from tests.golden.wording import wording
from tests.integration.systemd_sandbox import SystemdSandbox
from tests.support import make_environment, prompt_key, run_obcd, wait_until

pytestmark = pytest.mark.integration

#: The first systemd whose `systemd-analyze` scores units without a running one.
OFFLINE_SYSTEMD = 250
#: {unit: the worst score it may have, times ten}; limits of ours, and for the loads what they reached.
LIMITS = {
    "obcd-coordinator.service": 12,
    "obcd-host.service": 18,
    "obcd-load.service": 8,
    "obcd-load@.service": 8,
    "obcd-metrics.service": 8,
    "obcd-api.service": 12,
}
COORDINATOR, METRICS = "obcd-coordinator.service", "obcd-metrics.service"
#: Folders that systemd itself or the distribution makes.
SYSTEM_FOLDERS = ("/run/", "/proc/", "/dev/")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree that obcd was installed into, with what systemd has in every tree."""
    runtime, root = tmp_path_factory.mktemp("runtime"), tmp_path_factory.mktemp("staged")
    (root / "etc").mkdir()
    (root / "etc/group").write_text("root:x:0:\nrender:x:105:\nvideo:x:44:\n")
    for program in ("nvidia-modprobe", "nvidia-smi", "timeout"):
        stand_in(root, f"/usr/bin/{program}")
    stand_in(root, sys.executable)
    done = run_obcd(make_environment(runtime), "install", "--root", root)
    assert done.returncode == 0, done.stderr
    return root


def stand_in(root: Path, program: str) -> None:
    path = root / program.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, or skip where it cannot do this."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"systemd (\d+)", said)
    if version is None or int(version[1]) < OFFLINE_SYSTEMD:
        pytest.skip(f"systemd-analyze is older than {OFFLINE_SYSTEMD}")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False)


def test_units_are_without_fault(staged: Path) -> None:
    for folder in ("/usr/lib/systemd/system", "/lib/systemd/system"):
        for pattern in ("*.target", "*.slice"):
            for path in Path(folder).glob(pattern):
                target = staged / "usr/lib/systemd/system" / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists() and path.is_file():
                    shutil.copyfile(path, target)
    names = [name.replace("@.", "@clinical.") for name in UNITS]

    done = analyze("verify", "--man=no", "--recursive-errors=one", f"--root={staged}", *names)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("unit", "limit"), LIMITS.items())
def test_unit_leaves_little_open(staged: Path, unit: str, limit: int) -> None:
    path = staged / UNIT_FOLDER.lstrip("/") / unit

    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={limit}", str(path))

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_every_path_in_the_units_is_there(staged: Path) -> None:
    made_by_units = ("/var/lib/obcd", "/var/log/obcd", "/run/obcd")
    found = set()
    for path in (staged / UNIT_FOLDER.lstrip("/")).rglob("*.*"):
        if not path.is_file():
            continue
        directives = [line for line in path.read_text("utf-8").splitlines() if line and line[0] not in "#["]
        values = [line.partition("=")[2] for line in directives]
        found |= {word.lstrip("-+") for value in values for word in value.split() if re.match(r"[-+]*/[a-z]", word)}

    plain = {word for word in found if "%" not in word and not word.startswith(made_by_units)}
    assert {sys.executable, "/var/spool/obcd", "/usr/bin/nvidia-modprobe"} <= plain
    assert [word for word in sorted(plain) if not (staged / word.lstrip("/")).exists()] == []


def test_scores_are_kept_for_every_service() -> None:
    services = {name for name in UNITS if name.endswith(".service")}

    assert services == set(LIMITS)
    assert services <= {Path(item.path).name for item in make_plan(Machine()).items}


# --- under a real systemd -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(systemd: SystemdSandbox) -> SystemdSandbox:
    """Return a machine with obcd installed and an endpoint that answers."""
    systemd.obcd("install")
    systemd.start_simulated(11434, "--seconds", 0.05)
    text = systemd.path("/etc/obcd/obcd.toml").read_text("utf-8")
    text = text.replace("settle_seconds = 5.0", "settle_seconds = 0.2").replace(
        "drain_seconds = 60.0", "drain_seconds = 10.0"
    )
    systemd.write("/etc/obcd/obcd.toml", text + "\n[profiles.clinical]\nnum_predict = 16\n", 0o640)
    systemd.add_user("ann", "obcd")
    systemd.add_user("eve")
    return systemd


@pytest.fixture
def coordinator(machine: SystemdSandbox) -> SystemdSandbox:
    """Return the machine with the coordinator running, and its endpoint found."""
    machine.run("systemctl", "start", COORDINATOR)
    wait_until(lambda: "1/1 endpoints up" in machine.show(COORDINATOR, "StatusText"), what="the endpoint is found")
    return machine


def folder_of(machine: SystemdSandbox, name: str) -> Path:
    return machine.path(f"/var/spool/obcd/outbox/{name}")


def answered(machine: SystemdSandbox, name: str) -> str:
    """Wait for a job's answers, and return them."""
    path = folder_of(machine, name) / "responses.jsonl"
    wait_until(path.exists, what=lambda: f"{name} is answered:\n{machine.messages(COORDINATOR)}")
    return path.read_text("utf-8")


def test_coordinator_is_ready_and_says_what_it_does(coordinator: SystemdSandbox) -> None:
    assert coordinator.show(COORDINATOR, "ActiveState") == "active"
    assert coordinator.show(COORDINATOR, "StatusText") == "no jobs, 1/1 endpoints up"


@pytest.mark.parametrize("place", ["", "clinical/"])
def test_member_of_the_group_drops_with_cp_and_reads_the_answers(coordinator: SystemdSandbox, place: str) -> None:
    coordinator.write("/home/ann/notes.jsonl", '{"prompt": "one"}\n')

    coordinator.run("cp", "/home/ann/notes.jsonl", f"/var/spool/obcd/inbox/{place}copied.jsonl", user="ann")

    answered(coordinator, f"{place}copied")
    said = coordinator.run("cat", f"/var/spool/obcd/outbox/{place}copied/responses.jsonl", user="ann").stdout
    assert '"prompt":"one"' in said


@pytest.mark.parametrize("profile", ["", "clinical"])
def test_member_of_the_group_submits_and_waits(coordinator: SystemdSandbox, profile: str) -> None:
    coordinator.write("/home/ann/notes.jsonl", '{"prompt": "one"}\n')
    words = ("--wait", "--timeout", 20, "--profile", profile, "--name", f"sent{profile}", "/home/ann/notes.jsonl")

    done = coordinator.obcd("submit", *words, user="ann", check=False)

    assert (done.returncode, done.stderr) == (0, "")  # 0: every line was answered
    assert answered(coordinator, f"{profile}/sent{profile}").count("\n") == 1


def test_metrics_are_a_file_that_other_users_read_and_goes_with_the_unit(coordinator: SystemdSandbox) -> None:
    path = "/run/obcd-metrics/obcd.prom"
    coordinator.run("systemctl", "start", METRICS)
    wait_until(coordinator.path(path).exists, what=lambda: coordinator.messages(METRICS))

    said = coordinator.run("cat", path, user="eve").stdout
    assert "obcd_up 1.0\n" in said
    assert 'obcd_endpoint_up{endpoint="127.0.0.1:11434",gpu="0",host="localhost"} 1.0\n' in said
    coordinator.run("systemctl", "stop", METRICS)
    assert not coordinator.path(path).exists()


def test_file_that_the_daemon_may_not_read_is_said_to_wait(coordinator: SystemdSandbox) -> None:
    coordinator.run("sh", "-c", "umask 077; echo '{}' > /var/spool/obcd/inbox/closed.jsonl", user="ann")

    why = folder_of(coordinator, "closed.waiting") / "why.txt"
    wait_until(why.exists, what="it is said")
    said = coordinator.run("cat", "/var/spool/obcd/outbox/closed.waiting/why.txt", user="ann").stdout
    assert wording("the-daemon-may-not-read-it") in said
    coordinator.run("rm", "/var/spool/obcd/inbox/closed.jsonl", user="ann")


@pytest.mark.parametrize(("unit", "place"), [("obcd-load.service", ""), ("obcd-load@clinical.service", "clinical/")])
def test_load_drops_what_lies_in_its_staging_folder(coordinator: SystemdSandbox, unit: str, place: str) -> None:
    folder = f"/var/spool/obcd/staging/{place}"
    coordinator.run("install", "-d", "-o", "obcd", "-g", "obcd", "-m", "3730", folder)
    coordinator.run("sh", "-c", f'echo \'{{"prompt": "one"}}\' > {folder}staged.jsonl', user="ann")

    def is_taken() -> bool:  # it must have settled first
        coordinator.run("systemctl", "start", unit)
        return not coordinator.path(f"{folder}staged.jsonl").exists()

    wait_until(is_taken, what=lambda: coordinator.messages(unit))
    assert answered(coordinator, f"{place}staged").count("\n") == 1
    assert coordinator.path(f"{folder}submitted/staged.jsonl").exists()
    assert [entry["MESSAGE"] for entry in coordinator.journal(unit) if entry["SYSLOG_IDENTIFIER"] == "python"] == []


def test_load_that_fails_says_why_and_is_seen(coordinator: SystemdSandbox) -> None:
    folder = "/var/spool/obcd/staging/nobodys"
    coordinator.run("install", "-d", "-o", "obcd", "-g", "obcd", "-m", "3730", folder)
    coordinator.run("sh", "-c", f"echo '{{}}' > {folder}/lost.jsonl", user="ann")

    done = coordinator.run("systemctl", "start", "obcd-load@nobodys.service", check=False)

    said = [
        entry["MESSAGE"] for entry in coordinator.journal("obcd-load@nobodys") if entry["SYSLOG_IDENTIFIER"] == "obcd"
    ]
    assert done.returncode != 0
    assert len(said) == 1
    assert "nobodys" in said[0]
    assert "obcd-load@nobodys.service" in coordinator.run("systemctl", "--failed").stdout


def test_load_without_its_folder_is_passed_over(machine: SystemdSandbox) -> None:
    machine.run("systemctl", "start", "obcd-load@nowhere.service")

    assert machine.show("obcd-load@nowhere.service", "ConditionResult") == "no"


def test_timer_loads_at_the_time_of_its_drop_in(coordinator: SystemdSandbox) -> None:
    often = "[Timer]\nOnCalendar=\nOnCalendar=*-*-* *:*:*\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
    coordinator.drop_in("obcd-load@clinical.timer", often)
    folder = "/var/spool/obcd/staging/clinical"
    coordinator.run("install", "-d", "-o", "obcd", "-g", "obcd", "-m", "3730", folder)
    coordinator.run("sh", "-c", f'echo \'{{"prompt": "one"}}\' > {folder}/timed.jsonl', user="ann")

    coordinator.run("systemctl", "enable", "--now", "obcd-load@clinical.timer")

    assert answered(coordinator, "clinical/timed").count("\n") == 1
    coordinator.run("systemctl", "disable", "--now", "obcd-load@clinical.timer")
    coordinator.remove_drop_in("obcd-load@clinical.timer")


def test_status_is_for_members_of_the_group(coordinator: SystemdSandbox) -> None:
    shown = coordinator.obcd("status", user="ann").stdout
    refused = coordinator.obcd("status", user="eve", check=False)

    assert "READY" in shown
    assert refused.returncode == 5
    assert wording("usermod-ag-obcd") in refused.stderr


def test_members_neither_see_nor_take_what_others_dropped(coordinator: SystemdSandbox) -> None:
    listed = coordinator.run("ls", "/var/spool/obcd/inbox", user="ann", check=False)
    jobs = coordinator.run("ls", "/var/spool/obcd/jobs", user="ann", check=False)
    outsider = coordinator.run("ls", "/var/spool/obcd/outbox", user="eve", check=False)

    assert [item.returncode != 0 for item in (listed, jobs, outsider)] == [True, True, True]


@pytest.fixture
def private(machine: SystemdSandbox) -> Iterator[SystemdSandbox]:
    """Yield the machine with the coordinator running under `per_user`, and a second member of the group."""
    text = machine.path("/etc/obcd/obcd.toml").read_text("utf-8")
    machine.write("/etc/obcd/obcd.toml", text.replace("per_user = false", "per_user = true"), 0o640)
    machine.add_user("mal", "obcd")
    machine.run("systemctl", "restart", COORDINATOR)
    wait_until(lambda: "1/1 endpoints up" in machine.show(COORDINATOR, "StatusText"), what="the endpoint is found")
    yield machine
    machine.write("/etc/obcd/obcd.toml", text, 0o640)
    machine.run("systemctl", "restart", COORDINATOR)


@pytest.mark.case("F10")
def test_answers_are_kept_from_other_members_under_the_units_hardening(private: SystemdSandbox) -> None:
    private.write("/home/ann/notes.jsonl", '{"prompt": "one"}\n')
    words = ("--wait", "--timeout", 20, "--profile", "clinical", "--name", "hers", "/home/ann/notes.jsonl")

    done = private.obcd("submit", *words, user="ann", check=False)

    assert (done.returncode, done.stderr) == (0, "")
    home, inside = "/var/spool/obcd/outbox/ann", "clinical/hers/responses.jsonl"
    assert '"prompt":"one"' in private.run("cat", f"{home}/{inside}", user="ann").stdout
    for command in (("ls", home), ("cat", f"{home}/{inside}"), ("rm", "-rf", home)):
        assert private.run(*command, user="mal", check=False).returncode != 0
    assert private.obcd("verify", "/var/spool/obcd/outbox", user="ann").stdout.count("clinical/hers: 1 line") == 1
    assert "hers" not in private.obcd("verify", "/var/spool/obcd/outbox", user="mal", check=False).stdout
    printed = private.obcd("print", "/var/spool/obcd/outbox", user="mal", check=False)
    assert "ann" not in printed.stdout + printed.stderr


def test_stop_lets_what_is_in_flight_finish_and_asks_nothing_twice(coordinator: SystemdSandbox) -> None:
    prompt = "[[simulate:seconds=2]] drain"
    coordinator.write("/var/spool/obcd/inbox/drained.jsonl", json.dumps({"prompt": prompt}) + "\n")
    status = coordinator.path("/run/obcd-coordinator/status.json")
    wait_until(lambda: '"in_flight": 1' in status.read_text("utf-8"), what=lambda: status.read_text("utf-8"))

    coordinator.run("systemctl", "stop", COORDINATOR)

    assert coordinator.show(COORDINATOR, "Result") == "success"
    coordinator.run("systemctl", "start", COORDINATOR)
    assert answered(coordinator, "drained").count("\n") == 1
    account = coordinator.simulated_requests(11434)
    assert [record["prompt"] for record in account].count(prompt_key(prompt)) == 1


def test_coordinator_that_hangs_is_replaced_by_the_watchdog(coordinator: SystemdSandbox) -> None:
    coordinator.drop_in(COORDINATOR, "[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
    coordinator.run("systemctl", "restart", COORDINATOR)
    hung = coordinator.main_pid(COORDINATOR)

    coordinator.signal(hung, signal.SIGSTOP)

    def is_replaced() -> bool:
        is_active = coordinator.show(COORDINATOR, "ActiveState") == "active"
        return is_active and coordinator.main_pid(COORDINATOR) not in (0, hung)

    wait_until(is_replaced, what=lambda: coordinator.messages(COORDINATOR))
    assert int(coordinator.show(COORDINATOR, "NRestarts")) == 1
    coordinator.remove_drop_in(COORDINATOR)


def test_wrong_configuration_fails_once_with_the_reason(machine: SystemdSandbox) -> None:
    path = machine.path("/etc/obcd/obcd.toml")
    good = path.read_text("utf-8")
    machine.run("systemctl", "stop", COORDINATOR)
    path.write_text(good.replace("attempts = 4\n", "attempts = 0\n", 1), "utf-8")

    done = machine.run("systemctl", "start", COORDINATOR, check=False)

    path.write_text(good, "utf-8")
    assert done.returncode != 0
    assert machine.show(COORDINATOR, "ActiveState") == "failed"
    assert machine.show(COORDINATOR, "ExecMainStatus") == "4"
    assert "at requests.attempts" in machine.messages(COORDINATOR)


def test_target_stops_and_starts_what_is_enabled(machine: SystemdSandbox) -> None:
    machine.run("systemctl", "enable", "--now", COORDINATOR)

    machine.run("systemctl", "stop", "obcd.target")
    wait_until(lambda: machine.show(COORDINATOR, "ActiveState") == "inactive", what="it stops with the target")
    machine.run("systemctl", "start", "obcd.target")

    assert machine.show(COORDINATOR, "ActiveState") == "active"
    machine.run("systemctl", "disable", "--now", COORDINATOR)
