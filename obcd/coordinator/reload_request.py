"""Asking a running coordinator, from another process, to read its configuration again.

    lock (held by pid) ─► SIGHUP ─► status.json: the first reload that began after the request

No pid from a file is trusted by itself: it counts while the spool's lock is held, and the signal goes to the process
that was looked at, not to one that got its number since.
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

#: Seconds between looks at the status.
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status(Document):
    """What is read of status.json here; fields as in `View`."""

    pid: int = 0
    takes_reloads: bool = False
    reloads: tuple[ReloadView, ...] = ()


def ask_to_reload(layout: Layout, timeout: float) -> ReloadView:
    """Have the coordinator of a spool read its configuration again, and wait for the outcome.

    Args:
        timeout: Most seconds to wait.

    Returns:
        The first reload that began after this.

    Raises:
        InputError: If no coordinator runs there, or another user's, or if it ended meanwhile.
        TimedOutError: If there was no outcome in time.
    """
    until = monotonic() + timeout
    pid = _find(layout, until)
    began = monotonic()
    _signal(layout, pid)
    while True:
        holder = lock_holder(layout)  # before the status: what ended has shown its outcome by then
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
    """Return the coordinator's process id, once its status shows that signals mean to it what they should."""
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
                    f"what runs on {layout.root} (pid {pid}) does not read its configuration again: it is an "
                    "obcd batch, or older than this obcd; end it and start it anew"
                )
            return pid
        if (layout.root / "lock").stat().st_uid != os.getuid():  # its status is where that user's are
            raise _not_ours(layout)
        if monotonic() >= until:
            raise TimedOutError(f"the coordinator (pid {pid}) shows no status at {layout.status}")
        _pause()


def _signal(layout: Layout, pid: int) -> None:
    try:
        if sys.platform != "linux":
            os.kill(pid, signal.SIGHUP)
            return
        descriptor = os.pidfd_open(pid)
        try:
            if lock_holder(layout) == pid:  # else it ended, and the wait will tell
                signal.pidfd_send_signal(descriptor, signal.SIGHUP)
        finally:
            os.close(descriptor)
    except ProcessLookupError:
        return
    except PermissionError:
        raise _not_ours(layout) from None


def _read_status(layout: Layout) -> _Status:
    """Return what the file says; what is not as we write it says nothing."""
    try:
        return _Status.from_json(disk.read_json(layout.status))
    except PermissionError:
        raise _not_ours(layout) from None
    except (OSError, ValueError):
        return _Status()


def _not_ours(layout: Layout) -> InputError:
    try:
        sudo = f"sudo -u {pwd.getpwuid((layout.root / 'lock').stat().st_uid).pw_name}"
    except (OSError, KeyError):  # this user may not even look there
        sudo = "sudo"
    return InputError(
        f"the coordinator on {layout.root} belongs to another user: {sudo} obcd reload, or, "
        "where systemd runs it, sudo systemctl reload obcd-coordinator"
    )


def _pause() -> None:
    threading.Event().wait(LOOK_SECONDS)
