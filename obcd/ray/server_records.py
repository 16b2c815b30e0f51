"""The records of the servers of one namespace, each written in a thread: a hosts folder that hangs stops no lease."""

from __future__ import annotations

import threading
from pathlib import Path

from obcd.clock import monotonic
from obcd.host.control.registrar import Content, RecordWriter
from obcd.hosts.record import SUFFIX, HostState
from obcd.hosts.registration import Registration

#: What the record of a server says that has ended.
GONE: Content = (HostState.GONE, (), ())
#: Seconds that the end waits for the last records.
LAST_SECONDS = 5.0


class ServerRecords:
    """Writes the records `PREFIX-NUMBER.json`.

    Args:
        folder: The hosts folder.
        prefix: The beginning of the names of these records, which no other process writes.
        by: What the records say about their origin.
    """

    def __init__(self, folder: Path, prefix: str, by: str) -> None:
        self._folder, self._prefix, self._by = folder, prefix, by
        self._writers: dict[int, RecordWriter] = {}

    def put(self, number: int, content: Content) -> None:
        """Write the record of a server soon."""
        if number not in self._writers:
            self._writers[number] = RecordWriter(Registration(self._folder, f"{self._prefix}{number}", by=self._by))
        self._writers[number].offer(content)

    def bury(self, there: set[int]) -> None:
        """Write that servers are gone which an earlier process registered; in a thread, because the folder may hang.

        Args:
            there: Numbers of the servers that are still there.
        """
        threading.Thread(target=self._bury, args=(frozenset(there),), name="left records", daemon=True).start()

    def _bury(self, there: frozenset[int]) -> None:
        try:
            names = [path.name for path in self._folder.glob(f"{self._prefix}*{SUFFIX}")]
        except OSError:  # the folder is away: such records count for nothing in any case, because they stand still
            return
        words = [name.removeprefix(self._prefix).removesuffix(SUFFIX) for name in names]
        for number in {int(word) for word in words if word.isdecimal()} - there:
            if number not in self._writers:  # else a new server has the number
                self.put(number, GONE)

    def finish(self) -> None:
        """Wait until everything is written, if the folder answers."""
        deadline = monotonic() + LAST_SECONDS
        for writer in self._writers.values():
            writer.finish(max(0.0, deadline - monotonic()))
