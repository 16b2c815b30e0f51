"""A fresh root with a real coordinator on it: drop a file, see its answers come, end or kill the process by its id."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.bench import procfs
from tests.bench.entry import Turn, read_turns

#: Seconds between two looks at the outbox: small beside what is measured, and next to no CPU.
LOOK_SECONDS = 0.005
MEMORY = Path("/dev/shm")


def prompts(count: int, line_bytes: int = 0) -> Iterator[bytes]:
    """Yield lines that are all different, padded to `line_bytes` with their LF when that is not 0."""
    for number in range(count):
        start = b'{"id": %d, "prompt": "Question %d: what comes next?' % (number, number)
        yield start + _padding(line_bytes - len(start) - 3) + b'"}\n'


def _padding(length: int) -> bytes:
    return (b" And what comes after that?" * (length // 27 + 1))[:length] if length > 0 else b""


def wait_until(done: Callable[[], bool], seconds: float, what: str, look: float = LOOK_SECONDS) -> float:
    """Wait for a condition and return the monotonic time at which it was seen.

    Raises:
        TimeoutError: If it does not come true within `seconds`.
    """
    limit = time.monotonic() + seconds
    while not done():
        if time.monotonic() > limit:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(look)
    return time.monotonic()


class Spool:
    """One root below a temporary folder, and at most one coordinator at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self._turns = folder / "turns"
        # in memory where there is such a folder, as /run is
        self.runtime = Path(tempfile.mkdtemp(prefix="obcd-", dir=MEMORY if os.access(MEMORY, os.W_OK) else folder))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the coordinators said."""
        return self.folder / "coordinator.log"

    @property
    def pid(self) -> int:
        """The coordinator's process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, configuration: str, *, is_timed: bool = False) -> None:
        """Start a coordinator; it need not be ready when this returns.

        Args:
            is_timed: Take the time of every turn of its loop, for `turns`; that costs it as much as a third of its own.
        """
        file = self.folder / "obcd.toml"
        file.write_text(configuration, "utf-8")
        command = [sys.executable, "-m", "tests.bench.entry", "coordinator"]
        own = {"XDG_RUNTIME_DIR": str(self.runtime), "OBCD_DIE_WITH_PARENT": "1"}
        own |= {"OBCD_BENCH_TURNS": str(self._turns)} if is_timed else {}
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(file), "--root", str(self.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **own},
            )  # fmt: skip

    def status(self) -> dict[str, Any]:
        """Return the coordinator's snapshot; empty while there is none."""
        for path in self.runtime.glob("*/status.json"):
            with contextlib.suppress(OSError, ValueError):
                document: dict[str, Any] = json.loads(path.read_bytes())
                return document if document["pid"] == self.pid else {}
        return {}

    def wait_ready(self) -> None:
        """Wait until all endpoints are up."""
        wait_until(self._is_ready, 30, f"the coordinator is not ready, see {self.log}")

    def _is_ready(self) -> bool:
        found = self.status()
        return found.get("state") == "READY" and all(item["state"] == "UP" for item in found["endpoints"])

    def wait_running(self, name: str) -> float:
        """Wait until a job is given out; return when that was seen."""
        return wait_until(lambda: self._is_running(name), 120, f"{name} does not run", look=0.1)

    def _is_running(self, name: str) -> bool:
        return any(job["name"] == name and job["state"] == "RUNNING" for job in self.status().get("jobs", ()))

    def drop(self, name: str, lines: Iterable[bytes], owner: int | None = None) -> float:
        """Drop a file as `obcd submit` does: whole and durable, its marker first, then one rename.

        Args:
            owner: The uid of another submitter; needs root, else it is ours.

        Returns:
            The monotonic time just before the rename: from then on the file counts as settled.
        """
        self.write(name, lines, owner)
        return self.release(name)

    def write(self, name: str, lines: Iterable[bytes], owner: int | None = None) -> None:
        """Do of a drop all but the last rename."""
        inbox, digest, size, count = self.root / "inbox", hashlib.sha256(), 0, 0
        temporary = inbox / f".{name}.tmp"
        with open(temporary, "wb", buffering=2**20) as file:
            for line in lines:
                file.write(line)
                digest.update(line)
                size, count = size + len(line), count + 1
            file.flush()
            os.fsync(file.fileno())
        marker = {"sha256": digest.hexdigest(), "bytes": size, "lines": count, "drop_id": name}
        (inbox / f".{name}.done.tmp").write_text(json.dumps(marker), "utf-8")
        (inbox / f".{name}.done.tmp").rename(inbox / f"{name}.done")
        if owner is not None and os.geteuid() == 0:
            os.chown(temporary, owner, -1)

    def release(self, name: str) -> float:
        """Do the last rename of a file that was written; return when."""
        began = time.monotonic()
        (self.root / "inbox" / f".{name}.tmp").rename(self.root / "inbox" / name)
        return began

    def wait_published(self, name: str, seconds: float) -> tuple[float, Path]:
        """Wait for a job's folder; return when it was seen, and where it is."""
        folder = self.root / "outbox" / name.removesuffix(".jsonl")
        return wait_until((folder / "manifest.json").exists, seconds, f"{name} is not published"), folder

    def jobs(self) -> set[str]:
        """Return the accepted jobs that are not published."""
        return {path.name for path in (self.root / "jobs").iterdir() if not path.name.endswith(".tmp")}

    def kill(self) -> tuple[float, int]:
        """Kill the coordinator with SIGKILL, and see its children end by themselves.

        Returns:
            When that was, and how many of them had to be killed (by their ids) because they did not.
        """
        children = procfs.tree(self.pid).keys() - {self.pid}
        at = time.monotonic()
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(map(_is_alive, children)), 5, "children")
        left = [pid for pid in children if _is_alive(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return at, len(left)

    def stop(self) -> None:
        """End the coordinator without waiting for what is in flight."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        for _ in range(2):  # the second one means: now
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def turns(self, since: float, until: float) -> list[Turn]:
        """Return the turns of the main loop between two times; the coordinator must have ended."""
        return [turn for turn in read_turns(self._turns) if since <= turn.began <= until]


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return False


@contextlib.contextmanager
def fresh_spool() -> Iterator[Spool]:
    """Make a root under the temporary folder (TMPDIR), and leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="obcd-bench-"))
    spool = Spool(folder)
    try:
        yield spool
    finally:
        spool.stop()
        shutil.rmtree(folder)
        shutil.rmtree(spool.runtime, ignore_errors=True)
