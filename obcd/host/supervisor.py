"""supervisord's configuration, written by us, and supervisord itself, become by us.

Its file format has no quoting worth the name (a percent sign is doubled everywhere, a quote inside a value ends it), so
values that it cannot hold are refused here.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from obcd.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program that supervisor keeps.

    Attributes:
        priority: Lower starts first and stops last.
        stop_signal: What asks it to stop.
        stop_seconds: How long it may take to stop before it is killed.
    """

    name: str
    command: tuple[str, ...]
    priority: int = 100
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    environment: Mapping[str, str] = field(default_factory=dict)


def render(programs: list[Program], runtime: Path) -> str:
    """Return supervisord's configuration for some programs.

    Args:
        runtime: A short folder with a plain path, 0700: the control socket lies in it, and `logs`, where each
            program's own log goes as `<name>.log`.

    Raises:
        ConfigurationError: If a value cannot be written into it.
    """
    socket, logs = runtime / "supervisor.sock", runtime / "logs"
    sections = [
        f"[supervisord]\nnodaemon=true\nlogfile={_value(logs / 'supervisord.log')}\nlogfile_maxbytes=5MB\n"
        f"logfile_backups=1\nloglevel=info\nsilent=true\npidfile={_value(runtime / 'supervisord.pid')}\n"
        f"childlogdir={_value(logs)}\n",
        f"[unix_http_server]\nfile={_value(socket)}\nchmod=0700\nusername=obcd\npassword=obcd\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        f"[supervisorctl]\nserverurl={_value('unix://' + str(socket))}\nusername=obcd\npassword=obcd\n",
    ]
    return "\n".join([*sections, *(_section(program, logs) for program in programs)])


def _section(program: Program, logs: Path) -> str:
    environment = ",".join(f'{key}="{_value(value)}"' for key, value in program.environment.items())
    return (
        f"[program:{program.name}]\n"
        f"command={_value(shlex.join(program.command))}\n"
        f"priority={program.priority}\n"
        "autorestart=true\nstartsecs=2\nstartretries=1000000\n"
        f"stopsignal={program.stop_signal}\nstopwaitsecs={program.stop_seconds}\n"
        # not stopasgroup: the coordinator ends its workers itself, in order; killasgroup: nothing outlives it
        "stopasgroup=false\nkillasgroup=true\nredirect_stderr=true\n"
        f"stdout_logfile={_value(logs / (program.name + '.log'))}\n"
        "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=3\n"
        + (f"environment={environment}\n" if environment else "")
    )


def write_configuration(programs: list[Program], runtime: Path, logs: Path) -> Path:
    """Write the configuration into the runtime folder and return its path."""
    logs.mkdir(parents=True, exist_ok=True)
    _link(runtime / "logs", logs)
    path = runtime / "supervisord.conf"
    path.write_text(render(programs, runtime), "utf-8")
    path.chmod(0o600)
    return path


def _link(link: Path, target: Path) -> None:
    """Let a link point to the logs: supervisor expands a percent sign in log paths twice, in commands once (#1441)."""
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)


def command(configuration: Path) -> list[str]:
    """Return the command line of a supervisord in the foreground, from this Python."""
    return [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(configuration)]


def become(configuration: Path) -> None:
    """Replace this process by supervisord."""
    line = command(configuration)
    os.execv(line[0], line)  # noqa: S606 - no shell is meant


def _value(value: str | Path) -> str:
    text = str(value)
    if any(char in text for char in '"\n\r') or " ;" in text:
        raise ConfigurationError(f"{text!r:.80} cannot stand in supervisor's configuration: use a plainer path")
    return text.replace("%", "%%")
