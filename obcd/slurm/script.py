"""Write the sbatch script of an array of hosts, for a person to read, change and submit. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import UsageError

#: Seconds before the time limit at which the script gets TERM; Slurm may send it up to 60 s earlier (sbatch(1)).
TERM_SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class HostArray:
    """What the script starts.

    Attributes:
        obcd: The program, at a path that all nodes share.
        name: The job's name, by which `status` and `cancel` find it.
        tasks: Number of tasks of the array: each is a host.
        gres: What each task requests, e.g. `gpu:2`.
        hosts: The hosts folder, on a file system that all nodes share.
        logs: The folder of the tasks' logs.
        ports: `0` for any free port, or a range.
        limits: Other options of sbatch without `--`, e.g. `time=04:00:00`.
        models: The folder of Ollama's models; None: the one of the user.
        configuration: The configuration of hosts and coordinator; None: the default one.
        setup: Lines for the shell that come first, e.g. `module load ollama`.
        idle_seconds: The first task also runs the coordinator, until nothing is left for so long; None: it does not.
    """

    obcd: str
    name: str
    tasks: int
    gres: str
    hosts: Path
    logs: Path
    ports: str = "0"
    limits: tuple[str, ...] = ()
    models: Path | None = None
    configuration: Path | None = None
    setup: tuple[str, ...] = ()
    idle_seconds: float | None = None


def render_script(wanted: HostArray) -> str:
    """Return the script.

    Raises:
        UsageError: If a value cannot stand in a line of it.
    """
    lines = [
        "#!/bin/bash",
        f"# Hosts for obcd, one in each task of this array. Made by `obcd slurm`; {_purpose(wanted)}",
        *(f"#SBATCH {_directive(words)}" for words in _directives(wanted)),
        "# A task that loses its node, or is preempted, starts again elsewhere, and goes on with the same log.",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"# {TERM_SECONDS} s before the time limit, TERM: requests in flight finish, and the host leaves.",
        f"#SBATCH --signal=B:TERM@{TERM_SECONDS}",
        "",
        *([*wanted.setup, ""] if wanted.setup else []),
        "set -eu",
    ]
    if wanted.models is not None:
        lines += [
            "# The models, on a file system that all nodes share.",
            f"export OLLAMA_MODELS={_word(wanted.models)}",
        ]
    host = _command(wanted, "host", "--register", str(wanted.hosts), "--gpus", "given", "--port", wanted.ports)
    if wanted.idle_seconds is None:
        lines += [
            "",
            "# The cards that Slurm gave this task, on free ports; the coordinator finds them.",
            f"exec {host}",
        ]
    else:
        lines += _with_coordinator(wanted, host)
    return "\n".join(lines) + "\n"


def _purpose(wanted: HostArray) -> str:
    return "submit it with sbatch." if wanted.idle_seconds is None else "submit it with sbatch. It ends by itself."


def _directives(wanted: HostArray) -> list[str]:
    return [
        f"--job-name={wanted.name}",
        f"--array=0-{wanted.tasks - 1}",
        f"--gres={wanted.gres}",
        *(f"--{limit}" for limit in wanted.limits),
        f"--output={wanted.logs}/%x-%A_%a.log",
    ]


def _directive(words: str) -> str:
    """Return an option of sbatch, quoted if it has blanks: sbatch splits these lines itself."""
    if not words.isprintable() or '"' in words or "\\" in words:
        raise UsageError(
            f"{words!r:.100} cannot stand in a line of a script: choose a path or value without such signs"
        )
    return f'"{words}"' if " " in words else words


def _with_coordinator(wanted: HostArray, host: str) -> list[str]:
    """Return the end of a script whose first task also runs the coordinator, and ends the job."""
    coordinator = _command(wanted, "coordinator", "--until-idle", f"{wanted.idle_seconds:g}")
    return [
        "",
        "# The cards that Slurm gave this task, on free ports; the coordinator finds them.",
        f"host=({host})",
        '[ "$SLURM_ARRAY_TASK_ID" = 0 ] || exec "${host[@]}"',
        "",
        "# The first task also runs the coordinator. TERM makes it stop before its host: what is in flight finishes.",
        "is_stopped= coordinator= code=0",
        "trap 'is_stopped=yes; kill \"$coordinator\" || true' TERM",
        '"${host[@]}" & host_pid=$!',
        f"{coordinator} & coordinator=$!",
        'wait -n "$host_pid" "$coordinator" || code=$?  # it ends early at TERM',
        'if [ -n "$is_stopped" ]; then',
        '    code=0; wait "$coordinator" || code=$?',
        'elif kill -0 "$coordinator" 2> /dev/null; then',
        "    # The host ended first. If it failed, the job ends, too: the reason is above in this log.",
        "    failed=$code code=0",
        '    [ "$failed" = 0 ] || kill "$coordinator" || true',
        '    wait "$coordinator" || wait "$coordinator" || code=$?',
        '    [ "$failed" = 0 ] || code=$failed',
        "fi",
        "trap '' TERM",
        f"# Nothing is left to do for {wanted.idle_seconds:g} s, or something failed: the other tasks end, too.",
        'if [ -z "$is_stopped" ]; then',
        '    scancel --state=PENDING "$SLURM_ARRAY_JOB_ID" || true',
        '    scancel --batch --signal=TERM "$SLURM_ARRAY_JOB_ID" || true',
        "fi",
        'kill "$host_pid" 2> /dev/null || true',
        'wait "$host_pid" || true',
        'exit "$code"',
    ]


def _command(wanted: HostArray, *words: str) -> str:
    chosen = () if wanted.configuration is None else ("--config", str(wanted.configuration))
    return " ".join([_word(wanted.obcd), *map(_word, (*words, *chosen))])


def _word(text: object) -> str:
    return shlex.quote(str(text))
