"""The programs of `obcd up`: stand-in servers on loopback, and the coordinator in front of them."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import UsageError, naming
from obcd.host.supervisord.configuration import Program
from obcd.parent_death import VARIABLE


def tied() -> dict[str, str]:
    """Return the environment that ties a program to supervisord, which this process becomes: both end together."""
    return {VARIABLE: str(os.getpid())}


#: The port of the status page where it is free.
USUAL_PAGE_PORT = 8620


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIns:
    """The stand-in servers to start.

    Attributes:
        model: A GGUF file for embedded servers; None means simulated ones.
        name: The name of the model.
        count: Number of servers.
        parallel: Slots of each.
        threads: Computing threads of each embedded server.
        context: Context length in tokens.
    """

    model: Path | None
    name: str
    count: int
    parallel: int
    threads: int = 1
    context: int = 4096


def page_port(usual: int = USUAL_PAGE_PORT) -> int:
    """Return the port of a status page for which the configuration names none: the usual one if it is free."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", usual))
        except OSError:
            return free_ports(1)[0]
    return usual


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now; each is held until all are found."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            with naming("a free port of 127.0.0.1"):
                sock = held.enter_context(socket.socket())
                sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


def stand_in_programs(wanted: StandIns, ports: list[int]) -> list[Program]:
    """Return one program per server."""
    if len(ports) != wanted.count:
        raise UsageError(f"{wanted.count} servers need as many ports")
    return [
        Program(name=f"server{number}", command=_server_command(wanted, port), priority=100, environment=tied())
        for number, port in enumerate(ports)
    ]


def coordinator_program(configuration: Path | None, root: Path) -> Program:
    """Return the coordinator's program; it starts last and stops first.

    INT stops it at once, because a user who presses Ctrl-C waits; requests in flight are sent again at the next start.
    """
    chosen = ("--config", str(configuration)) if configuration is not None else ()
    return Program(
        name="coordinator",
        command=(sys.executable, "-m", "obcd", "coordinator", *chosen, "--root", str(root)),
        priority=200,
        stop_signal="INT",
        environment=tied(),
    )


def page_program(configuration: Path | None, root: Path, port: int) -> Program:
    """Return the program of the status page; it stops before the coordinator.

    Args:
        port: Of TCP, on the address of the configuration.
    """
    chosen = ("--config", str(configuration)) if configuration is not None else ()
    return Program(
        name="page",
        command=(sys.executable, "-m", "obcd", "page", *chosen, "--root", str(root), "--port", str(port)),
        priority=300,
        environment=tied(),
    )


def endpoint_table(wanted: StandIns, ports: list[int]) -> dict[str, dict[str, int]]:
    """Return the `[ollama_instances]` of the servers."""
    return {f"127.0.0.1:{port}": {"gpu": gpu, "slots": wanted.parallel} for gpu, port in enumerate(ports)}


def _server_command(wanted: StandIns, port: int) -> tuple[str, ...]:
    shared = ("--port", str(port), "--parallel", str(wanted.parallel), "--context", str(wanted.context))
    if wanted.model is None:
        return (sys.executable, "-m", "obcd", "simulate", *shared, "--models", wanted.name)
    own = ("--model", str(wanted.model), "--name", wanted.name, "--threads", str(wanted.threads))
    return (sys.executable, "-m", "obcd", "embedded", *shared, *own)
