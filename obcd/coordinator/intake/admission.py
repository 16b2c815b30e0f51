"""Settled drops on their way to the clerk: submitters take turns, and who has too much under way waits.

A clerk is given few at a time: of somebody's five thousand files and another one's single one, that one is soon next.
Large files have a clerk and lines of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from obcd.coordinator.clerk.calls import is_large_file
from obcd.core.user_limits import UserLimits, UserUsage, why_too_much
from obcd.spool.inbox.arrivals import Drop, Key

#: Files of one submitter for which the outbox says why they wait: each takes a status folder.
MOST_TOLD = 100


class Admission:
    """Main thread only.

    Args:
        held: Returns what a submitter has under way, what the clerk was asked to accept included.
    """

    def __init__(self, limits: UserLimits, held: Callable[[int], UserUsage]) -> None:
        self.limits = limits
        self._held = held
        #: {(submitter, whether they are large): his drops in the order in which they are taken}
        self._lines: dict[tuple[int, bool], dict[Key, Drop]] = defaultdict(dict)
        #: {such a line: the number of its last drop that was taken}
        self._served: dict[tuple[int, bool], int] = {}
        self._taken = 0
        #: {such a line: why it waits}
        self._blocked: dict[tuple[int, bool], str] = {}

    def __contains__(self, key: Key) -> bool:
        return any(key in drops for drops in self._lines.values())

    def __bool__(self) -> bool:
        return any(self._lines.values())

    def offer(self, drop: Drop) -> None:
        """Take a settled drop in, in place of an older one of the same name."""
        for drops in self._lines.values():
            drops.pop(drop.key, None)
        self._lines[drop.identity.uid, is_large_file(drop.identity.size)][drop.key] = drop

    def keep_only(self, keys: set[Key]) -> None:
        """Forget what has gone from the inbox."""
        for drops in self._lines.values():
            for key in [key for key in drops if key not in keys]:
                del drops[key]

    def take_next(self, *, is_large: bool) -> Drop | None:
        """Return whose turn it is with large files, or with all others; None when nobody's may be taken now."""
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
        """Return why drops wait, as far as it is told.

        Args:
            obstacle: Why all of them do, "" when only limits hold some up.
        """
        why = {line: obstacle for line in self._lines} if obstacle else self._blocked
        return {
            key: text for line, text in why.items() for key, _ in zip(self._lines[line], range(MOST_TOLD), strict=False)
        }

    def _turn(self, line: tuple[int, bool]) -> int:
        return self._served.get(line, 0)
