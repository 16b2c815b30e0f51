"""What the coordinator says to a listener, as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from obcd.coordinator.view import PublishedView
from obcd.core.endpoint.faults import Fault
from obcd.core.scheduling.leases import Lease
from obcd.spool.job.job_folder import JobHeader
from obcd.workers.messages import Answered


@dataclass(frozen=True, slots=True)
class Published:
    """A job that lies in the outbox."""

    header: JobHeader
    folder: Path
    responses: int
    failures: int

    def view(self) -> PublishedView:
        """Return what is shown of it."""
        return PublishedView(
            job=self.header.id,
            name=self.header.label,
            folder=str(self.folder),
            responses=self.responses,
            failures=self.failures,
        )


class Observer:
    """Learns what happens, as it happens; for `obcd batch`. Does nothing by itself."""

    def on_answer(self, job: JobHeader, lease: Lease, answer: Answered) -> None:
        """A request was answered (and is about to be recorded)."""

    def on_failure(self, job: JobHeader, lease: Lease | None, line: int, fault: Fault) -> None:
        """A request failed for good."""

    def on_published(self, job: str, folder: Path) -> None:
        """A job's folder was shown."""
