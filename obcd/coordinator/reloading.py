"""Reading the configuration again while jobs run: all of it takes effect, or nothing does.

    obcd reload ──SIGHUP──► loop ─► Reloader ─► Coordinator.apply
         ▲                              │ ReloadView (status.json)
         └──────────────────────────────┘

An outcome answers everybody who asked before it began: the file was read after that. So two who ask at once both get
theirs, whichever signal it was that the loop noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from obcd.clock import monotonic, timestamp, wall
from obcd.config.settings import Settings
from obcd.coordinator.endpoints.public_endpoints import warn_of_exposed
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.view import ReloadView
from obcd.errors import ConfigurationError, ExitCode, ObcdError
from obcd.notify import notify
from obcd.spool.folders.layout import Layout
from obcd.text import join_lines

logger = logging.getLogger(__name__)

#: Longest fault in the log, in STATUS= and among the troubles, in characters: systemd takes 4096 bytes a message.
MAX_TEXT = 400
#: Seconds between two looks at the configuration that have to find the same, and after which a reload gives up on that.
SETTLE_SECONDS, PATIENCE_SECONDS = 0.2, 10.0

#: Reads the configuration again, and says where the spool would be by it.
Reread = Callable[[], tuple[Settings, Layout]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one reading of the configuration found; two equal ones in a row are believed.

    Attributes:
        place: Inode, size and time of change of the file, `()` when there is none.
    """

    settings: Settings | None = None
    layout: Layout | None = None
    fault: str = ""
    exit_code: int = ExitCode.DONE
    place: tuple[int, ...]


class Reloader:
    """Main thread only; `now` is monotonic seconds.

    A file that is being written reads like a good one that lacks endpoints, and they would be sent away. So it is read
    until it was the same twice, and one that lost what makes a configuration is refused.

    Args:
        reread: Raises `ObcdError` with the fault.
    """

    def __init__(self, coordinator: Coordinator, reread: Reread) -> None:
        self._coordinator = coordinator
        self._reread = reread
        self._number = 0
        self._is_asked = False
        self._last: _Look | None = None
        self._look_at = self._patient_until = 0.0

    def ask(self, now: float) -> None:
        """Have the configuration read by the next turns; who asks again meanwhile gets the same outcome."""
        if not self._is_asked:
            self._is_asked, self._last = True, None
            self._look_at, self._patient_until = now, now + PATIENCE_SECONDS

    def tick(self, now: float) -> float:
        """Look at the file if it is time, and apply it when it has settled.

        Returns:
            Seconds until the next look.
        """
        if not self._is_asked:
            return float("inf")
        is_stopping = self._coordinator.is_draining
        if now < self._look_at and not is_stopping:
            return self._look_at - now
        began = monotonic()  # not `now`: it answers who asked before this very look, in another process
        if is_stopping:
            text = "the coordinator is stopping: it reads the configuration at its next start"
            self._finish(began, ExitCode.INPUT, text)
            return 0.0
        look = self._look()
        if look == self._last:
            self._finish(began, *self._apply(look, began))
            return 0.0
        if now >= self._patient_until:
            text = "the configuration goes on changing: write it whole, under another name, and rename it; then reload"
            self._finish(began, ExitCode.CONFIGURATION, text)
            return 0.0
        self._last, self._look_at = look, now + SETTLE_SECONDS
        return SETTLE_SECONDS

    def _look(self) -> _Look:
        place = self._place()
        try:
            settings, layout = self._reread()
        except ObcdError as error:
            return _Look(fault=str(error), exit_code=error.exit_code, place=place)
        return _Look(settings=settings, layout=layout, place=place)

    def _place(self) -> tuple[int, ...]:
        source = self._coordinator.settings.source
        if source is None:
            return ()
        try:
            status = source.stat()
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _apply(self, look: _Look, now: float) -> tuple[int, str]:
        """Apply what was found.

        Returns:
            The exit code, and what changed or what is wrong.
        """
        coordinator = self._coordinator
        if look.settings is None or look.layout is None:
            return look.exit_code, look.fault
        try:
            check_whole(coordinator.settings, look.settings)
            check_place(coordinator.layout, look.layout)
            known = {item.name for item in coordinator.endpoints.members}
            text = coordinator.apply(look.settings, now)
        except ObcdError as error:
            return error.exit_code, str(error)
        warn_of_exposed(item for item in look.settings.endpoints() if item.name not in known)
        return ExitCode.DONE, text

    def _finish(self, began: float, code: int, text: str) -> None:
        """Tell the outcome; a fault left the old configuration as it is.

        Args:
            began: When the last look began: it answers everybody who asked before.
        """
        coordinator = self._coordinator
        self._is_asked = False
        self._number += 1
        if coordinator.is_recovered:  # else systemd did not get READY yet, and waits for that
            notify(RELOADING=1, MONOTONIC_USEC=int(began * 1e6))
        outcome = ReloadView(
            number=self._number, began=began, at=timestamp(wall()), is_ok=not code, text=text, exit_code=code
        )
        trouble = "" if outcome.is_ok else f"reload failed: {join_lines(text, MAX_TEXT)}"
        if outcome.is_ok:
            logger.info("configuration read again: %s", text, extra={"action": "reloaded"})
        else:
            logger.error("%s; the old configuration stays", trouble, extra={"action": "reload_failed"})
        coordinator.record_reload(outcome, trouble)
        if coordinator.is_recovered:
            notify(READY=1)


def check_whole(old: Settings, new: Settings) -> None:
    """Refuse a file that reads like the rest of one: cut short, or empty.

    Raises:
        ConfigurationError: Saying what it lacks.
    """
    had, has = (settings.model_fields_set - {"source", "schemas", "tokens"} for settings in (old, new))
    lost = "has no [ollama_instances] any more" if "ollama_instances" in had - has else "is empty"
    if "ollama_instances" in had - has or (had and not has):
        raise ConfigurationError(
            f"the configuration {new.source} {lost}: was it cut while it was written? If it is meant so, "
            "restart the coordinator"
        )


def check_place(old: Layout, new: Layout) -> None:
    """Refuse a configuration that would move a running coordinator's folders.

    Raises:
        ConfigurationError: Naming the key.
    """
    for key, before, after in (
        ("root", old.root, new.root),
        ("inbox", old.inbox, new.inbox),
        ("per_user", str(old.per_user).lower(), str(new.per_user).lower()),
    ):
        if before != after:
            raise ConfigurationError(
                f"spool.{key} cannot change while the coordinator runs (from {before} to {after}): "
                "restart the coordinator, or put it back"
            )
