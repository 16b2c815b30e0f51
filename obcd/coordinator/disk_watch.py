"""Watch the free space on the disk: the only place that pauses acceptance and dispatch because of the disk.

    statvfs, ballast ◄─► thread ─► shortage ┐
    recorder ─refuse, relieve─► refusal ────┼─► tick (main loop) ─► trouble, "" when work goes on
    jobs that cannot be published ──────────┘

A write that the disk refused and a shortage that is foreseen both lead to the same pause, to one line in the log and to
one sentence for people. During the pause no file is accepted and no request is sent; results in flight are recorded, if
necessary in the space of the ballast. While the ballast is missing no work is started, so creating it again also proves
that there is free space: `statvfs` does not know about quotas.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from obcd.clock import monotonic
from obcd.spool.folders.disk_space import FULL, Ballast, Space, ballast_bytes, find_shortage, least_bytes, read_space
from obcd.text import duration, printable

logger = logging.getLogger(__name__)

#: The ballast's name in the root.
BALLAST = "ballast"
#: Seconds between two checks of the disk, and after which a check that does not end is reported.
LOOK_SECONDS, HANG_SECONDS = 2.0, 20.0
#: The sentence that follows every reason.
PAUSED = "obcd accepts no files and sends no requests until this is fixed, then it continues by itself"


class DiskWatch:
    """Decides whether there is free space to work.

    Any thread may call `refuse`, `relieve` and `throw_off`; only its own thread calls `look`; only the main loop calls
    the other methods. `now` is in monotonic seconds.

    Args:
        root: The spool's root; all files that obcd writes are on its filesystem. If the inbox is on another filesystem,
            its free space does not matter: accepting a file frees space there.
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
        #: Why no work is started at present, as of the last tick; "" when there is free space.
        self.trouble = ""
        #: Free space, and the space below which work pauses, as of the last check; None before it.
        self.free_bytes: int | None = None
        self.min_free_bytes: int | None = None

    def start(self) -> None:
        """Check the disk, then keep checking it in a thread: a disk that hangs must not block the main loop."""
        self.look()
        self._thread = threading.Thread(target=self._run, name="room", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, or abandon it if the disk hangs; with nothing in flight no ballast is needed."""
        self._is_over = True
        self._news.set()
        if self._thread is not None:
            self._thread.join(1.0)
        self._ballast.give_up()

    def configure(self, min_free: int | None) -> None:
        """Apply the configuration's present limit of free space."""
        self._min_free = min_free
        self._news.set()

    def tick(self, now: float, unpublished: str = "") -> None:
        """Decide again; log a change of the decision, and a write that the disk refuses after a mere shortage.

        Args:
            unpublished: Why results cannot be published, if free space is the reason.
        """
        self._unpublished = unpublished
        reason = self._reason(now)
        if reason and (not self.trouble or (reason == self._refusal and reason not in self.trouble)):
            logger.error("%s; %s", reason, PAUSED, extra={"action": "room_short"})
        elif self.trouble and not reason:
            logger.info("there is free space again: work continues", extra={"action": "room_again"})
        self.trouble = f"{reason}; {PAUSED}" if reason else ""

    def _reason(self, now: float) -> str:
        began = self._look_began
        if began is not None and now - began > HANG_SECONDS:
            return f"the filesystem of {printable(str(self._root))} has not answered for {duration(now - began)}"
        return self._refusal or self._shortage or self._unpublished

    def refuse(self, error: OSError) -> None:
        """Record that results cannot be written to disk; the ballast makes space for them."""
        self._refusal = f"results cannot be recorded: {error.strerror}"
        if error.errno in FULL:
            self.throw_off()

    def relieve(self) -> None:
        """Record that the results were written after all."""
        self._refusal = ""

    def throw_off(self) -> None:
        """Delete the ballast, so that a refused write can succeed. No work is started until it exists again."""
        with self._lock:
            if self._ballast.give_up():
                self._shortage = f"the disk of {printable(str(self._root))} was full and has no more free space yet"
                logger.warning("the disk is full: the ballast was deleted", extra={"action": "ballast_gone"})

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_over:
            self._news.wait(LOOK_SECONDS)
            self._news.clear()
            if not self._is_over:
                self.look()

    def look(self) -> None:
        """Check the disk once, and create the ballast if it is missing and there is free space."""
        self._look_began = monotonic()  # this thread's own time, by which the main loop sees that a check hangs
        shortage = self._find_shortage()
        self._look_began = None
        with self._lock:
            is_late = not shortage and not self._has_no_ballast and not self._ballast.size()
            if not is_late:  # otherwise the ballast was deleted after this check created it: the next check decides
                self._shortage = shortage

    def _find_shortage(self) -> str:
        try:
            space = read_space(self._root)
        except OSError as error:
            return f"the filesystem of {printable(str(self._root))} does not answer: {error.strerror}"
        self.free_bytes, self.min_free_bytes = space.free, least_bytes(space, self._min_free)
        size = ballast_bytes(space)
        owed = 0 if self._has_no_ballast else max(0, size - self._ballast.size())
        is_short = bool(self._shortage)
        shortage = find_shortage(self._root, space, self._min_free, is_short=is_short, owed=owed)
        return shortage or (self._make(space) if owed else "")

    def _make(self, space: Space) -> str:
        """Create the ballast; return why there is no space for it, "" when it exists."""
        if lacking := self._refusal or self._unpublished:  # the ballast was deleted for writes that are still due
            return lacking
        try:
            self._ballast.make(ballast_bytes(space))
        except OSError as error:
            if error.errno in FULL:
                return f"no reserve can be written to the disk of {printable(str(self._root))}: {error.strerror}"
            self._has_no_ballast = True
            extra = {"action": "no_ballast"}
            logger.warning("cannot reserve space for a full disk: %s", error.strerror, extra=extra)
        return ""
