"""The systemd that tests boot is real, private, and gone with them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.integration.systemd_sandbox import SystemdSandbox, cgroup_mount, sweep_cgroups, why_not
from tests.support import Running, family, is_gone, wait_until

pytestmark = pytest.mark.integration

HOLDER = """
import signal
from tests.integration.systemd_sandbox import SystemdSandbox
sandbox = SystemdSandbox()
print("booted", flush=True)
signal.pause()
"""


def test_it_boots_whole_and_everybody_inside_can_run_obcd(systemd: SystemdSandbox) -> None:
    state = systemd.run("systemctl", "is-system-running", check=False).stdout.strip()
    said = systemd.obcd("--version", user="nobody").stdout

    assert state == "running", systemd.run("systemctl", "--failed").stdout
    assert "version" in said


def test_what_is_written_inside_stays_inside(systemd: SystemdSandbox) -> None:
    systemd.run("sh", "-c", "echo here > /etc/obcd-was-here")

    assert systemd.path("/etc/obcd-was-here").read_text() == "here\n"
    assert not Path("/etc/obcd-was-here").exists()


def test_it_ends_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    if why_not():
        pytest.skip(why_not())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    holder = Running([sys.executable, "-c", HOLDER], environment, tmp_path / "holder.log")
    wait_until(lambda: "booted" in holder.text() or holder.process.poll() is not None, what="it boots")
    if holder.process.poll() is not None:
        pytest.skip(holder.text()[-300:])
    processes = family(holder.pid)

    holder.kill()

    assert len(processes) > 3
    wait_until(lambda: all(is_gone(pid) for pid in processes), what="systemd and all below it have ended")
    mount = cgroup_mount()
    assert mount is not None
    sweep_cgroups(mount)
    assert not list(mount.glob(f"*-{holder.pid}-*"))
