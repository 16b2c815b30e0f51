"""Tiny servers on loopback for the tests: plain sockets with a script for each connection, and simulated Ollama."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from obcd.standins.serve import start_site
from obcd.standins.simulated.gpu_server import Behaviour
from obcd.standins.sites import simulated_sites
from obcd.standins.wire.model_scheduler import SchedulerLimits
from obcd.standins.wire.settings import ServerSettings

#: What a server does with one accepted connection; it is closed afterwards.
Script = Callable[[socket.socket], None]


def ok(body: bytes = b"{}", headers: str = "") -> bytes:
    """Return a whole reply of status 200."""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def read_request(conn: socket.socket) -> bytes:
    """Read one POST with its body, or b"" when the client left."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = conn.recv(65536)
        if not block:
            return b""
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    fields = [line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:]]
    length = next((int(value) for name, value in fields if name == b"content-length"), 0)
    while len(body) < length:
        block = conn.recv(65536)
        if not block:
            return b""
        body += block
    return head + b"\r\n\r\n" + body


def replies(*whole: bytes) -> Script:
    """Return a script that answers one request after the other on one connection, then closes it."""

    def script(conn: socket.socket) -> None:
        for reply in whole:
            if not read_request(conn):
                return
            conn.sendall(reply)

    return script


def hangs(first: bytes = b"") -> Script:
    """Return a script that sends the beginning of a reply and waits until the client leaves."""

    def script(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(first)
        conn.recv(1)

    return script


def drips(first: bytes, pause: float = 0.005) -> Script:
    """Return a script that sends a byte again and again until the client leaves."""

    def script(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(first)
        while True:
            time.sleep(pause)
            conn.sendall(b" ")

    return script


def floods(first: bytes, again: bytes) -> Script:
    """Return a script that sends the same again and again, as fast as it is read, until the client leaves."""

    def script(conn: socket.socket) -> None:
        read_request(conn)
        conn.sendall(first)
        block = again * (65536 // len(again) + 1)
        while True:
            conn.sendall(block)

    return script


class SocketServer:
    """A listening socket and a thread for each connection; the last script serves all further connections."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self.connections = 0
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(60)
        self._listener.close()
        for conn in self._open:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._open.append(conn)
            thread = threading.Thread(target=self._serve, args=(conn, script))
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _serve(conn: socket.socket, script: Script) -> None:
        with contextlib.suppress(OSError), contextlib.closing(conn):
            script(conn)


class SimulatedServer:
    """One simulated Ollama on a loop in a thread."""

    def __init__(self, behaviour: Behaviour, parallel: int) -> None:
        settings = ServerSettings(limits=SchedulerLimits(parallel=parallel))
        (self._site,) = simulated_sites(1, settings, behaviour)
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.url = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(60)

    def requests(self) -> list[dict[str, Any]]:
        """Return the server's account of what it was asked."""
        with closing(HTTPConnection("127.0.0.1", int(self.url.rsplit(":", 1)[1]))) as connection:
            connection.request("GET", "/simulated/requests")
            return list(json.load(connection.getresponse())["requests"])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await start_site(self._site)
        self._site.api.ready.set()
        self.url = f"http://127.0.0.1:{server.port}"
        self._started.set()
        await self._stop.wait()
        self._site.api.stop()
        server.stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def serving(*scripts: Script) -> Iterator[SocketServer]:
    server = SocketServer(*scripts)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def simulating(behaviour: Behaviour | None = None, parallel: int = 4) -> Iterator[SimulatedServer]:
    server = SimulatedServer(behaviour or Behaviour(seconds=0.0, load_seconds=0.0), parallel)
    try:
        yield server
    finally:
        server.stop()
