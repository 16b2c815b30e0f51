"""A server on loopback that answers as no Ollama does: whole replies byte by byte, by a word in the prompt."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What is written to the connection, which is closed afterwards.
Script = bytes | Callable[[Callable[[bytes], Any]], None]


def whole(body: bytes, headers: str = "Content-Type: application/json\r\n", status: str = "200 OK") -> bytes:
    """Return a reply with a length."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def answer(text: str, **changes: Any) -> bytes:
    """Return the body of a true answer; `changes` to its fields, None takes one away."""
    document = {
        "model": "llama3.2", "message": {"role": "assistant", "content": text}, "done": True, "done_reason": "stop",
        "eval_count": 3, "eval_duration": 1_000_000, **changes,
    }  # fmt: skip
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


class StrangeServer:
    """Speaks as much of Ollama as a coordinator needs.

    Attributes:
        scripts: `{word: what a prompt with this word in it gets}`; others get `answer(text)`.
        token: What it wants as a bearer token, "" for none.
        asked: How often each prompt came.
        refused: Requests without the right token.
        headers: Of every request that was let in, as `(path, Authorization)`.
    """

    def __init__(self, scripts: Mapping[str, Script], text: str = "fine", token: str = "") -> None:
        self.scripts = dict(scripts)
        self.text = text
        self.token = token
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self.let_in: Counter[str] = Counter()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                owner.control(self)

            def do_POST(self) -> None:
                owner.chat(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def name(self) -> str:
        """The endpoint as a configuration writes it."""
        return f"127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        """End it, whatever its connections do."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def control(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer version and tags."""
        if not self._lets_in(handler):
            return
        models = [{"name": "llama3.2:latest", "model": "llama3.2:latest", "digest": "d" * 64}]
        body = {"/api/version": {"version": "0.33.0"}, "/api/tags": {"models": models}}.get(handler.path, {})
        handler.wfile.write(whole(json.dumps(body).encode()))

    def chat(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a prompt, or a preload."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if not self._lets_in(handler):
            return
        if not body["messages"]:
            handler.wfile.write(whole(answer("", done_reason="load")))
            return
        prompt = body["messages"][-1]["content"]
        self.asked[prompt] += 1
        script = next((script for word, script in self.scripts.items() if word in prompt), None)
        if script is None:
            handler.wfile.write(whole(answer(self.text)))
            return
        handler.close_connection = True
        with contextlib.suppress(OSError):  # the client left
            if callable(script):
                script(handler.wfile.write)
            else:
                handler.wfile.write(script)

    def _lets_in(self, handler: BaseHTTPRequestHandler) -> bool:
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            self.refused += 1
            handler.wfile.write(whole(b'{"error": "unauthorized"}', status="401 Unauthorized"))
            return False
        self.let_in[handler.path] += 1
        return True


@contextlib.contextmanager
def strange(scripts: Mapping[str, Script], text: str = "fine", token: str = "") -> Iterator[StrangeServer]:
    """Serve inside the block."""
    server = StrangeServer(scripts, text, token)
    try:
        yield server
    finally:
        server.stop()
