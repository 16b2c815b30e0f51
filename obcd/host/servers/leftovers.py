r"""End leftovers of earlier servers: an `ollama serve` that was killed leaves its runner, which keeps its memory.

Every server starts with `OBCD_SLOT=<runtime folder>:<label>` in its environment, and its runners inherit this mark.
Only the mark decides that a process is ended: never its name, never a process of another user, the caller or its
ancestors.

    /proc/PID/environ:  …\0OBCD_SLOT=/run/obcd-host:2\0…
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import AlreadyRunningError

logger = logging.getLogger(__name__)

#: The variable that marks the slot of a process.
VARIABLE = "OBCD_SLOT"
#: The variables that pin a server to its card, as /proc shows them.
PIN_VARIABLES = (b"CUDA_VISIBLE_DEVICES=", b"ROCR_VISIBLE_DEVICES=")
#: Seconds between TERM and KILL. A healthy runner frees its memory on TERM; for one that hangs, this wait is enough.
TERM_SECONDS = 5.0
#: Seconds that a killed process may take to disappear; longer only inside a failing driver.
KILL_SECONDS = 20.0
#: How many times leftovers are looked for: a server that is ending may still start a runner.
MAX_ROUNDS = 5


def slot(runtime: Path, label: str) -> str:
    """Return the mark of one slot of one host; /var/run and /run are the same folder."""
    return f"{os.path.realpath(runtime)}:{label}"


def slot_of(pid: int) -> tuple[str, str] | None:
    """Return the runtime folder and the label of a process's slot, None if it has no mark."""
    start = os.fsencode(f"{VARIABLE}=")
    mark = next((item for item in _environment(pid).split(b"\0") if item.startswith(start)), b"")
    folder, colon, label = mark.removeprefix(start).decode(errors="replace").rpartition(":")
    return (folder, label) if colon else None


def neighbours(runtime: Path) -> dict[str, str]:
    """Return `{card's UUID: runtime folder}` of the servers of other hosts of this user."""
    ours, found = os.path.realpath(runtime), dict[str, str]()
    for pid in _own_processes():
        folder, _ = slot_of(pid) or (ours, "")
        if folder != ours:
            pins = [item for item in _environment(pid).split(b"\0") if item.startswith(PIN_VARIABLES)]
            found |= {pin.partition(b"=")[2].decode(errors="replace"): folder for pin in pins}
    return found


def end_leftovers(runtime: Path, label: str | None) -> list[int]:
    """End every process of this user that carries the mark of a slot, and return their ids when they have ended.

    Args:
        runtime: The host's runtime folder.
        label: The slot; None for every slot of this host.

    Raises:
        AlreadyRunningError: If a process cannot be ended; the others have ended.
    """
    ended: list[int] = []
    for _ in range(MAX_ROUNDS):
        with contextlib.ExitStack() as held:
            found = [held.enter_context(item) for item in _find(_mark(runtime, label))]
            if not found:
                break
            ended += [item.pid for item in found]
            logger.info("ending what an earlier server left: %s", _listed(found), extra={"action": "leftover_ended"})
            _end(found)
    return ended


def _mark(runtime: Path, label: str | None) -> Callable[[bytes], bool]:
    """Return a test whether an environment, as /proc shows it, carries the mark."""
    start = os.fsencode(f"{VARIABLE}={slot(runtime, '')}")
    if label is not None:
        whole = start + os.fsencode(label)
        return lambda environment: whole in environment.split(b"\0")

    def has_any(environment: bytes) -> bool:
        labels = [item[len(start) :] for item in environment.split(b"\0") if item.startswith(start)]
        return any(
            label and b":" not in label and b"/" not in label for label in labels
        )  # otherwise the mark of another folder

    return has_any


@dataclass(frozen=True, slots=True)
class _Leftover:
    """A process that carries the mark, held by a descriptor: its id may be reused at any time, the descriptor not.

    Attributes:
        descriptor: From pidfd_open(2); None on kernels before 5.3.
    """

    pid: int
    descriptor: int | None
    is_ours: Callable[[bytes], bool]

    def __enter__(self) -> _Leftover:
        return self

    def __exit__(self, *_: object) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)

    def is_gone(self) -> bool:
        """Return whether it has ended; a zombie counts as ended."""
        if self.descriptor is None:
            return not self.is_ours(_environment(self.pid))
        poll = select.poll()  # not select(): descriptors above 1023
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.descriptor is not None:
                signal.pidfd_send_signal(self.descriptor, number)
            elif not self.is_gone():
                os.kill(self.pid, number)


def _find(is_ours: Callable[[bytes], bool]) -> Iterator[_Leftover]:
    kept = _ancestors()
    for pid in _own_processes():
        if pid in kept or not is_ours(_environment(pid)):
            continue
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        except OSError as error:
            if error.errno != errno.ENOSYS:
                error.filename = f"process {pid}"
                raise
            descriptor = None
        item = _Leftover(pid, descriptor, is_ours)
        # Checked again while it is held: if the first process ended before, its id may belong to an unrelated one.
        # It still runs after that, so the environment that was read is that of the held process.
        if is_ours(_environment(pid)) and not item.is_gone():
            yield item
        else:
            item.__exit__()


def _own_processes() -> Iterator[int]:
    try:
        names = os.listdir("/proc")
    except FileNotFoundError:  # not Linux
        return
    for name in filter(str.isdigit, names):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                yield int(name)


def _environment(pid: int) -> bytes:
    """Return the environment that a process was started with; empty for a zombie, and if it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _ancestors() -> set[int]:
    """Return the ids of this process and of its ancestors."""
    found, pid = set[int](), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])  # proc(5): after the name, state and parent
        except OSError:
            break
    return found


def _end(found: list[_Leftover]) -> None:
    for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        left = [item for item in found if not item.is_gone()]
        for item in left:
            item.send(number)
        _wait(left, seconds)
    left = [item for item in found if not item.is_gone()]
    if left:
        raise AlreadyRunningError(
            f"{_listed(left)}, left by an earlier server, does not end even when it is killed: "
            "it waits inside the GPU's driver (see dmesg); reboot this machine if it stays"
        )


def _wait(left: list[_Leftover], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(item.is_gone() for item in left):
        time.sleep(0.01)


def _listed(items: list[_Leftover]) -> str:
    return ", ".join(f"process {item.pid}" for item in items)
