"""Settled drops on their way to the clerk: submitters take turns, and drops of those above their limits wait.

A clerk gets few drops at a time: when one user drops five thousand files and another user one, that one is soon next.
Large files have their own clerk and their own lines.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from obcd.coordinator.clerk.calls import is_large_file
from obcd.core.user_limits import UserLimits, UserUsage, why_too_much
from obcd.spool.inbox.drops import Drop, Key

#: The number of files of one submitter whose reason for waiting is shown in the outbox: each needs a status folder.
MOST_TOLD = 100


class Admission:
    """The lines of drops. Main thread only.

    Args:
        held: Returns a submitter's usage, including the drops that are with the clerk.
    """

    def __init__(self, limits: UserLimits, held: Callable[[int], UserUsage]) -> None:
        self.limits = limits
        self._held = held
        #: {(submitter, whether they are large): their drops in the order in which they are accepted}
        self._lines: dict[tuple[int, bool], dict[Key, Drop]] = defaultdict(dict)
        #: {such a line: the number of its last accepted drop}
        self._served: dict[tuple[int, bool], int] = {}
        self._taken = 0
        #: {such a line: why it waits}
        self._blocked: dict[tuple[int, bool], str] = {}

    def __contains__(self, key: Key) -> bool:
        return any(key in drops for drops in self._lines.values())

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def offer(self, drop: Drop, submitter: int | None = None) -> None:
        """Add a settled drop; it replaces an older one of the same name.

        Args:
            submitter: Whose it is; None: the owner of the file.
        """
        submitter = drop.identity.uid if submitter is None else submitter
        for drops in self._lines.values():
            drops.pop(drop.key, None)
        self._lines[submitter, is_large_file(drop.identity.size, drop.key.name)][drop.key] = drop

    def keep_only(self, keys: set[Key]) -> None:
        """Forget drops that have left the inbox."""
        for drops in self._lines.values():
            for key in [key for key in drops if key not in keys]:
                del drops[key]

    def take_next(self, *, is_large: bool) -> Drop | None:
        """Return the next drop, either a large file or any other; None when none may be accepted now."""
        self._blocked = {line: why for line, why in self._blocked.items() if line[1] != is_large}
        waiting = (line for line, drops in self._lines.items() if drops and line[1] == is_large)
        for line in sorted(waiting, key=self._turn):
            uid, drop = line[0], next(iter(self._lines[line].values()))
            why = why_too_much(drop.identity.size, self._held(uid), self.limits)
            if not why:
                del self._lines[line][drop.key]
                self._taken += 1
                self._served[line] = self._taken
                return drop
            self._blocked[line] = why
        return None

    def waiting(self, obstacle: str) -> dict[Key, str]:
        """Return why drops wait, for those that are shown in the outbox.

        Args:
            obstacle: Why all of them wait, "" when only some wait because of limits.
        """
        why = {line: obstacle for line in self._lines} if obstacle else self._blocked
        return {
            key: text for line, text in why.items() for key, _ in zip(self._lines[line], range(MOST_TOLD), strict=False)
        }

    def _turn(self, line: tuple[int, bool]) -> int:
        return self._served.get(line, 0)
