"""What is known of the coordinator now, from the files that it writes: read at most once a second, for all visitors.

    status.json ─► StatusSource.look ─► SeenStatus ─► content

Nothing is ever sent to the coordinator, so visitors cost it nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from obcd.coordinator.view import View
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.status_file import read_status, stale_after

#: Seconds for which what was read is used again.
FRESH_SECONDS = 1.5


class StatusCondition(StrEnum):
    """How far what is shown is the present."""

    LIVE = "live"  # the coordinator writes its status
    STOPPED = "stopped"  # it has not for a while
    ABSENT = "absent"  # there is no status: it has not run here, or its files were removed at its end
    CLOSED = "closed"  # this user may not read it
    FOREIGN = "foreign"  # another version of obcd wrote it, or something else did


@dataclass(frozen=True, slots=True)
class SeenStatus:
    """What was seen at one moment.

    Attributes:
        view: The last state that could be read; None if there was none.
        since: When the coordinator last wrote, in Unix seconds; None if that is not known.
    """

    condition: StatusCondition
    view: View | None = None
    since: float | None = None


class StatusSource:
    """The status of one spool. Any thread.

    Args:
        layout: Its folders.
        last_sign: Returns when the coordinator last wrote anything else that stays, in Unix seconds; None: unknown.
    """

    def __init__(self, layout: Layout, last_sign: Callable[[], float | None] = lambda: None) -> None:
        self._layout = layout
        self._last_sign = last_sign
        self._lock = threading.Lock()
        self._seen = SeenStatus(StatusCondition.ABSENT)
        self._read_at = float("-inf")
        self._last: View | None = None

    def look(self) -> SeenStatus:
        """Return what is known now; never raises."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= FRESH_SECONDS:
                self._seen = self._read()
                self._read_at = now
            return self._seen

    def _read(self) -> SeenStatus:
        try:
            view = View.from_json(read_status(self._layout))
        except PermissionError:
            return self._gone(StatusCondition.CLOSED)
        except OSError:
            return self._gone(StatusCondition.ABSENT)
        except (ValueError, RecursionError):
            return self._gone(StatusCondition.FOREIGN)
        self._last = view
        is_live = time.time() - view.updated <= stale_after(self._layout)
        return SeenStatus(StatusCondition.LIVE if is_live else StatusCondition.STOPPED, view, view.updated)

    def _gone(self, condition: StatusCondition) -> SeenStatus:
        """Return what is left to show: systemd removes the runtime folder when the coordinator stops."""
        if self._last is not None:
            return SeenStatus(condition, self._last, self._last.updated)
        return SeenStatus(condition, None, self._last_sign())
