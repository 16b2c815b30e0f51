"""Make a running coordinator read its configuration again, from another process.

    lock (held by pid) ─► SIGHUP ─► status.json: the first reload that began after the request

No pid from a file is trusted by itself: it counts while the spool's lock is held, and the signal goes to the process
that was examined, not to one that got its pid later.
"""

from __future__ import annotations

import os
import pwd
import signal
import sys
import threading
from dataclasses import dataclass

from obcd.clock import monotonic
from obcd.coordinator.view import ReloadView
from obcd.core.documents import Document
from obcd.errors import InputError, TimedOutError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, lock_holder

#: Seconds between reads of the status.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status(Document):
    """The part of status.json that is read here; fields as in `View`."""

    pid: int = 0
    takes_reloads: bool = False
    reloads: tuple[ReloadView, ...] = ()


def ask_to_reload(layout: Layout, timeout: float) -> ReloadView:
    """Make the coordinator of a spool read its configuration again, and wait for the outcome.

    Args:
        timeout: Most seconds to wait.

    Returns:
        The first reload that began after the call.

    Raises:
        InputError: If no coordinator runs there, if it is another user's, or if it ended meanwhile.
        TimedOutError: If there was no outcome in time.
    """
    until = monotonic() + timeout
    pid = _find(layout, until)
    began = monotonic()
    _signal(layout, pid)
    while True:
        holder = lock_holder(layout)  # before the status: a coordinator that ended has written its outcome by then
        status = _read_status(layout)
        outcome = next((item for item in status.reloads if status.pid == pid and item.began >= began), None)
        if outcome is not None:
            return outcome
        if holder != pid:
            raise InputError(f"the coordinator (pid {pid}) ended before it had read the configuration: see its log")
        if monotonic() >= until:
            raise TimedOutError(f"the coordinator (pid {pid}) has not read its configuration within {timeout:g} s")
        _pause()


def _find(layout: Layout, until: float) -> int:
    """Return the coordinator's process id, once its status shows that it takes SIGHUP as a reload."""
    while True:
        try:
            pid = lock_holder(layout)
        except PermissionError:
            raise _not_ours(layout) from None
        if pid is None:
            raise InputError(
                f"no coordinator runs on {layout.root}: start one (obcd up, or systemctl start obcd-coordinator); "
                "it reads its configuration then"
            )
        status = _read_status(layout)
        if status.pid == pid:
            if not status.takes_reloads:  # `obcd batch`: SIGHUP would end it
                raise InputError(
                    f"the process that runs on {layout.root} (pid {pid}) cannot reload its configuration: it is an "
                    "obcd batch, or older than this obcd; stop it and start it again"
                )
            return pid
        if (layout.root / "lock").stat().st_uid != os.getuid():  # its status is in that user's folder
            raise _not_ours(layout)
        if monotonic() >= until:
            raise TimedOutError(f"the coordinator (pid {pid}) has not written its status to {layout.status}")
        _pause()


def _signal(layout: Layout, pid: int) -> None:
    try:
        if sys.platform != "linux":
            os.kill(pid, signal.SIGHUP)
            return
        descriptor = os.pidfd_open(pid)
        try:
            if lock_holder(layout) == pid:  # otherwise it ended, which the wait reports
                signal.pidfd_send_signal(descriptor, signal.SIGHUP)
        finally:
            os.close(descriptor)
    except ProcessLookupError:
        return
    except PermissionError:
        raise _not_ours(layout) from None


def _read_status(layout: Layout) -> _Status:
    """Return the content of the file; a file of another form counts as empty."""
    try:
        return _Status.from_json(disk.read_json(layout.status))
    except PermissionError:
        raise _not_ours(layout) from None
    except (OSError, ValueError):
        return _Status()


def _not_ours(layout: Layout) -> InputError:
    try:
        sudo = f"sudo -u {pwd.getpwuid((layout.root / 'lock').stat().st_uid).pw_name}"
    except (OSError, KeyError):  # this user may not even read that folder
        sudo = "sudo"
    return InputError(
        f"the coordinator on {layout.root} belongs to another user: {sudo} obcd reload, or, "
        "where systemd runs it, sudo systemctl reload obcd-coordinator"
    )


def _pause() -> None:
    threading.Event().wait(LOOK_SECONDS)
