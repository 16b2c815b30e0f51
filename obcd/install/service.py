"""The systemd commands around an installation: users, folders, units. Only for the running system."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from obcd.clock import monotonic, wall
from obcd.errors import InputError
from obcd.install.apply import InstallStep, InstallVerb, Record
from obcd.install.plan import SYSUSERS, TMPFILES, UNIT_FOLDER

#: Seconds that one command may take; stopping drains for up to 90.
COMMAND_SECONDS = 300.0

Command = tuple[str, ...]

DAEMONS = ("obcd-host", "obcd-coordinator")
#: systemctl(1): states of a unit with a process.
RUNNING = ("active", "activating", "reloading")


def after_install() -> list[Command]:
    """Return the commands that put the installed files into effect."""
    return [("systemd-sysusers", SYSUSERS), ("systemd-tmpfiles", "--create", TMPFILES), ("systemctl", "daemon-reload")]


def before_removal(root: Path, record: Record) -> list[Command]:
    """Return the commands that stop and disable the installed units which still exist, and no other unit."""
    folder = root / UNIT_FOLDER.lstrip("/")
    ours = [Path(path) for path in record if path.startswith(f"{UNIT_FOLDER}/") and (root / path.lstrip("/")).is_file()]
    plain = sorted(path.name for path in ours if "@" not in path.name)
    units = [name for name in plain if name.endswith((".service", ".target", ".timer"))]
    instances = sorted(path.name for path in folder.glob("*.wants/obcd-load@*.timer"))
    commands: list[Command] = []
    if instances or (folder / "obcd-load@.service").exists():
        commands.append(("systemctl", "stop", "obcd-load@*.timer", "obcd-load@*.service"))
    if instances:
        commands.append(("systemctl", "disable", *instances))
    if units:
        commands.append(("systemctl", "disable", "--now", *units))
    return commands


def after_removal(steps: list[InstallStep]) -> list[Command]:
    """Return the commands that make systemd forget the removed units and their failures."""
    if not any(step.verb is InstallVerb.REMOVED for step in steps):
        return []
    return [("systemctl", "daemon-reload"), ("systemctl", "reset-failed", "obcd-*")]


def outdated(code: float) -> list[str]:
    """Return the running daemons that started before the code on the disk was written.

    Args:
        code: Unix seconds, see `found.code_time`.
    """
    return [unit for unit in DAEMONS if (began := _began(unit)) is not None and began < code]


def _began(unit: str) -> float | None:
    """Return when a unit's process was started, in Unix seconds; None if it does not run."""
    command = ("systemctl", "show", "--property=ActiveState,ExecMainStartTimestampMonotonic", unit)
    try:
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10.0, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)
    started = values.get("ExecMainStartTimestampMonotonic", "0")
    if values.get("ActiveState") not in RUNNING or not started.isdecimal() or int(started) == 0:
        return None
    return wall() - (monotonic() - int(started) / 1e6)  # microseconds of the same clock


def run(command: Command) -> None:
    """Run one command.

    Raises:
        InputError: If it cannot be run, fails, or does not end.
    """
    line = shlex.join(command)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot run {line}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{line} has not ended in {COMMAND_SECONDS:.0f} s: find out what it waits for, then try again"
        ) from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"{line} failed: {said}; repair that, then try again: completed steps are not repeated")
