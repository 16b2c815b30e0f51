"""A server on loopback that answers paths as a test says."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: A model as /api/ps shows it.
MODEL = {"name": "llama3.2:latest", "size": 100, "size_vram": 40, "context_length": 8192}


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.asked.append(self.path)
        if not server.slow or self.path in server.slow:
            server.is_open.wait(30)
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.bodies[self.path])


class Server(ThreadingHTTPServer):
    """Serves from its making to `end`.

    Attributes:
        bodies: {path: body}.
        is_open: Clear it, and it hangs.
        slow: The paths that hang then; all when empty.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.slow: set[str] = set()
        self.status = 200
        self.bodies = {"/api/ps": json.dumps({"models": [MODEL]}).encode(), "/api/version": b'{"version": "0.33.0"}'}
        self.is_open = threading.Event()
        self.is_open.set()
        self._serving = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._serving.start()

    def handle_error(self, *_: Any) -> None:
        """Whoever asked may be gone before the answer."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self) -> None:
        self.is_open.set()
        self.shutdown()
        self._serving.join()
        self.server_close()
