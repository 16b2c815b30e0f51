"""The events that the coordinator reports to a listener as they happen."""

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
    """A job in the outbox."""

    header: JobHeader
    folder: Path
    responses: int
    failures: int
    empty: int = 0

    def view(self) -> PublishedView:
        """Return its view."""
        return PublishedView(
            job=self.header.id,
            name=self.header.label,
            folder=str(self.folder),
            responses=self.responses,
            failures=self.failures,
            empty=self.empty,
        )


class Observer:
    """Receives events as they happen, for `obcd batch`. The methods here do nothing."""

    def on_answer(self, job: JobHeader, lease: Lease, answer: Answered) -> None:
        """React to a response, which is about to be recorded."""

    def on_failure(self, job: JobHeader, lease: Lease | None, line: int, fault: Fault) -> None:
        """React to a request that failed for good."""

    def on_published(self, job: str, folder: Path) -> None:
        """React to the publication of a job's folder."""
