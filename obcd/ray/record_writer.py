"""Write the records of the servers in a thread: a hosts folder on a file server that hangs must not stop the leases.

Only the newest state of each record is kept until it is written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from obcd.hosts.record import SUFFIX, CardReading, HostState, RegisteredEndpoint
from obcd.hosts.registration import Registration

logger = logging.getLogger(__name__)

#: Seconds that the end waits for the last records.
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordContent:
    """What a record is to say; the rest of it is `Registration`'s."""

    state: HostState
    endpoints: Sequence[RegisteredEndpoint] = ()
    cards: Sequence[CardReading] = ()


class RecordWriter:
    """Writes records in the order of their arrival.

    Args:
        folder: The hosts folder.
        prefix: The beginning of the names of these records, which no other process writes.
        by: What the records say about their origin.
    """

    def __init__(self, folder: Path, prefix: str, by: str) -> None:
        self._folder, self._prefix, self._by = folder, prefix, by
        self._registrations: dict[int, Registration] = {}
        self._waiting: dict[int, RecordContent] = {}
        self._arrived = threading.Condition()
        self._is_closing = False
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why the last record could not be written; "" if it could."""
        return self._trouble

    def put(self, number: int, content: RecordContent) -> None:
        """Write the record of a server soon."""
        with self._arrived:
            self._waiting[number] = content
            self._arrived.notify()

    def left_over(self) -> set[int]:
        """Return the numbers of records that an earlier keeper wrote into the folder; empty if it cannot be read."""
        try:
            names = [path.name for path in self._folder.glob(f"{self._prefix}*{SUFFIX}")]
        except OSError:
            return set()
        words = [name.removeprefix(self._prefix).removesuffix(SUFFIX) for name in names]
        return {int(word) for word in words if word.isdecimal()}

    def close(self) -> None:
        """Write what waits, if the folder answers, and end."""
        with self._arrived:
            self._is_closing = True
            self._arrived.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return
                number = next(iter(self._waiting))
                content = self._waiting.pop(number)
            self._write(number, content)

    def _write(self, number: int, content: RecordContent) -> None:
        if number not in self._registrations:
            name = f"{self._prefix}{number}"
            self._registrations[number] = Registration(self._folder, name, by=self._by)
        try:
            trouble = self._registrations[number].write(content.state, content.endpoints, content.cards)
        except ValueError as error:  # e.g. a node without a private address
            trouble = f"the server {number} cannot be registered: {error}"
        if content.state is HostState.GONE:
            del self._registrations[number]
        if trouble and trouble != self._trouble:
            logger.warning("%s", trouble, extra={"action": "record_unwritten"})
        self._trouble = trouble
