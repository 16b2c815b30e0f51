"""The calls that a clerk can execute: each call is a value that knows the type of its result and whether it is large.

A call is sent to the clerk's process unchanged and runs there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from obcd.core.tables.file_format import PARQUET, Form, form_of
from obcd.core.tables.unpacking import MAX_RATIO
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox import control
from obcd.spool.inbox.control import Control, JobControls
from obcd.spool.intake import acceptance, recovery
from obcd.spool.intake.acceptance import Verdict
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.intake.recovery import LoadedJob, Recovery
from obcd.spool.job import crash_count
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import publication, retention
from obcd.spool.outbox.publication import EndpointFacts
from obcd.spool.outbox.retention import Swept

#: A file is large above so many bytes, a job above so many requests. Smaller ones take a clerk about a second at most.
LARGE_BYTES, LARGE_REQUESTS = 16 * 2**20, 20_000

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CallFailed:
    """Clerk → coordinator: the call raised an exception, or the clerk died during the call.

    Attributes:
        reason: For people; contains an exception's own text only if the text is the operating system's.
        is_disk: Whether the operating system refused (full, read-only, gone): the same call may succeed later.
        is_full: Whether it refused because there was no free space.
    """

    reason: str
    is_disk: bool = False
    is_full: bool = False


class ClerkCall(ABC, Generic[Result]):
    """One piece of work for a clerk, whose outcome is a `Result` or a `CallFailed`."""

    __slots__ = ()

    @property
    def is_large(self) -> bool:
        """Whether the call may take long, so that no small call should wait for it."""
        return False

    @abstractmethod
    def run(self, layout: Layout) -> Result:
        """Execute the call; runs in the clerk's process."""


def is_large_file(size: int, name: str = "") -> bool:
    """Return whether accepting a file of so many bytes may take long.

    Args:
        name: Its name: what is packed, and Parquet, can be so many times as much.
    """
    form = form_of(name) or Form()
    return size * (MAX_RATIO if form.is_packed or form.kind == PARQUET else 1) > LARGE_BYTES


def is_large_job(header: JobHeader) -> bool:
    """Return whether reading or publishing a job takes long."""
    size = header.size if header.converted is None else max(header.size, header.converted.size)
    return is_large_file(size) or header.requests > LARGE_REQUESTS


# --- files of the inbox ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recover(ClerkCall[Recovery]):
    """Find the jobs and claims that an earlier coordinator left."""

    def run(self, layout: Layout) -> Recovery:
        """See `recovery.recover`."""
        return recovery.recover(layout)


@dataclass(frozen=True, slots=True)
class _FileCall(ClerkCall[Result]):
    order: AcceptOrder

    @property
    def is_large(self) -> bool:
        """Whether the file is large."""
        return is_large_file(self.order.drop.identity.size, self.order.drop.key.name)


@dataclass(frozen=True, slots=True)
class Accept(_FileCall[Verdict]):
    """Claim a file in the inbox and make it a job."""

    def run(self, layout: Layout) -> Verdict:
        """See `acceptance.accept`."""
        return acceptance.accept(layout, self.order)


@dataclass(frozen=True, slots=True)
class AcceptClaimed(_FileCall[Verdict]):
    """Make a file that is already claimed a job."""

    def run(self, layout: Layout) -> Verdict:
        """See `acceptance.accept_claimed`."""
        return acceptance.accept_claimed(layout, self.order)


@dataclass(frozen=True, slots=True)
class RejectClaimed(_FileCall[Verdict]):
    """Reject a file that is already claimed.

    Attributes:
        why: The reason, for people.
    """

    why: str

    def run(self, layout: Layout) -> Verdict:
        """See `acceptance.reject_claimed`."""
        return acceptance.reject_claimed(layout, self.order, self.why)


# --- jobs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _JobCall(ClerkCall[Result]):
    header: JobHeader

    @property
    def is_large(self) -> bool:
        """Whether the job is large."""
        return is_large_job(self.header)


@dataclass(frozen=True, slots=True)
class LoadJob(_JobCall[LoadedJob | None]):
    """Read a job's requests and results.

    Attributes:
        is_counted: Whether the start of the job is counted; the result is then None for a quarantined job.
        records: Number of records of its ledger that the counters have; None: all.
    """

    is_counted: bool
    records: int | None = None

    def run(self, layout: Layout) -> LoadedJob | None:
        """See `recovery.begin_job` and `load_job`."""
        read = recovery.begin_job if self.is_counted else recovery.load_job
        return read(layout, self.header.id, self.records)


@dataclass(frozen=True, slots=True)
class Bind(_JobCall[JobControls | None]):
    """Apply a control file to a job for good.

    Attributes:
        by_daemon: Whether the daemon's own user made the file.
    """

    control: Control
    by_daemon: bool

    def run(self, layout: Layout) -> JobControls | None:
        """See `control.bind`."""
        return control.bind(layout, self.control, self.header.id, self.by_daemon)


@dataclass(frozen=True, slots=True)
class Hold(_JobCall[None]):
    """Pause a job from inside, until it is resumed.

    Attributes:
        why: The reason, for people.
    """

    why: str

    def run(self, layout: Layout) -> None:
        """See `control.hold`."""
        control.hold(layout.jobs / self.header.id, self.why)


@dataclass(frozen=True, slots=True)
class Publish(_JobCall[Path]):
    """Write a complete job's outputs and publish its folder.

    Attributes:
        facts: {endpoint: its entry in manifests}
    """

    facts: Mapping[str, EndpointFacts]

    def run(self, layout: Layout) -> Path:
        """See `publication.publish`."""
        return publication.publish(layout, self.header.id, self.facts)


@dataclass(frozen=True, slots=True)
class PublishLeft(ClerkCall[Path]):
    """Publish the folder of a job whose outputs an earlier coordinator had written."""

    job: str

    def run(self, layout: Layout) -> Path:
        """See `publication.publish`."""
        return publication.publish(layout, self.job, {})


@dataclass(frozen=True, slots=True)
class ClearCrashes(ClerkCall[None]):
    """Reset the count of how often a job was started."""

    job: str

    def run(self, layout: Layout) -> None:
        """See `crash_count.clear`."""
        crash_count.clear(layout.jobs / self.job)


@dataclass(frozen=True, slots=True)
class Release(ClerkCall[None]):
    """End a job's quarantine."""

    job: str

    def run(self, layout: Layout) -> None:
        """See `crash_count.release`."""
        crash_count.release(layout.jobs / self.job)


# --- the outbox ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sweep(ClerkCall[Swept]):
    """Delete old results.

    Attributes:
        before: Unix seconds; folders that were published earlier are deleted.
    """

    before: float

    def run(self, layout: Layout) -> Swept:
        """See `retention.sweep`."""
        return retention.sweep(layout, self.before)
