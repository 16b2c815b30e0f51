"""The cards of the coordinator's own machine, as the watch of its servers reports them: registered hosts have records.

obcd host ─► watch.json ─► LocalCards ─► View.cards
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from obcd.clock import wall
from obcd.errors import ObcdError
from obcd.host.servers.plan import SYSTEM_RUNTIME, read_plan
from obcd.host.servers.runtime import own_folder
from obcd.host.watch.watch_file import FILE_NAME, STALE_SECONDS
from obcd.hosts.record import CardReading
from obcd.spool.folders import disk

#: Most bytes of a file that are read: eight cards of seven MIG instances each are a tenth of it.
MOST_BYTES = 2**20
#: Most cards of a machine, as in a record.
MOST_CARDS = 64


def read_cards(folders: Sequence[Path]) -> tuple[CardReading, ...]:
    """Return what the watch of the first of these runtime folders reports that has one; raise nothing.

    A file that is not this user's or root's does not count, nor one that the watch has not written for 15 s.
    """
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return tuple(_readings(folder))[:MOST_CARDS]
    return ()


def default_folders(runtime: Path) -> tuple[Path, ...]:
    """Return where a watch may write: of `obcd up` (the coordinator's folder), a unit, a user."""
    return runtime, SYSTEM_RUNTIME, own_folder()


def _readings(folder: Path) -> Iterator[CardReading]:
    with disk.open_regular(folder / FILE_NAME, os.O_NOFOLLOW) as file:
        if os.fstat(file.fileno()).st_uid not in (os.geteuid(), 0):
            raise ValueError("another user's")
        document: Any = json.loads(file.read(MOST_BYTES))
    since = wall() - document["updated"]
    if since > STALE_SECONDS:
        raise ValueError("old")
    names: dict[str, str] = {}
    with contextlib.suppress(ObcdError):
        names = {server.pin: server.card for server in read_plan(folder).servers}
    xids = document.get("xid_counts", {})
    for uuid, readings in document["cards"].items():
        found = CardReading.of(readings, names.get(uuid, ""), xids.get(uuid), since=since)
        yield CardReading.from_json(found.to_json())  # checks the types
