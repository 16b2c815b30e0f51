"""Write supervisord's configuration, and replace this process with supervisord.

The file format has no real quoting (a percent sign is doubled everywhere, a quote inside a value ends it), so values
that it cannot hold are refused here.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from obcd.errors import ConfigurationError
from obcd.host.supervisord import parallel_start


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program that supervisor keeps running.

    Attributes:
        priority: A lower one starts first and stops last.
        stop_signal: The signal that stops it.
        stop_seconds: Seconds to stop before it is killed.
        start_seconds: Seconds that it must live to count as RUNNING; if it ends sooner, the pauses between starts grow.
        start_retries: After this many early ends it is FATAL: supervisor gives up.
        stops_as_group: Whether the stop signal goes to all of its process group (the final KILL always does).
    """

    name: str
    command: tuple[str, ...]
    priority: int = 100
    stop_signal: str = "TERM"
    stop_seconds: int = 10
    start_seconds: int = 2
    start_retries: int = 1000000
    stops_as_group: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventListener:
    """A program to which supervisor sends events; its standard output is the protocol, its log is standard error.

    Attributes:
        events: Supervisor's names of the events, e.g. `TICK_5`.
    """

    name: str
    command: tuple[str, ...]
    events: tuple[str, ...]


#: Credentials of the control socket, not secret: the socket is 0700, and without them supervisord warns at each start.
USER, PASSWORD = "obcd", "obcd"
COMMENT = re.compile(r"\s[;#]")
SOCKET_NAME = "supervisor.sock"


def render(
    programs: Sequence[Program],
    runtime: Path,
    listeners: Sequence[EventListener] = (),
    *,
    is_silent: bool = True,
    level: str = "info",
) -> str:
    """Return supervisord's configuration for some programs.

    Args:
        is_silent: Whether supervisord writes only to its log, and nothing to standard output.
        level: The log level: `info`, or `warn` for problems only.
        runtime: A short folder with a plain path, mode 0700: it holds the control socket, and `logs`, which holds the
            log of each program as `<name>.log`.

    Raises:
        ConfigurationError: If a value cannot be written into it.
    """
    socket, logs = runtime / SOCKET_NAME, runtime / "logs"
    sections = [
        f"[supervisord]\nnodaemon=true\nlogfile={_value(logs / 'supervisord.log')}\nlogfile_maxbytes=5MB\n"
        f"logfile_backups=1\nloglevel={level}\nsilent={_flag(is_silent)}\n"
        f"pidfile={_value(runtime / 'supervisord.pid')}\n"
        f"childlogdir={_value(logs)}\n" + ("user=root\n" if os.geteuid() == 0 else ""),  # otherwise it warns about root
        f"[unix_http_server]\nfile={_value(socket)}\nchmod=0700\nusername={USER}\npassword={PASSWORD}\n",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        f"[rpcinterface:obcd]\nsupervisor.rpcinterface_factory={parallel_start.FACTORY}\n",
        f"[supervisorctl]\nserverurl={_value('unix://' + str(socket))}\nusername={USER}\npassword={PASSWORD}\n",
    ]
    sections += [_section(program, logs) for program in programs]
    return "\n".join([*sections, *(_listener_section(listener, logs) for listener in listeners)])


def _section(program: Program, logs: Path) -> str:
    environment = ",".join(f'{key}="{_value(value)}"' for key, value in program.environment.items())
    return (
        f"[program:{program.name}]\n"
        f"command={_value(shlex.join(program.command))}\n"
        f"priority={program.priority}\n"
        f"autorestart=true\nstartsecs={program.start_seconds}\nstartretries={program.start_retries}\n"
        f"stopsignal={program.stop_signal}\nstopwaitsecs={program.stop_seconds}\n"
        # no stopasgroup: the coordinator ends its workers itself, in order; killasgroup: no child outlives it
        f"stopasgroup={_flag(program.stops_as_group)}\nkillasgroup=true\nredirect_stderr=true\n"
        f"stdout_logfile={_value(logs / (program.name + '.log'))}\n"
        "stdout_logfile_maxbytes=10MB\nstdout_logfile_backups=3\n"
        + (f"environment={environment}\n" if environment else "")
    )


def _listener_section(listener: EventListener, logs: Path) -> str:
    return (
        f"[eventlistener:{listener.name}]\n"
        f"command={_value(shlex.join(listener.command))}\n"
        f"events={','.join(listener.events)}\n"
        "buffer_size=100\n"  # the default of 10 drops events while it is busy
        "autorestart=true\nstartsecs=1\nstartretries=1000000\nstopwaitsecs=10\nkillasgroup=true\n"
        "stdout_logfile=NONE\n"
        f"stderr_logfile={_value(logs / (listener.name + '.log'))}\n"
        "stderr_logfile_maxbytes=10MB\nstderr_logfile_backups=3\n"
    )


def write_configuration(
    programs: Sequence[Program],
    runtime: Path,
    logs: Path,
    listeners: Sequence[EventListener] = (),
    *,
    is_silent: bool = True,
    level: str = "info",
) -> Path:
    """Write the configuration into the runtime folder and return its path."""
    logs.mkdir(parents=True, exist_ok=True)
    _link(runtime / "logs", logs)
    path = runtime / "supervisord.conf"
    path.write_text(render(programs, runtime, listeners, is_silent=is_silent, level=level), "utf-8")
    path.chmod(0o600)
    return path


def _link(link: Path, target: Path) -> None:
    """Make a link to the logs: supervisor expands a percent sign in log paths twice, in commands once (#1441)."""
    link.unlink(missing_ok=True)
    link.symlink_to(target, target_is_directory=True)


def command(configuration: Path) -> list[str]:
    """Return the command line of a supervisord in the foreground, from this Python."""
    return [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "--configuration", str(configuration)]


def become(configuration: Path) -> None:
    """Replace this process with supervisord."""
    line = command(configuration)
    os.execv(line[0], line)  # noqa: S606 - no shell is wanted


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _is_text(text: str) -> bool:
    """Return whether a text can be written: a file's name may hold bytes that are not characters."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _value(value: str | Path) -> str:
    text = str(value)
    # supervisor's parser reads ; and # after white space as a comment, and writes the file as UTF-8
    if any(char in text for char in '"\n\r') or COMMENT.search(text) or not _is_text(text):
        raise ConfigurationError(
            f"{text!r:.80} cannot be written to supervisor's configuration: use a path without special characters"
        )
    return text.replace("%", "%%")
