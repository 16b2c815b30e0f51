"""Quarantine jobs that crash the coordinator repeatedly: count on disk, and set a job aside after five crashes.

jobs/<id>/begun         how often the job was begun after its ledger last grew
          quarantined   it is not begun until `release`; while this file is there the job is QUARANTINED

A job is begun in vain if the coordinator dies (is killed, or ends by an error) before one new result of it is on disk.
Other ends of a coordinator do not count: it stopped on request (`clear`), the machine was restarted (the count holds
for one boot), or it ran with the job for a while. So only the quarantine itself must survive a power cut.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from obcd.clock import monotonic, timestamp, wall
from obcd.spool.folders import disk
from obcd.spool.job import ledger

logger = logging.getLogger(__name__)

BEGUN, QUARANTINED = "begun", "quarantined"
#: How often a job is begun in vain until it is a suspect, which is begun alone after all others, and until quarantine.
SUSPECT, LIMIT = 2, 5
#: Seconds by which the start of the machine, computed from its two clocks, may move from one check to the next: clocks
#: are corrected by fractions of a second, and no machine starts faster.
BOOT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Begun:
    """The content of `begun`.

    Attributes:
        booted_at: The start of the machine, in Unix seconds.
        ledger_bytes: The length of the ledger.
        times: How often the job was begun at that length, including this time.
    """

    booted_at: float
    ledger_bytes: int
    times: int


def times_in_vain(begun: Begun | None, ledger_bytes: int, booted_at: float) -> int:
    """Return how often a job was begun without a new result, in this boot of the machine. Pure."""
    if begun is None or begun.ledger_bytes != ledger_bytes or abs(begun.booted_at - booted_at) > BOOT_SECONDS:
        return 0
    return begun.times


def is_quarantined(folder: Path) -> bool:
    """Return whether a job is in quarantine."""
    return (folder / QUARANTINED).exists()


def deaths(folder: Path) -> int:
    """Return how often a job that is not begun now was begun in vain; 0 if that is unknown."""
    try:
        return times_in_vain(_read(folder), (folder / ledger.NAME).stat().st_size, _booted_at())
    except OSError:
        return 0


def is_last(folder: Path, ledger_bytes: int) -> bool:
    """Return whether `begin` will set a job aside that is not set aside yet; arguments as there."""
    return not is_quarantined(folder) and times_in_vain(_read(folder), ledger_bytes, _booted_at()) >= LIMIT


def begin(folder: Path, ledger_bytes: int) -> bool:
    """Count that a job is begun, before any work on it; return False if it is in quarantine from now on.

    A job is begun even if that cannot be counted: a full disk must not keep a job from running.

    Args:
        ledger_bytes: The length of the ledger's valid part.
    """
    if is_quarantined(folder):
        return False
    times = times_in_vain(_read(folder), ledger_bytes, _booted_at())
    try:
        if times >= LIMIT:
            disk.write_json(folder / QUARANTINED, {"at": timestamp(wall()), "begun_in_vain": times})
            return False
        disk.before("write", str(folder / BEGUN))
        disk.show_json(folder / BEGUN, asdict(Begun(round(_booted_at(), 3), ledger_bytes, times + 1)))
    except OSError as error:
        extra = {"action": "begin_not_counted", "job": folder.name}
        logger.warning("job %s is begun, but that cannot be counted: %s", folder.name, error.strerror, extra=extra)
    return True


def clear(folder: Path) -> None:
    """Reset the count of a job: the coordinator ran with it for a while, or stopped on request.

    Raises:
        OSError: If a disk operation fails.
    """
    disk.remove(folder / BEGUN)


def release(folder: Path) -> None:
    """End the quarantine of a job: its next begin counts as the first. Safe to repeat.

    Raises:
        OSError: If a disk operation fails; the job may still be in quarantine then.
    """
    disk.remove(folder / BEGUN)
    disk.remove(folder / QUARANTINED)
    disk.sync_folder(folder)


def _read(folder: Path) -> Begun | None:
    try:
        document = disk.read_json(folder / BEGUN)
        return Begun(float(document["booted_at"]), int(document["ledger_bytes"]), int(document["times"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _booted_at() -> float:
    """Return the start time of the machine; not from /proc, where a service may see only its own processes."""
    return wall() - monotonic()
