"""Reading the configuration again while jobs run: all of it takes effect, or nothing does.

    obcd reload ──SIGHUP──► loop ─► Reloader ─► Coordinator.apply
         ▲                              │ Reload (status.json)
         └──────────────────────────────┘

An outcome answers everybody who asked before it began: the file was read after that. So two who ask at once both get
theirs, whichever signal it was that the loop noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from obcd.clock import monotonic, timestamp, wall
from obcd.config.endpoints import Endpoint
from obcd.config.settings import Settings
from obcd.coordinator.coordinator import Coordinator
from obcd.errors import ConfigurationError, ExitCode, InputError, ObcdError
from obcd.notify import notify
from obcd.spool.layout import Layout

logger = logging.getLogger(__name__)

#: Longest fault in the log, in STATUS= and among the troubles, in characters: systemd takes 4096 bytes a message.
MAX_TEXT = 400

#: Reads the configuration again, and says where the spool would be by it.
Reread = Callable[[], tuple[Settings, Layout]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What came of reading the configuration again.

    Attributes:
        number: Counts from 1 since the coordinator's start.
        began: When, in seconds of the machine's monotonic clock, which all its processes share.
        at: When, for people.
        text: What changed in one line, or the fault, with a line for each if there are several.
        exit_code: What `obcd reload` ends with.
    """

    number: int
    began: float
    at: str
    is_ok: bool
    text: str
    exit_code: int = ExitCode.DONE

    def to_json(self) -> dict[str, Any]:
        """Return its entry in `reloads` of `status.json`."""
        return asdict(self)


class Reloader:
    """Main thread only.

    Args:
        reread: Raises `ObcdError` with the fault.
    """

    def __init__(self, coordinator: Coordinator, reread: Reread) -> None:
        self._coordinator = coordinator
        self._reread = reread
        self._number = 0

    def reload(self) -> None:
        """Read the configuration again and apply it; a fault leaves the old one as it is and is told, not raised."""
        began, coordinator = monotonic(), self._coordinator
        self._number += 1
        if coordinator.is_recovered:  # else systemd was not told READY yet, and waits for that
            notify(RELOADING=1, MONOTONIC_USEC=int(began * 1e6))
        code, text = self._try(began)
        outcome = Reload(
            number=self._number, began=began, at=timestamp(wall()), is_ok=not code, text=text, exit_code=code
        )
        if outcome.is_ok:
            coordinator.reload_trouble = ""
            logger.info("configuration read again: %s", text, extra={"action": "reloaded"})
        else:
            trouble = f"reload failed: {one_line(text)}"
            logger.error("%s; the old configuration stays", trouble, extra={"action": "reload_failed"})
            if not coordinator.is_draining:  # else it is no trouble: the next start takes it up
                coordinator.reload_trouble = trouble
        coordinator.reloads.append(outcome.to_json())
        coordinator.moves += 1
        if coordinator.is_recovered:
            notify(READY=1)

    def _try(self, now: float) -> tuple[int, str]:
        coordinator = self._coordinator
        try:
            if coordinator.is_draining:
                raise InputError("the coordinator is stopping: it reads the configuration at its next start")
            settings, layout = self._reread()
            check_place(coordinator.layout, layout)
            known = {item.name for item in coordinator.fleet.endpoints}
            text = coordinator.apply(settings, now)
        except ObcdError as error:
            return error.exit_code, str(error)
        warn_of_public(item for item in settings.endpoints() if item.name not in known)
        return ExitCode.DONE, text


def check_place(old: Layout, new: Layout) -> None:
    """Refuse a configuration that would move a running coordinator's folders.

    Raises:
        ConfigurationError: Naming the key.
    """
    for key, before, after in (("root", old.root, new.root), ("inbox", old.inbox, new.inbox)):
        if before != after:
            raise ConfigurationError(
                f"spool.{key} cannot change while the coordinator runs (from {before} to {after}): "
                "restart the coordinator, or put it back"
            )


def warn_of_public(endpoints: Iterable[Endpoint]) -> None:
    """Say which endpoints are out in the open."""
    for endpoint in endpoints:
        if not endpoint.is_private:
            extra = {"action": "public_endpoint", "endpoint": endpoint.name}
            logger.warning("endpoint %s is not on a private network: prompts leave it", endpoint.name, extra=extra)


def one_line(text: str) -> str:
    """Return a fault of several lines as one, not too long for a log."""
    whole = "; ".join(line.strip() for line in text.splitlines()).replace(":; ", ": ")
    return whole if len(whole) <= MAX_TEXT else whole[: MAX_TEXT - 1] + "…"
