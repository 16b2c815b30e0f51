"""The counters on disk, from which a later coordinator continues: `counters.json` in the root.

It is written before each status, so that no counter that was shown goes backwards when the coordinator is killed, and
before a job is published, because its ledger goes with it. It is not synced: a crash of the machine may lose counts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from obcd.coordinator.metering.counters import CounterSet, KeptCounters
from obcd.spool.folders import disk

logger = logging.getLogger(__name__)

NAME = "counters.json"


class CountersFile:
    """Keeps the counters of one coordinator. Main thread only.

    Args:
        path: The file; None: they are not kept.
    """

    def __init__(self, path: Path | None, counters: CounterSet) -> None:
        self._path, self.counters = path, counters
        self._is_open = False
        self._written: KeptCounters | None = None
        self._is_broken = False

    def resume(self) -> None:
        """Continue with what an earlier coordinator has kept; without it, or if it cannot be read, all are 0."""
        if self._path is None:
            return
        try:
            kept = KeptCounters.from_json(disk.read_json(self._path))
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            extra = {"action": "counters_lost"}
            logger.warning("%s cannot be read: the counters of metrics begin at 0", self._path, extra=extra)
            return
        self.counters.resume(kept)

    def open(self, jobs: Collection[str]) -> None:
        """Take the jobs that an earlier coordinator left, except published ones; nothing is written before."""
        self.counters.on_recovered(jobs)
        self._is_open = True

    def keep(self) -> None:
        """Write the counters if they have changed; a failure is logged once and stops nothing."""
        kept = self.counters.kept()
        if self._path is None or not self._is_open or kept == self._written:
            return
        try:
            disk.show_json(self._path, kept.to_json())
        except OSError as error:
            if not self._is_broken:
                extra = {"action": "counters_unwritten"}
                logger.warning("the counters of metrics cannot be kept: %s", error.strerror, extra=extra)
            self._is_broken = True
        else:
            self._written, self._is_broken = kept, False
