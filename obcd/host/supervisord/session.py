"""Run a supervisord for as long as one command runs (`obcd demo`), in its own session, and end it in every case.

The child has its own session, so that a terminal's Ctrl-C reaches only the command, which then stops the child in
order. The child is tied to its parent, so that it ends even if the command is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from obcd.parent_death import VARIABLE

#: Seconds that an orderly stop may take before everything is killed.
STOP_SECONDS = 20.0


class Session:
    """One child process with all its descendants; a context manager.

    Args:
        command: The command line.
        log: The file for its output.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Session:
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, VARIABLE: str(os.getpid())},
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def has_ended(self) -> bool:
        """Return whether the child has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Send TERM, wait, then kill; another Ctrl-C does not interrupt this."""
        process = self._process
        if process is None:
            return
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        finally:
            signal.signal(signal.SIGINT, ignored)
        self._process = None
