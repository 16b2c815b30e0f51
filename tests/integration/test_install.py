"""`obcd install` and `obcd uninstall`: into a staged tree, from a built package, and on a machine with systemd."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from obcd.cli.daemon.install import NOTHING_DONE
from obcd.errors import ExitCode
from obcd.install.apply import InstallVerb
from tests.golden.wording import wording
from tests.integration.systemd_sandbox import VENV, SystemdSandbox
from tests.support import SOURCES, make_environment, run_obcd, wait_until

pytestmark = pytest.mark.integration

UNIT = "/etc/systemd/system/obcd-coordinator.service"
STILL_OLD = "The running daemons are still the old ones: systemctl try-restart"
#: Prints the daemons that began before the year 1970 ends, and those that began before now.
OUTDATED = "import time; from obcd.install.service import outdated; print(outdated(1e7), outdated(time.time()))"
BUILD = "from setuptools import setup; setup()"


def verbs(text: str) -> dict[str, str]:
    """Return `{path: verb}` of what a command listed."""
    rows = [line.split() for line in text.splitlines()]
    return {row[1]: row[0] for row in rows if len(row) > 1 and row[0] in set(InstallVerb)}


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_dry_run_lists_and_writes_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    root = tmp_path / "staged"

    done = run_obcd(environment, "install", "--root", root, "--dry-run")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"\n{NOTHING_DONE}\n")
    assert verbs(done.stdout)[UNIT] == "new"
    assert not root.exists()


def test_staged_tree_is_made_kept_and_taken_away(tmp_path: Path, environment: dict[str, str]) -> None:
    root = tmp_path / "staged"
    run_obcd(environment, "install", "--root", root)
    unit = root / UNIT.lstrip("/")
    unit.write_text("[Unit]\nDescription=mine\n")

    again = verbs(run_obcd(environment, "install", "--root", root).stdout)
    forced = verbs(run_obcd(environment, "install", "--root", root, "--force").stdout)
    drop_in = root / "etc/systemd/system/obcd-host.service.d/20-mine.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nNice=5\n")
    said = run_obcd(environment, "uninstall", "--root", root).stdout
    removed = verbs(said)

    assert again.pop(UNIT) == "kept"
    assert set(again.values()) == {"unchanged"}
    assert forced[UNIT] == "replaced"
    assert removed[UNIT] == "removed"
    assert (root / f"{UNIT}.old".lstrip("/")).read_text() == "[Unit]\nDescription=mine\n"
    files = [path.name for path in root.rglob("*") if path.is_file() or path.is_symlink()]
    assert sorted(files) == ["20-mine.conf", "obcd-coordinator.service.old"]
    kept = f"{UNIT}.old /etc/systemd/system/obcd-host.service.d/20-mine.conf"
    assert wording("yours-and-left-too", kept) in said


def test_uninstall_of_nothing_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run_obcd(environment, "uninstall", "--root", tmp_path)

    assert (done.returncode, done.stdout) == (0, wording("nothing-is-installed-here"))


def test_machine_of_another_init_is_refused_with_what_works(environment: dict[str, str]) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs this machine")

    done = run_obcd(environment, "install", "--dry-run")

    assert done.returncode == ExitCode.USAGE
    assert wording("no-systemd-runs-this-machine") in done.stderr
    assert "--root DIR" in done.stderr


def test_built_package_brings_its_units(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    library = tmp_path / "lib"
    command = [sys.executable, "-W", "ignore", "-c", BUILD, "-q", "build_py", "--build-lib", str(library)]
    subprocess.run(command, cwd=SOURCES, check=True, capture_output=True, timeout=60)
    environment = {**make_environment(tmp_path), "PYTHONPATH": str(library)}

    built = run_obcd(environment, "install", "--root", tmp_path / "built", cwd=tmp_path)
    run_obcd(make_environment(tmp_path), "install", "--root", tmp_path / "checkout")

    assert built.returncode == 0, built.stderr
    assert tree(tmp_path / "built") == tree(tmp_path / "checkout")


# --- on a machine with systemd --------------------------------------------------------------------------------------


def test_only_root_installs(systemd: SystemdSandbox) -> None:
    done = systemd.obcd("install", user="nobody", check=False)

    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith(wording("obcd-only-root-can-install-sudo"))


def test_python_in_a_home_is_refused_with_the_way_out(systemd: SystemdSandbox) -> None:
    systemd.run("sh", "-c", f"mkdir -p /root/mine && cp -a {VENV}/bin {VENV}/lib {VENV}/pyvenv.cfg /root/mine/")

    done = systemd.run("/root/mine/bin/python", "-m", "obcd", "install", check=False)

    assert done.returncode == ExitCode.USAGE
    assert wording("root-mine-bin-python-lies-under") in done.stderr
    assert wording("python3-m-venv-opt-obcd") in done.stderr


def test_ordinary_user_stages_with_all_modes(systemd: SystemdSandbox) -> None:
    systemd.add_user("builder")

    systemd.obcd("install", "--root", "/home/builder/staged", user="builder")

    inbox = systemd.run("stat", "-c", "%a %U", "/home/builder/staged/var/spool/obcd/inbox").stdout.split()
    assert inbox == ["3730", "builder"]


def test_stock_service_is_named_and_left_alone(systemd: SystemdSandbox) -> None:
    systemd.write("/etc/systemd/system/ollama.service", "[Service]\nExecStart=/bin/sleep 1000\n")
    systemd.run("mkdir", "-p", "/usr/share/ollama/.ollama/models")
    systemd.run("systemctl", "start", "ollama")

    said = systemd.obcd("install", "--dry-run").stdout

    assert wording("etc-systemd-system-ollama-service-is") in said
    assert wording("systemctl-disable-now-ollama") in said
    assert wording("models-usr-share-ollama-ollama-models") in said
    assert systemd.show("ollama", "ActiveState") == "active"
    systemd.run("systemctl", "stop", "ollama")


def test_story_of_an_installation(systemd: SystemdSandbox) -> None:
    """Install, look at rights, install again, run, uninstall, install over the data."""
    dry = systemd.obcd("install", "--dry-run")
    assert not systemd.path(UNIT).exists()

    installed = systemd.obcd("install")

    assert verbs(installed.stdout) == verbs(dry.stdout)
    owners = systemd.run(
        "stat", "-c", "%a %U:%G", "/etc/obcd/obcd.toml", "/var/spool/obcd/inbox", "/var/spool/obcd/inbox/.obcd", UNIT
    ).stdout.splitlines()
    assert owners == ["640 root:obcd", "3730 obcd:obcd", "700 obcd:obcd", "644 root:root"]
    assert systemd.run("obcd", "--version").returncode == 0

    again = systemd.obcd("install").stdout
    assert set(verbs(again).values()) == {"unchanged"}

    systemd.run("systemctl", "enable", "--now", "obcd-coordinator", "obcd-load@clinical.timer")
    assert STILL_OLD not in systemd.obcd("install").stdout
    assert systemd.run(f"{VENV}/bin/python", "-c", OUTDATED).stdout == "[] ['obcd-coordinator']\n"
    systemd.run("install", "-d", "-o", "obcd", "/var/spool/obcd/staging/broken")
    systemd.run("systemctl", "start", "obcd-load@broken", check=False)  # there is no such profile
    assert systemd.show("obcd-load@broken.service", "ActiveState") == "failed"
    systemd.write("/var/spool/obcd/inbox/kept.part", "{}")
    systemd.write("/etc/obcd/obcd.toml", systemd.path("/etc/obcd/obcd.toml").read_text() + "# mine\n", 0o640)
    looked = systemd.obcd("uninstall", "--dry-run")
    assert systemd.show("obcd-coordinator", "ActiveState") == "active"

    removed = systemd.obcd("uninstall")

    assert looked.stdout == removed.stdout + NOTHING_DONE + "\n"
    assert verbs(removed.stdout)["/etc/obcd/obcd.toml"] == "kept"
    assert wording("rm-r-var-spool-obcd-var") in removed.stdout
    wait_until(lambda: systemd.show("obcd-coordinator", "ActiveState") == "inactive", what="it is stopped")
    assert systemd.show("obcd-load@broken.service", "ActiveState") == "inactive"
    left = systemd.run("sh", "-c", "find /etc /usr/local -name '*obcd*' ! -name obcd-was-here").stdout.split()
    assert sorted(left) == ["/etc/obcd", "/etc/obcd/obcd.toml"]
    assert systemd.path("/var/spool/obcd/inbox/kept.part").read_text() == "{}"

    over = verbs(systemd.obcd("install").stdout)

    assert (over["/etc/obcd/obcd.toml"], over["/var/spool/obcd"], over[UNIT]) == ("kept", "unchanged", "new")
    assert os.listdir(systemd.path("/var/spool/obcd/inbox")) != []
