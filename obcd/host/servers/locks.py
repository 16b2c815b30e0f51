"""The two locks of a host's runtime folder: one for the host, one for a pull.

    lock        held by supervisord as long as it lives; it passes the exec by which `obcd host` becomes supervisord
    pull.lock   held by `obcd host pull` as long as it runs; servers that start wait for it (ollama checks its files at
                its start, and may fail on partial ones or remove them: `ollama-contract` 5.4)

Both are `flock`s: they end with their process, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obcd.clock import monotonic
from obcd.errors import EXHAUSTED, AlreadyRunningError, InputError

HOST_LOCK, PULL_LOCK = "lock", "pull.lock"
#: supervisord closes all descriptors from 3 in its children, and from 5 in itself on SIGHUP (supervisor 4.3,
#: process.py: _prepare_child_fds, options.py: cleanup_fds): a lock that it must hold is 3 or 4.
KEPT_DESCRIPTOR = 3
#: Seconds to try for the host's lock: a check whether a host is alive shares it for a moment.
LOOK_SECONDS = 0.2


def hold_host(runtime: Path) -> int:
    """Take the host's lock as long as this process lives; return its descriptor.

    Raises:
        AlreadyRunningError: If another host holds it.
        InputError: If it cannot be opened.
    """
    descriptor = _open(runtime / HOST_LOCK)
    if not _take_within(descriptor, LOOK_SECONDS):
        holder = _holder(descriptor)
        os.close(descriptor)
        raise AlreadyRunningError(
            f"obcd host is already running on {runtime} ({holder or 'unknown process'}): "
            "stop that one first, or choose another --runtime and other GPUs"
        )
    _write_holder(descriptor, f"pid {os.getpid()}")
    return descriptor


def keep_across_exec(descriptor: int) -> None:
    """Keep a lock held by the program that replaces this process; call it right before the exec."""
    os.dup2(descriptor, KEPT_DESCRIPTOR)
    os.set_inheritable(KEPT_DESCRIPTOR, True)  # dup2 does not change it if both are the same


@contextmanager
def hold_pull(runtime: Path, model: str, patience: float = 3.0) -> Iterator[None]:
    """Hold the lock of a pull: servers that start wait, and other pulls are refused.

    Args:
        patience: Seconds to try: the watch and starting servers share the lock for a moment.

    Raises:
        AlreadyRunningError: If another pull is under way.
    """
    descriptor = _open(runtime / PULL_LOCK)
    try:
        if not _take_within(descriptor, patience):
            raise AlreadyRunningError(
                f"another pull is under way on this host ({_holder(descriptor) or 'a server is just starting'}): "
                "two at the same time would damage each other's files; try again when it has ended"
            )
        _write_holder(descriptor, f"pid {os.getpid()} pulls {model}")
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def is_pulling(runtime: Path) -> bool:
    """Return whether a pull makes starting servers wait."""
    return _is_held(runtime / PULL_LOCK) is not False  # a lock that cannot be read may be held


def puller(runtime: Path) -> str:
    """Return the pull under way, as `pid 17 pulls llama3.2`; "" if there is no pull."""
    path = runtime / PULL_LOCK
    return path.read_text("utf-8", "replace").strip() if _is_held(path) else ""


def is_host_alive(runtime: Path) -> bool | None:
    """Return whether a host runs with this folder; None if this user cannot find out."""
    return _is_held(runtime / HOST_LOCK)


def _is_held(path: Path) -> bool | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except PermissionError:
        return None
    except OSError as error:  # it was never held, unless no file can be opened at all
        return None if error.errno in EXHAUSTED else False
    try:
        return not take(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        _give_to_owner(descriptor, path.parent)
    except OSError as error:
        raise InputError(
            f"cannot open the lock {path}: {error.strerror}; run this as the user who runs obcd host"
        ) from None
    return descriptor


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """Give a lock that root made (`sudo obcd host pull`) to the owner of the folder, the user of the host."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def take(descriptor: int, kind: int) -> bool:
    """Try to take a lock, LOCK_EX or LOCK_SH; return whether it was free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _take_within(descriptor: int, seconds: float) -> bool:
    deadline = monotonic() + seconds
    while not take(descriptor, fcntl.LOCK_EX):
        if monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 300, 0).decode(errors="replace").strip()


def _write_holder(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{text}\n".encode(), 0)
