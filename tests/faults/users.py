"""Other users for a while: a child process that gives up root's rights, does one thing, and says what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else for a while")

#: The group of those who may drop; no user or group of these numbers need be there.
GROUP = 61000


@dataclass(frozen=True)
class User:
    """A user of the machine."""

    uid: int
    gid: int = GROUP

    def does(self, act: Callable[[], object]) -> str:
        """Do something as this user; returns what it returned as text, or the name of the error that it raised."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
                said = str(act())
            except BaseException as error:  # noqa: BLE001 - told by the parent
                said = type(error).__name__
            os.write(writing, said.encode()[:60_000])
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            said = answer.read()
        os.waitpid(pid, 0)
        return said


def make_shared_root(folder: Path) -> Path:
    """Make the folders of a spool into which all users drop, as `obcd install` does; return its root."""
    root = folder / "root"
    for name, mode in (("", 0o750), ("inbox", 0o3730), ("outbox", 0o2750)):
        (root / name).mkdir()
        (root / name).chmod(mode)
    return root


DAEMON, ALICE, MALLORY = User(61001), User(61002), User(61003)
