"""One `ollama serve` as a child of this process, without supervisord: its start, its end, what it leaves, its log.

    guard ─► obcd serve-gpu N --plan FOLDER ─► (exec) ollama serve ─► its runners       one process group: the actor's

The child stays in the process group of the Ray actor, which Ray ends as a whole, and gets SIGTERM from the kernel when
this process ends. `obcd serve-gpu` checks card and port, and ends what an earlier server of the card left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from obcd.clock import monotonic
from obcd.errors import ConfigurationError
from obcd.host.servers.binding import parse_ports
from obcd.host.servers.leftovers import end_leftovers
from obcd.host.servers.plan import HostPlan, Server, write_plan
from obcd.host.servers.planning import make_plan
from obcd.host.servers.runtime import make_folder
from obcd.ray.messages import ServerWish

#: Seconds between TERM and KILL when a server is ended.
TERM_SECONDS = 4.0
#: Bytes of a log at which it becomes `NAME.log.1`; Ollama writes a line per request.
LOG_BYTES = 10 * 2**20


class ServerProcess:
    """The server of the card that Ray gave this process.

    Args:
        wish: How it is to be started.
        bind: The address that it listens on.

    Attributes:
        plan, server: What is started; the port may be another one after each start.
        folder: Of its plan and its log; one for each card of this user on this machine.

    Raises:
        ObcdError: If the wish cannot be followed on this machine.
    """

    def __init__(self, wish: ServerWish, bind: str) -> None:
        self._wish, self._bind = wish, bind
        self.plan, self.server = self._choose()
        self.folder = runtime_folder(self.server)
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0

    def _choose(self) -> tuple[HostPlan, Server]:
        """Return a plan with a port that is free now."""
        plan = make_plan(self._wish.settings(), "given", ports=parse_ports(self._wish.ports), bind=self._bind)
        if len(plan.servers) != 1:
            raise ConfigurationError(
                f"Ray gave this actor {len(plan.servers)} GPUs, or a card with so many MIG instances: let Ray count "
                "the instances (CUDA_VISIBLE_DEVICES=MIG-UUID,… before ray start)"
            )
        return plan, plan.servers[0]

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.plan.url(self.server)

    @property
    def pid(self) -> int:
        """Its process id, 0 if it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    @property
    def age_seconds(self) -> float:
        """Seconds from its last start."""
        return monotonic() - self._began

    def start(self) -> None:
        """Start it; a port that was taken meanwhile is replaced by another one.

        Raises:
            ObcdError: If there is no free port, or the folder cannot be used.
            OSError: If no process can be started.
        """
        self.plan, self.server = self._choose()
        for folder in (self.folder.parent, self.folder, self.folder / "logs"):
            make_folder(folder)
        path = write_plan(self.plan, self.folder)
        words = ["serve-gpu", self.server.label, "--plan", str(path), "--parent", str(os.getpid())]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}  # also a token
        with self._log.open("ab") as log:  # for appending: it can be cut off while it is written
            self._process = subprocess.Popen(
                [sys.executable, "-m", "obcd", *words], env={**environment, "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._began = monotonic()

    def send(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def end(self) -> None:
        """End it, and every process that carries its mark.

        Raises:
            AlreadyRunningError: If one does not end even when it is killed.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TERM_SECONDS)
            self._process.kill()
            self._process.wait()
        end_leftovers(self.folder, self.server.label)

    def trim_log(self) -> None:
        """Move a log that has grown large away: the last one is kept."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_name(f"{self._log.name}.1"))
                os.truncate(self._log, 0)

    @property
    def _log(self) -> Path:
        return self.folder / "logs" / f"{self.server.program}.log"


def runtime_folder(server: Server) -> Path:
    """Return the folder of a card, the same for every Ray cluster of this user here: a card has one server."""
    return Path(tempfile.gettempdir()) / f"obcd-{os.getuid()}-ray" / (server.pin.replace("/", "_") or server.program)
