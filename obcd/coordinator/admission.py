"""Settled drops on their way to the clerk: submitters take turns, and who has too much under way waits.

The clerk is given few at a time: of somebody's five thousand files and another one's single one, that one is soon next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from obcd.core.limits import Held, Limits, why_too_much
from obcd.spool.inbox import Drop, Key

#: Files of one submitter that are told why they wait: each is a sign in the outbox.
MOST_TOLD = 100


class Admission:
    """Main thread only.

    Args:
        held: Returns what a submitter has under way, what the clerk was asked to accept included.
    """

    def __init__(self, limits: Limits, held: Callable[[int], Held]) -> None:
        self.limits = limits
        self._held = held
        #: {submitter: his drops in the order in which they are taken}
        self._drops: dict[int, dict[Key, Drop]] = defaultdict(dict)
        #: {submitter: the number of his last drop that was taken}
        self._served: dict[int, int] = {}
        self._taken = 0
        #: {submitter: why he waits}
        self._blocked: dict[int, str] = {}

    def __contains__(self, key: Key) -> bool:
        return any(key in drops for drops in self._drops.values())

    def __bool__(self) -> bool:
        return any(self._drops.values())

    def offer(self, drop: Drop) -> None:
        """Take a settled drop in, in place of an older one of the same name."""
        for drops in self._drops.values():
            drops.pop(drop.key, None)
        self._drops[drop.identity.uid][drop.key] = drop

    def keep_only(self, keys: set[Key]) -> None:
        """Forget what has gone from the inbox."""
        for drops in self._drops.values():
            for key in [key for key in drops if key not in keys]:
                del drops[key]

    def take_next(self) -> Drop | None:
        """Return whose turn it is; None when nobody's may be taken now."""
        self._blocked = {}
        for uid in sorted((uid for uid, drops in self._drops.items() if drops), key=self._turn):
            drop = next(iter(self._drops[uid].values()))
            why = why_too_much(drop.identity.size, self._held(uid), self.limits)
            if not why:
                del self._drops[uid][drop.key]
                self._taken += 1
                self._served[uid] = self._taken
                return drop
            self._blocked[uid] = why
        return None

    def waiting(self, obstacle: str) -> dict[Key, str]:
        """Return why drops wait, as far as it is told.

        Args:
            obstacle: Why all of them do, "" when only limits hold some up.
        """
        why = {uid: obstacle for uid in self._drops} if obstacle else self._blocked
        return {
            key: text for uid, text in why.items() for key, _ in zip(self._drops[uid], range(MOST_TOLD), strict=False)
        }

    def _turn(self, uid: int) -> int:
        return self._served.get(uid, 0)
