"""The allocation that this process runs in: the job of Slurm or the worker of Ray, and when it ends.

SLURM_JOB_ID, SLURM_ARRAY_…, SLURM_JOB_END_TIME ─► Allocation("slurm-4711_2", until=…)
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from obcd.host.cards.given import ClusterEngine, find_engine

#: Seconds to wait for Slurm's controller, which may be busy: without an answer the end is not known.
SCONTROL_SECONDS = 10.0
#: Most characters of a job's or task's number in a name.
MAX_NUMBER = 32
#: Most digits of a time in Unix seconds: a record with a later end counts nowhere.
MAX_DIGITS = 11


@dataclass(frozen=True, slots=True)
class Allocation:
    """What an engine gave this process for some time.

    Attributes:
        name: A name for files and records, e.g. `slurm-4711_2`.
        by: The same for people, e.g. `slurm 4711_2`.
        until: When it ends, in Unix seconds; None if it has no end, or it is not known.
    """

    name: str
    by: str
    until: float | None = None


def allocation_name(environ: Mapping[str, str]) -> str:
    """Return the name of the Slurm task that this process is, e.g. `slurm-4711_2`; "" outside Slurm.

    Tasks that `srun` starts in one job count from 0 in SLURM_PROCID; a batch script has no step.
    """
    if find_engine(environ) is not ClusterEngine.SLURM:
        return ""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else environ["SLURM_JOB_ID"]
    is_step = environ.get("SLURM_STEP_ID", "").isdecimal() and environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return f"slurm-{_plain(job)}" + (f".{_plain(environ.get('SLURM_PROCID', '0'))}" if is_step else "")


def _plain(number: str) -> str:
    """Return a number of Slurm as a part of a file's name, also if the environment has nonsense in its place."""
    return re.sub(r"[^A-Za-z0-9_]", "-", number)[:MAX_NUMBER]


def read_allocation(environ: Mapping[str, str], ask: Callable[[str], str] | None = None) -> Allocation | None:
    """Return the Slurm task that this process is; None outside Slurm.

    Args:
        ask: Returns Slurm's record of a job, where the environment does not name the end (before Slurm 23.02).
    """
    name = allocation_name(environ)
    if not name:
        return None
    end = environ.get("SLURM_JOB_END_TIME", "")
    until = (
        float(end)
        if end.isdecimal() and len(end) <= MAX_DIGITS
        else _end_of((ask or _show_job)(environ["SLURM_JOB_ID"]))
    )
    return Allocation(name=name, by=name.replace("-", " ", 1), until=until)


def _show_job(job: str) -> str:
    command = ["scontrol", "--oneliner", "show", "job", job]
    environment = {**os.environ, "SLURM_TIME_FORMAT": "standard"}
    try:
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SCONTROL_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _end_of(record: str) -> float | None:
    """Return EndTime= of Slurm's record of a job, which is local time: `2026-11-30T18:00:00`, or `Unknown`."""
    fields = dict(word.split("=", 1) for word in record.split() if "=" in word)
    try:
        return time.mktime(time.strptime(fields["EndTime"], "%Y-%m-%dT%H:%M:%S"))
    except (KeyError, ValueError, OverflowError):
        return None
