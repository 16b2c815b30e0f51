"""Reload the configuration while jobs run: all of it takes effect, or nothing does.

    obcd reload ──SIGHUP──► loop ─► Reloader ─► Coordinator.apply
         ▲                              │ ReloadView (status.json)
         └──────────────────────────────┘

An outcome is valid for everyone whose request came before the reload began, because the file was read after that. So
two users who request a reload at once both get an outcome, whichever signal the loop noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from obcd.clock import monotonic, timestamp, wall
from obcd.config.settings import Settings
from obcd.coordinator.endpoints.public_endpoints import warn_of_exposed
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.showing.status_line import MAX_TEXT
from obcd.coordinator.view import ReloadView
from obcd.errors import ConfigurationError, ExitCode, ObcdError
from obcd.notify import notify
from obcd.spool.folders.layout import Layout
from obcd.text import join_lines

logger = logging.getLogger(__name__)

#: What holds after a reload that failed.
OLD_STAYS = "the old configuration stays in force"
#: Seconds between two reads of the configuration that must be equal, and after which a reload that finds none fails.
SETTLE_SECONDS, PATIENCE_SECONDS = 0.2, 10.0

#: Fields of `Settings` that are no keys of the file.
UNWRITTEN_FIELDS = frozenset(("source", "schemas", "tokens", "webhook_secrets"))

#: Reads the configuration again, and returns it with the layout of the spool.
Reread = Callable[[], tuple[Settings, Layout]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The outcome of one read of the configuration; two equal ones in a row are accepted.

    Attributes:
        place: Inode, size and time of change of the file, `()` when there is no file.
    """

    settings: Settings | None = None
    layout: Layout | None = None
    fault: str = ""
    exit_code: int = ExitCode.DONE
    place: tuple[int, ...]


class Reloader:
    """Reloads the configuration. Main thread only; `now` is in monotonic seconds.

    A file that is being written can look like a valid one without some endpoints, which would then be removed. So the
    file is read until it was the same twice, and a file that has lost its essential parts is refused.

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
        """Have the next ticks read the configuration; further requests meanwhile get the same outcome."""
        if not self._is_asked:
            self._is_asked, self._last = True, None
            self._look_at, self._patient_until = now, now + PATIENCE_SECONDS

    def tick(self, now: float) -> float:
        """Read the file if a read is due, and apply it when it has settled.

        Returns:
            Seconds until the next read.
        """
        if not self._is_asked:
            return float("inf")
        is_stopping = self._coordinator.is_draining
        if now < self._look_at and not is_stopping:
            return self._look_at - now
        began = monotonic()  # not `now`: the outcome is for requests of other processes from before this very read
        if is_stopping:
            text = "the coordinator is stopping: it reads the configuration at its next start"
            self._finish(began, ExitCode.INPUT, text)
            return 0.0
        look = self._look()
        if look == self._last:
            self._finish(began, *self._apply(look, began))
            return 0.0
        if now >= self._patient_until:
            text = "the configuration keeps changing: write it whole under another name, then rename it and reload"
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
        """Apply the outcome of a read.

        Returns:
            The exit code, and a text: what changed, or what is wrong.
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
        """Report the outcome; after a fault the old configuration stays in force.

        Args:
            began: When the last read began: the outcome is for all requests from before.
        """
        coordinator = self._coordinator
        self._is_asked = False
        self._number += 1
        if coordinator.is_recovered:  # otherwise systemd has not got READY yet and waits for it
            notify(RELOADING=1, MONOTONIC_USEC=int(began * 1e6))
        outcome = ReloadView(
            number=self._number, began=began, at=timestamp(wall()), is_ok=not code, text=text, exit_code=code
        )
        trouble = "" if outcome.is_ok else f"reload failed: {join_lines(text, MAX_TEXT)}; {OLD_STAYS}"
        if outcome.is_ok:
            logger.info("configuration reloaded: %s", text, extra={"action": "reloaded"})
        else:
            logger.error("%s", trouble, extra={"action": "reload_failed"})
        coordinator.record_reload(outcome, trouble)
        if coordinator.is_recovered:
            notify(READY=1)


def check_whole(old: Settings, new: Settings) -> None:
    """Refuse a file that looks like the remainder of one: cut short, or empty.

    Raises:
        ConfigurationError: If so; the message says what is missing.
    """
    had, has = (settings.model_fields_set - UNWRITTEN_FIELDS for settings in (old, new))
    lost = {name for name in ("ollama_instances", "cluster") if name in had - has}
    if new.cluster.hosts is not None:  # the hosts that register take the place of the list
        lost.discard("ollama_instances")
    if lost or (had and not has):
        what = f"no longer has [{max(lost)}]" if lost else "is empty"
        raise ConfigurationError(
            f"the configuration {new.source} {what}: was it truncated while it was written? If this is intended, "
            "restart the coordinator"
        )


def check_place(old: Layout, new: Layout) -> None:
    """Refuse a configuration that would move a running coordinator's folders.

    Raises:
        ConfigurationError: If so; the message names the key.
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
