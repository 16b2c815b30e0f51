"""The speed of the last hour in one line, from the history: `▁▁▂▅▇███▇▇▆`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from obcd.clock import monotonic, wall
from obcd.spool.history.history_files import read_history
from obcd.spool.history.thinning import thin

BLOCKS = "▁▂▃▄▅▆▇█"
#: The time that is shown, the number of characters, and the seconds after which the history is read again.
SPAN_SECONDS, POINTS, FRESH_SECONDS = 3600.0, 60, 30.0


class LastHour:
    """The speed of the last hour; the history is read at most twice a minute.

    Args:
        root: The root of the spool.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._due = 0.0
        self._text = ""

    def text(self) -> str:
        """Return a line for people; "" where there is no history, or this user may not read it."""
        if monotonic() >= self._due:
            self._due = monotonic() + FRESH_SECONDS
            self._text = self._read()
        return self._text

    def _read(self) -> str:
        end = wall()
        try:
            lines = read_history(self._root, end - SPAN_SECONDS, is_brief=True)
            points = thin(lines, end - SPAN_SECONDS, end, POINTS)
        except OSError:
            return ""
        values = [point.output_tokens for point in points]
        known = [value for value in values if value is not None]
        if not known:
            return ""
        return f"last hour, tokens/s: {draw_sparkline(values)} most {max(known):.0f}"


def draw_sparkline(values: Sequence[float | None]) -> str:
    """Return one character for each value, from 0 to the largest; a space where nothing is known."""
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    return "".join(
        " " if value is None else BLOCKS[min(len(BLOCKS) - 1, int(value / most * len(BLOCKS)))] for value in values
    )
