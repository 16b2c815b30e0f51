"""Stands in for `ollama serve` on PATH: records how it was started, has a runner, and misbehaves when it is told to.

`tests/gpu_support.py` copies it to an executable `ollama`. Standard library only, and quick: it starts 8 at a time.

In the folder `STANDIN_FOLDER` it writes, per port,

    env-<port>.json   its environment          argv-<port>.json   its arguments
    pid-<port>        its process id           runner-<port>      that of its runner
    starts-<port>     a line per start: pid and time.time()

and looks for these files, whose presence switches a behaviour:

    fail-<port>       it ends with code 1 before it listens
    hang-ps-<port>    GET /api/ps does not answer while the file is there
    cpu-<port>        /api/ps shows the model off the GPU (size_vram 0); so it is with CUDA_VISIBLE_DEVICES=-1
    idle-<port>       /api/ps shows no model
    stubborn-<port>   neither server nor runner heeds TERM
    slow-pull-<port>  each of the five steps of a pull takes 0.3 s
    fail-pull-<port>  a pull ends with an error

A TERM or INT ends the runner too, as it does with Ollama; a KILL leaves the runner behind. Whatever happens, both end
by themselves after 15 minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from types import FrameType
from typing import Any

#: Put here by gpu_support, for starts whose environment has no STANDIN_FOLDER.
DEFAULT_FOLDER = ""
FOLDER = os.environ.get("STANDIN_FOLDER") or DEFAULT_FOLDER
LIFE_SECONDS = 900
MODEL_BYTES = 4_000_000_000


def listen_address() -> tuple[str, int]:
    """Return host and port of OLLAMA_HOST as Ollama reads it (port 11434 where it names none)."""
    host, colon, port = os.environ.get("OLLAMA_HOST", "127.0.0.1:11434").rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port) if colon else 11434


HOST, PORT = listen_address() if __name__ == "__main__" else ("127.0.0.1", 0)


def path(name: str) -> str:
    """Return where this port's file of a name is."""
    stem, dot, suffix = name.partition(".")
    return os.path.join(FOLDER, f"{stem}-{PORT}{dot}{suffix}")


def is_set(behaviour: str) -> bool:
    """Tell whether a behaviour is switched on."""
    return os.path.exists(path(behaviour))


def record(name: str, content: str) -> None:
    """Write a whole file at once."""
    temporary = f"{path(name)}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
    os.rename(temporary, path(name))


def start_runner(server: Server) -> int:
    """Start the process that would hold the GPU's memory: a group of its own, and no care for its parent."""
    pid = os.fork()
    if pid:
        return pid
    server.socket.close()  # as by an exec: Go's sockets are close-on-exec
    os.setpgid(0, 0)
    signal.alarm(LIFE_SECONDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None if is_set("stubborn") else os._exit(0))
    with open(os.devnull, "r+b") as nothing:  # it must not hold its parent's log open
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)
    while True:
        signal.pause()


class Answers(BaseHTTPRequestHandler):
    """The few paths of Ollama's API that a supervisor asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer version, ps and tags."""
        if self.path == "/api/ps":
            while is_set("hang-ps"):
                time.sleep(0.05)
        found = {"/": {}, "/api/version": {"version": "0.99.0"}, "/api/ps": ps(), "/api/tags": tags()}.get(self.path)
        self._send(404 if found is None else 200, {"error": "not found"} if found is None else found)

    def do_HEAD(self) -> None:
        """Answer what a client asks to see whether somebody is there."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Answer pull, in chunks, and every prompt with one word."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path == "/api/chat":
            self._send(200, chat(str(body.get("model"))))
            return
        if self.path != "/api/pull":
            self._send(404, {"error": "not found"})
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in pull(str(body.get("model") or body.get("name"))):
            raw = json.dumps(line).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, document: dict[str, Any]) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def ps() -> dict[str, Any]:
    """Return the body of /api/ps."""
    if is_set("idle"):
        return {"models": []}
    is_off = is_set("cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") == "-1"
    model = {"name": "llama3.2:latest", "model": "llama3.2:latest", "digest": "a" * 64, "context_length": 8192}
    sizes = {"size": MODEL_BYTES, "size_vram": 0 if is_off else MODEL_BYTES}
    return {"models": [{**model, **sizes, "expires_at": "2318-01-01T00:00:00Z"}]}


def tags() -> dict[str, Any]:
    """Return the body of /api/tags: every model that any server of the folder pulled."""
    try:
        with open(os.path.join(FOLDER, "pulled"), encoding="utf-8") as file:
            names = sorted({line.split()[1] for line in file})
    except FileNotFoundError:
        names = []
    return {"models": [{"name": name, "model": name, "size": MODEL_BYTES, "digest": "a" * 64} for name in names]}


def chat(model: str) -> dict[str, Any]:
    """Return the body of /api/chat."""
    counts = {"prompt_eval_count": 5, "prompt_eval_duration": 1_000_000, "eval_count": 1, "eval_duration": 1_000_000}
    times = {"created_at": "2026-01-01T00:00:00Z", "total_duration": 2_000_000, "load_duration": 0}
    answer = {"role": "assistant", "content": "Because."}
    return {"model": model, "message": answer, "done": True, "done_reason": "stop", **times, **counts}


def pull(model: str) -> Any:
    """Yield the lines of a pull; `pulled` gets a line `<port> <model>` at its end."""
    yield {"status": "pulling manifest"}
    if is_set("fail-pull"):
        yield {"error": "pull model manifest: file does not exist"}
        return
    for step in range(1, 6):
        time.sleep(0.3 if is_set("slow-pull") else 0)
        layer = {"digest": "sha256:" + "a" * 64, "total": MODEL_BYTES, "completed": MODEL_BYTES * step // 5}
        yield {"status": "pulling aaaaaaaaaaaa", **layer}
    with open(os.path.join(FOLDER, "pulled"), "a", encoding="utf-8") as file:
        file.write(f"{PORT} {model if ':' in model else model + ':latest'}\n")
    yield {"status": "success"}


class Server(ThreadingHTTPServer):
    """A listener as Go makes it."""

    address_family = AF_INET6 if ":" in HOST else AF_INET
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which may take seconds."""
        self.socket.setsockopt(1, 2, 1)  # SOL_SOCKET, SO_REUSEADDR: so does Go's net.Listen
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = HOST, PORT


def serve() -> int:
    """Serve until TERM."""
    signal.alarm(LIFE_SECONDS)
    with open(path("starts"), "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {time.time():.3f}\n")
    record("env.json", json.dumps(dict(os.environ)))
    record("argv.json", json.dumps(sys.argv))
    if is_set("fail"):
        sys.stderr.write("Error: told to fail\n")
        return 1
    try:
        server = Server((HOST, PORT), Answers)
    except OSError as error:
        sys.stderr.write(f"Error: listen tcp {HOST}:{PORT}: bind: {error.strerror}\n")
        return 1
    runner = start_runner(server)

    def end(number: int, _: FrameType | None) -> None:
        if not is_set("stubborn"):
            os.kill(runner, signal.SIGTERM)
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    record("runner", str(runner))
    record("pid", str(os.getpid()))
    sys.stderr.write(f"Listening on {HOST}:{PORT} (version 0.99.0)\n")
    sys.stderr.flush()
    server.serve_forever(0.5)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] != ["serve"]:
        sys.stderr.write(f"this stand-in knows `serve` alone, not {sys.argv[1:]}\n")
        sys.exit(2)
    sys.exit(serve())
