"""Jobs that end the coordinator: counted on disk, and after five times kept apart, so that all others go on.

jobs/<id>/begun         how often the job was begun since its ledger last grew
          quarantined   it is not begun any more until `release`; while this file is there the job is QUARANTINED

A job is begun in vain when the coordinator dies (is killed, or ends by an error) before one new result of it is on
disk. What else may end a coordinator does not count: it was told to stop (`clear`), the machine was started anew (the
count holds for one boot), or it lived with the job for a while. So nothing here has to survive a power cut but the
quarantine itself.
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
#: Begun in vain so often, a job is a suspect: it is begun alone, after all that are none. And so often: kept apart.
SUSPECT, LIMIT = 2, 5
#: How far the start of the machine, as its two clocks tell it, may move from one look to the next: clocks are set right
#: by fractions of a second, and no machine starts faster.
BOOT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What `begun` holds.

    Attributes:
        booted_at: When the machine was started, in Unix seconds.
        ledger_bytes: How long the ledger was.
        times: How often the job was begun at that length, the present time included.
    """

    booted_at: float
    ledger_bytes: int
    times: int


def times_in_vain(begun: Begun | None, ledger_bytes: int, booted_at: float) -> int:
    """Return how often a job was begun without a new result, in this run of the machine. Pure."""
    if begun is None or begun.ledger_bytes != ledger_bytes or abs(begun.booted_at - booted_at) > BOOT_SECONDS:
        return 0
    return begun.times


def is_quarantined(folder: Path) -> bool:
    """Return whether a job is kept apart."""
    return (folder / QUARANTINED).exists()


def deaths(folder: Path) -> int:
    """Return how often a job that is not begun now was begun in vain; 0 when that cannot be told."""
    try:
        return times_in_vain(_read(folder), (folder / ledger.NAME).stat().st_size, _booted_at())
    except OSError:
        return 0


def begin(folder: Path, ledger_bytes: int) -> bool:
    """Count that a job is begun, before anybody works on it; False when it is kept apart from now on.

    What cannot be counted is begun all the same: a full disk must not keep a job from running.

    Args:
        ledger_bytes: Length of the ledger's valid part.
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
        logger.warning("job %s is begun and that cannot be counted: %s", folder.name, error.strerror, extra=extra)
    return True


def clear(folder: Path) -> None:
    """Forget how often a job was begun: the coordinator lived with it, or was told to stop.

    Raises:
        OSError: If the disk refuses.
    """
    disk.remove(folder / BEGUN)


def release(folder: Path) -> None:
    """End a job's quarantine: the next time it is begun counts as the first. Safe to repeat.

    Raises:
        OSError: If the disk refuses; the job may still be kept apart then.
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
    """Return when the machine was started; not from /proc, of which a service may see only its processes."""
    return wall() - monotonic()
