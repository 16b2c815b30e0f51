"""Whether there is room to work in: the one thing that pauses acceptance and dispatch because of the disk.

    statvfs, ballast ◄─► thread ─► shortage ┐
    recorder ─refuse, relieve─► refusal ────┼─► turn (main loop) ─► trouble, "" when work goes on
    what cannot be published ───────────────┘

What the disk refused and what is foreseen to run short end in the same pause, in one line of the log and in one
sentence for people. Nothing is taken or asked meanwhile; what is in flight is recorded, if need be in the place of the
ballast. While the ballast is not there nothing is begun, so making it again is also the proof that there is room:
of a quota `statvfs` knows nothing.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from obcd.clock import monotonic
from obcd.spool.folders.disk_space import FULL, Ballast, Space, ballast_bytes, find_shortage, read_space
from obcd.text import duration, printable

logger = logging.getLogger(__name__)

#: The ballast's name in the root.
BALLAST = "ballast"
#: Seconds between two looks at the disk, and after which one that does not end is said.
LOOK_SECONDS, HANG_SECONDS = 2.0, 20.0
#: What is said behind every reason.
PAUSED = "nothing is accepted or asked until that is mended; then it goes on by itself"


class DiskWatch:
    """`refuse`, `relieve` and `throw_off` are any thread's, `look` is the thread's own, all else the main loop's.

    Args:
        root: The spool's root; all that is written lies on its filesystem. Of the inbox's, where it is another, nothing
            depends: what is taken from there makes room there.
        min_free: `[spool] min_free_bytes`.
    """

    def __init__(self, root: Path, min_free: int | None = None) -> None:
        self._root = root
        self._min_free = min_free
        self._ballast = Ballast(root / BALLAST)
        self._lock = threading.Lock()
        self._refusal = self._unpublished = self._shortage = ""
        self._has_no_ballast = False
        self._look_began: float | None = None
        self._is_over = False
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        #: Why nothing is begun at present, as of the last turn; "" when there is room.
        self.trouble = ""

    def start(self) -> None:
        """Look at the disk, then go on looking in a thread: a disk that hangs must not hold the main loop up."""
        self.look()
        self._thread = threading.Thread(target=self._run, name="room", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, or leave one that hangs to its disk; with nothing in flight there needs to be no ballast."""
        self._is_over = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(1.0)
        self._ballast.give_up()

    def configure(self, min_free: int | None) -> None:
        """Keep as much free as the configuration says now."""
        self._min_free = min_free
        self._news.set()

    def tick(self, now: float, unpublished: str = "") -> None:
        """Decide again, and log when that changes, or when the disk refuses what it only lacked room for.

        Args:
            unpublished: Why answers cannot be published, where it is for want of room.
        """
        self._unpublished = unpublished
        reason = self._reason(now)
        if reason and (not self.trouble or (reason == self._refusal and reason not in self.trouble)):
            logger.error("%s; %s", reason, PAUSED, extra={"action": "room_short"})
        elif self.trouble and not reason:
            logger.info("there is room again: work goes on", extra={"action": "room_again"})
        self.trouble = f"{reason}; {PAUSED}" if reason else ""

    def _reason(self, now: float) -> str:
        began = self._look_began
        if began is not None and now - began > HANG_SECONDS:
            return f"the filesystem of {printable(str(self._root))} has not answered for {duration(now - began)}"
        return self._refusal or self._shortage or self._unpublished

    def refuse(self, error: OSError) -> None:
        """Learn that results cannot be recorded; the ballast is for them."""
        self._refusal = f"results cannot be recorded: {error.strerror}"
        if error.errno in FULL:
            self.throw_off()

    def relieve(self) -> None:
        """Learn that they were recorded after all."""
        self._refusal = ""

    def throw_off(self) -> None:
        """Give the ballast up: what the disk refuses must be written. Nothing is begun until it is there again."""
        with self._lock:
            if self._ballast.give_up():
                self._shortage = f"the disk of {printable(str(self._root))} was full, and has no more room since"
                logger.warning("the disk is full: the ballast makes room", extra={"action": "ballast_gone"})

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_over:
            self._news.wait(LOOK_SECONDS)
            self._news.clear()
            if not self._is_over:
                self.look()

    def look(self) -> None:
        """Look at the disk once, and make the ballast where it is missing and there is room."""
        self._look_began = monotonic()  # this thread's own time: the main loop sees by it that a look hangs
        shortage = self._find_shortage()
        self._look_began = None
        with self._lock:
            is_late = not shortage and not self._has_no_ballast and not self._ballast.size()
            if not is_late:  # else it was given up since it was made: the next look decides
                self._shortage = shortage

    def _find_shortage(self) -> str:
        try:
            space = read_space(self._root)
        except OSError as error:
            return f"the filesystem of {printable(str(self._root))} does not answer: {error.strerror}"
        size = ballast_bytes(space)
        owed = 0 if self._has_no_ballast else max(0, size - self._ballast.size())
        is_short = bool(self._shortage)
        shortage = find_shortage(self._root, space, self._min_free, is_short=is_short, owed=owed)
        return shortage or (self._make(space) if owed else "")

    def _make(self, space: Space) -> str:
        """Make the ballast; return why there is no room for it."""
        if lacking := self._refusal or self._unpublished:  # it was given up for that, which is still to be written
            return lacking
        try:
            self._ballast.make(ballast_bytes(space))
        except OSError as error:
            if error.errno in FULL:
                return f"there is no room to set aside where {printable(str(self._root))} lies: {error.strerror}"
            self._has_no_ballast = True
            extra = {"action": "no_ballast"}
            logger.warning("no room can be set aside for a full disk: %s", error.strerror, extra=extra)
        return ""
