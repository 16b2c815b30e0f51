"""Submit a job to Slurm, show its tasks and end them, by `sbatch`, `squeue` and `scancel`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from obcd.errors import InputError, NoEndpointError, TimedOutError
from obcd.text import printable
from obcd.users import user_name

#: Seconds for one call: Slurm's controller may be busy for half a minute.
CALL_SECONDS = 60.0
#: The fields of a task, for squeue: its number, state, nodes, the time that is left, and why it waits.
FORMAT = "%i|%T|%N|%L|%r"


@dataclass(frozen=True, slots=True)
class SlurmTask:
    """A task that waits or runs, e.g. `SlurmTask("4711_2", "RUNNING", "n2", "3:59:12", "None")`."""

    id: str
    state: str
    node: str
    left: str
    reason: str


def submit(script: str) -> str:
    """Submit a script and return the number of its job.

    Raises:
        NoEndpointError: If there is no Slurm here.
        InputError: If Slurm refuses the script.
    """
    return _call(["sbatch", "--parsable"], script).split(";")[0].strip()


def list_tasks(name: str) -> list[SlurmTask]:
    """Return this user's tasks of the jobs of a name, which wait or run.

    Raises:
        NoEndpointError, InputError: As `submit`.
    """
    command = ["squeue", "--noheader", "--array", f"--user={_user()}", f"--name={name}", f"--format={FORMAT}"]
    rows = [line.split("|", 4) for line in _call(command).splitlines()]
    return [SlurmTask(*map(printable, row)) for row in rows if len(row) == 5]


def cancel(name: str, jobs: Sequence[str], *, is_now: bool) -> None:
    """End this user's tasks of the jobs of a name, or, whatever their name is, those of some jobs.

    Those that wait end at once. Those that run get TERM, as before a time limit, and finish their requests in flight;
    with `is_now` they end at once, too.

    Raises:
        NoEndpointError, InputError: As `submit`; also if one of the jobs is not this user's, which scancel passes over.
    """
    for job in jobs:
        if not _call(["squeue", "--noheader", "--array", f"--user={_user()}", f"--jobs={job}", "--format=%i"]).strip():
            raise InputError(f"{_user()} has no job {job} that waits or runs: squeue --me lists them")
    chosen = [f"--user={_user()}", *(jobs or [f"--name={name}"])]
    if is_now:
        _call(["scancel", *chosen])
        return
    _call(["scancel", "--state=PENDING", *chosen])
    _call(["scancel", "--state=RUNNING", "--batch", "--signal=TERM", *chosen])


def _user() -> str:
    return user_name(os.getuid())


def _call(command: list[str], text: str = "") -> str:
    """Return what a program of Slurm prints."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=CALL_SECONDS, check=False,
            env={key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SCANCEL_"))},
        )  # fmt: skip
    except FileNotFoundError:
        raise NoEndpointError(
            f"there is no {command[0]} on this machine: run this on a login node of the Slurm cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise TimedOutError(f"Slurm does not answer: {command[0]} took longer than {CALL_SECONDS:.0f} s") from None
    if done.returncode:
        why = " ".join(printable(line).strip() for line in done.stderr.splitlines() if line.strip())
        raise InputError(f"{command[0]} refuses: {why[:500] or f'exit code {done.returncode}'}")
    return done.stdout
