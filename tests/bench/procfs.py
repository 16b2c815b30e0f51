"""What the kernel says of processes and of the machine, from /proc (proc(5))."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Times:
    """CPU seconds of a process: its own, and those of its children that ended and were waited for."""

    parent: int
    own: float
    ended_children: float


def read_times(pid: int) -> Times | None:
    """Return a process's CPU seconds, 0.01 s fine; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name may hold blanks and brackets
    user, system, ended_user, ended_system = (int(field) / _TICKS for field in fields[11:15])
    return Times(int(fields[1]), user + system, ended_user + ended_system)


def age(pid: int) -> float:
    """Return how many seconds ago a process started, 0.01 s fine.

    By the clock that starts with the machine: the start by the clock on the wall, as psutil tells it, can be a second
    off.

    Raises:
        OSError: If it is gone.
    """
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS


def tree(pid: int) -> dict[int, Times]:
    """Return a process and all its descendants."""
    everybody = {
        int(entry): times for entry in os.listdir("/proc") if entry.isdigit() and (times := read_times(int(entry)))
    }
    found = {pid} & everybody.keys()
    while more := {child for child, times in everybody.items() if times.parent in found} - found:
        found |= more
    return {member: everybody[member] for member in found}


def tree_cpu(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants, ended ones included."""
    return sum(times.own + times.ended_children for times in tree(pid).values())


def own_cpu(pid: int) -> float:
    """Return the CPU seconds of one process alone; 0 when it is gone."""
    times = read_times(pid)
    return times.own if times is not None else 0.0


def peak_mib(pid: int) -> float:
    """Return the most memory that a process ever had resident (VmHWM), in MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def own_mib(pid: int) -> float:
    """Return the memory that only this process has (private pages), in MiB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))) / 1024


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def machine() -> str:
    """Return one line about the machine, e.g. `2 cores, AMD EPYC, Linux 6.1, Python 3.11.7`."""
    model = next(
        (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), platform.machine()
    )
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {model}, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def growth() -> Callable[[], float]:
    """Return a function that returns by how many MiB this process has grown at most since now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak is from now on
    before = _memory("VmRSS")
    return lambda: (_memory("VmHWM") - before) / 1024


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
