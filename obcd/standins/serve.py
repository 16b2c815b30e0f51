"""Run stand-in servers until a signal: bind, announce, and stop at once as Ollama does (no drain).

One event loop serves any number of ports. This module does not print: the caller gets a line for each server.
"""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from obcd.errors import AlreadyRunningError, UsageError
from obcd.standins.wire.api import OllamaApi
from obcd.standins.wire.http import HttpServer
from obcd.standins.wire.settings import ServerSettings
from obcd.text import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One server to run."""

    api: OllamaApi
    settings: ServerSettings
    label: str  # `simulated`, `embedded`
    preload: str | None = None  # the model to load before the first request
    start_seconds: float = 0.0  # how long it accepts requests without answering, as Ollama does while it looks for GPUs


async def serve(sites: Sequence[Site], announce: Callable[[str], None]) -> None:
    """Run servers until SIGTERM or SIGINT, then drop every connection.

    Args:
        sites: the servers to run.
        announce: called with one line for each server as it starts to listen.

    Raises:
        AlreadyRunningError: a port is in use; then no server listens.
        UsageError: an address is not one of this machine.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servers: list[HttpServer] = []
    work: list[asyncio.Task[None]] = []
    try:
        for site in sites:
            servers.append(await start_site(site))
        for site, server in zip(sites, servers, strict=True):
            announce(address_line(site, server))
            work.append(loop.create_task(_make_ready(site)))
        await _until_stopped(stop, work)
    finally:
        for task in work:
            task.cancel()
        for site in sites:
            site.api.stop()
        for server in servers:
            server.stop()


async def start_site(site: Site) -> HttpServer:
    """Listen for one site, or raise an error that names the holder of its port."""
    server = HttpServer(site.api, site.api.lose_all)
    host, port = site.settings.host, site.settings.port
    try:
        await server.start(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunningError(
                f"port {port} on {host} is in use{holder_text(port)}; stop it, or choose another with --port (0 = any)."
            ) from error
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; give an address with --host."
        ) from error
    return server


def address_line(site: Site, server: HttpServer) -> str:
    """Return e.g. `http://127.0.0.1:40001  4 slots  simulated`."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"http://{host}:{server.port}  {plural(site.settings.limits.parallel, 'slot')}  {site.label}"


def holder_text(port: int) -> str:
    """Return ` by NAME (pid N)` for the process that listens on a port, or "" if it cannot be found."""
    try:
        found = [
            conn.pid
            for conn in psutil.net_connections("tcp")
            if conn.laddr and conn.laddr.port == port and conn.status == psutil.CONN_LISTEN
        ]
        pid = next((pid for pid in found if pid), None)
        return "" if pid is None else f" by {psutil.Process(pid).name()} (pid {pid})"
    except (psutil.Error, OSError):
        return ""


async def _make_ready(site: Site) -> None:
    if site.start_seconds:
        await asyncio.sleep(site.start_seconds)
    site.api.ready.set()
    if site.preload is not None:
        await site.api.preload(site.preload)


async def _until_stopped(stop: asyncio.Event, work: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the signal; raise an error that happens in the work before it."""
    waiting = asyncio.ensure_future(stop.wait())
    try:
        pending: set[asyncio.Future[object]] = {waiting, *work}  # type: ignore[arg-type]
        while waiting in pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
    finally:
        waiting.cancel()
