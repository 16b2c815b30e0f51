"""Receivers of notifications on loopback: what a webhook gets, and stand-ins for sendmail and a command."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: A secret of OpenAI's own tests (openai-python, tests/lib/test_webhooks.py or api_resources/webhooks).
SECRET = "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="


@dataclass(frozen=True)
class Received:
    """One POST."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """A receiver: it answers with what `answer` returns for the number of the request, a status and headers."""

    answer: Callable[[int], tuple[int, Mapping[str, str]]] = lambda number: (200, {})
    received: list[Received] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?room=1"

    def ids(self) -> list[str]:
        return [item.id for item in self.received]

    def jobs(self) -> list[str]:
        """Return the names of the jobs' files, in the order in which they came."""
        return [item.message["data"].get("name", "") for item in self.received]


@contextlib.contextmanager
def receiving(answer: Callable[[int], tuple[int, Mapping[str, str]]] | None = None) -> Iterator[Receiver]:
    """Receive inside the block."""
    receiver = Receiver(answer) if answer is not None else Receiver()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = len(receiver.received)
                receiver.received.append(Received(self.path, dict(self.headers.items()), body))
            status, headers = receiver.answer(number)
            with contextlib.suppress(OSError):  # the sender was killed
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_secret(path: Path) -> Path:
    """Write the secret as `[notify]` wants it."""
    path.touch(0o600)
    path.write_text(f"{SECRET}\n")
    return path


def write_program(path: Path, log: Path, code: int = 0) -> Path:
    """Write a program that appends its arguments and its standard input to a file, one JSON array a line."""
    path.write_text(
        f"#!/bin/sh\nexec {sys.executable} -I -S -c 'import json, sys\n"
        'open(sys.argv[1], "a").write(json.dumps([sys.argv[3:], sys.stdin.read()]) + chr(10))\n'
        f'sys.exit(int(sys.argv[2]))\' {log} {code} "$@"\n'
    )
    path.chmod(0o755)
    return path


def given_to(log: Path) -> list[tuple[list[str], str]]:
    """Return what such a program was given, each time: arguments and standard input."""
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return [(found[0], found[1]) for found in map(json.loads, lines)]
