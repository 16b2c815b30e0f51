"""The event of a job that is set aside."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from obcd.clock import wall
from obcd.core.events import EventKind, NotableEvent
from obcd.spool.folders.event_files import write_event
from obcd.spool.job import crash_count
from obcd.spool.job.job_folder import JobHeader
from obcd.text import printable

logger = logging.getLogger(__name__)


def quarantine_event(header: JobHeader, why: str, at: float) -> NotableEvent:
    """Return the event; a job that is released may be set aside again, which is another one.

    Args:
        why: For people.
        at: Unix seconds.
    """
    return NotableEvent(
        id=f"evt_quarantined_{header.id}_{int(at)}",
        kind=EventKind.QUARANTINED,
        at=round(at, 3),
        text=f"{printable(header.label)} is set aside: {why}",
        profile=header.profile,
        job=header.id,
        uid=header.uid,
        facts={"name": header.name, "drop_id": header.drop_id, "host": socket.gethostname()},
    )


def note_quarantine(root: Path, header: JobHeader, ledger_bytes: int) -> None:
    """Write the event of a job that `crash_count.begin` will set aside, before it does; a failure is only logged."""
    if not crash_count.is_last(root / "jobs" / header.id, ledger_bytes):
        return
    why = f"the coordinator died {crash_count.LIMIT} times after this job was started and before a new result of it"
    try:
        write_event(root, quarantine_event(header, f"{why}; look in the log for the cause", wall()))
    except OSError as error:
        extra = {"action": "event_lost", "job": header.id}
        logger.error("no notification of job %s is sent: %s", header.id, error.strerror, extra=extra)  # noqa: TRY400
