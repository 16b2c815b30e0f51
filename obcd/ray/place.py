"""Where the keeper of a namespace is found on this machine: its lock, its process id, and its state for people.

/run/user/1000/obcd-ray-obcd/   lock (held by the keeper)   keeper.json
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from obcd.errors import AlreadyRunningError, InputError
from obcd.host.servers.locks import take
from obcd.host.servers.runtime import make_folder
from obcd.spool.folders import disk

LOCK, STATE = "lock", "keeper.json"


class KeeperPlace:
    """The keeper's folder of one namespace and one user."""

    def __init__(self, namespace: str) -> None:
        base = os.environ.get("XDG_RUNTIME_DIR")
        self.folder = (
            Path(base) / f"obcd-ray-{namespace}"
            if base and os.access(base, os.W_OK)
            else Path(tempfile.gettempdir()) / f"obcd-{os.getuid()}-ray-{namespace}"
        )

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the keeper in this block.

        Raises:
            AlreadyRunningError: If another process is.
            InputError: If the folder cannot be used.
        """
        make_folder(self.folder)
        try:
            descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise InputError(f"cannot open the lock in {self.folder}: {error.strerror}") from None
        try:
            if not take(descriptor, fcntl.LOCK_EX):
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                raise AlreadyRunningError(
                    f"obcd ray up already keeps this namespace here (pid {holder}): stop that one first, or choose "
                    "another --namespace"
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def keeper(self) -> int | None:
        """Return the process id of the keeper that runs here, None if none does."""
        try:
            descriptor = os.open(self.folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if take(descriptor, fcntl.LOCK_SH):
                return None
            words = os.pread(descriptor, 20, 0).split()
        finally:
            os.close(descriptor)
        return int(words[0]) if words and words[0].isdigit() else None

    def show(self, document: object) -> None:
        """Write the keeper's state; a full disk must not stop the keeper."""
        with contextlib.suppress(OSError):
            disk.show_json(self.folder / STATE, document, 0o600)

    def read(self) -> dict[str, Any]:
        """Return the keeper's state, {} if there is none."""
        try:
            document = disk.read_json(self.folder / STATE)
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}
