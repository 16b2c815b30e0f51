"""What the coordinator is doing, as one frozen value: the source of every surface that shows it.

    Coordinator.view ─► LiveView ─► status.json ─► View ─► obcd status, demo, control, reload
                           └──────► STATUS of systemd, obcd batch

Its fields are the keys of status.json, those of `JobView` the keys of progress.json too. Seconds and rates are rounded
here, once. Counts and states, never a prompt or an answer. A field without a default is in the file of every version; a
state is a string, since a newer version may know more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from obcd.core.documents import LEFT_OUT_IF_NONE, UNWRITTEN, Document
from obcd.core.endpoint.health import EndpointState

FORMAT = 1


class DaemonState(StrEnum):
    """Where the coordinator stands."""

    STARTING = "STARTING"  # it takes up what an earlier one left
    READY = "READY"  # it accepts drops and gives requests out
    DRAINING = "DRAINING"  # it gives nothing new out; requests in flight may finish


class JobState(StrEnum):
    """Where a job stands; on disk the state is which files exist."""

    ACCEPTED = "ACCEPTED"  # on disk, waiting for its turn among the active jobs
    RUNNING = "RUNNING"  # its requests are given out
    PAUSED = "PAUSED"  # nothing of it is given out while its .pause lies in the inbox
    CANCELLED = "CANCELLED"  # what has no result becomes a failure; then it is published
    COMPLETE = "COMPLETE"  # every request has a recorded result; its outputs are being written
    QUARANTINED = "QUARANTINED"  # kept apart, since it ended coordinator after coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView(Document):
    """A job that is not published.

    Attributes:
        job: Its id.
        name: Of its file; `profile` is the inbox folder it lay in, "" for none.
        drop_id: What `obcd submit` gave the drop, "" for none.
        parent: The job that it retries, "" for none.
        uid: Of its submitter.
        state: A `JobState`.
        priority: Among the jobs of its submitter: -10 to 10, most often 0.
        context: Which context lengths it got, e.g. `num_ctx 4096 for 9912 requests, 16384 for 88`; "" as configured.
        total, done, failed, cut_short: Requests in all, with a recorded result, with a failure for one, with a response
            that reached num_predict.
        tokens_per_second, requests_per_second: At present; 0 while it is not running.
        work_seconds: Seconds of server work in its results.
        eta_seconds: Seconds to go at the present rate; None while that is not known.
        trouble: Why it does not go on, for people; "" while it does.
        updated_at: When this was so, in UTC, e.g. `2026-11-22T18:01:05.250Z`; None for a job that nobody works on.
        batch: OpenAI's batch object, of a job of OpenAI's lines; else None.
    """

    job: str
    name: str
    profile: str
    drop_id: str = ""
    parent: str = ""
    uid: int = 0
    state: str
    priority: int = 0
    context: str = ""
    total: int
    done: int = 0
    failed: int = 0
    cut_short: int = 0
    tokens_per_second: float = 0.0
    requests_per_second: float = 0.0
    work_seconds: float = 0.0
    eta_seconds: float | None = None
    trouble: str = ""
    updated_at: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    batch: Mapping[str, object] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherJobView(Document):
    """A job so far behind in line that it is only named; fields as in `JobView`."""

    job: str
    profile: str
    name: str
    state: str

    def to_json(self) -> dict[str, object]:
        """Return the object; written out here because there may be ten thousand, once a second."""
        return {"job": self.job, "profile": self.profile, "name": self.name, "state": self.state}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView(Document):
    """An endpoint.

    Attributes:
        name: As the configuration writes it, e.g. `gpu1:11432`.
        gpu: The index shown beside it.
        slots: Requests that it may hold now; `finds_slots` says that they are found by measurement.
        in_flight: Requests that it holds.
        state: An `EndpointState`.
        reason: Why it is not UP, for people.
        version: Of Ollama, "" while it was not reached.
        models: Canonical names, sorted.
        answered, faults: Attempts since the start.
        tokens_per_second: At present.
        left_out: What it does not get, and why, for people.
    """

    name: str
    url: str
    gpu: int
    slots: int
    finds_slots: bool = False
    in_flight: int
    state: str
    reason: str
    version: str
    models: tuple[str, ...] = ()
    answered: int
    faults: int
    tokens_per_second: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PullView(Document):
    """A model that an endpoint fetches, e.g. `qwen3:8b`; `percent` of the bytes that are known by now."""

    endpoint: str
    model: str
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingView(Document):
    """A file of the inbox, as `profile/name`, that is not accepted or obeyed, and why."""

    file: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedView(Document):
    """A file that was rejected: its name, the folder in the outbox that says so, and why."""

    file: str
    folder: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedView(Document):
    """A job that lies in the outbox; `name` with its profile, and how many of its requests have which result."""

    job: str
    name: str
    folder: str
    responses: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadView(Document):
    """What came of reading the configuration again.

    Attributes:
        number: Counts from 1 since the coordinator's start.
        began: When, in seconds of the machine's monotonic clock, which all its processes share.
        at: When, for people.
        text: What changed in one line, or the fault, with a line for each if there are several.
        exit_code: What `obcd reload` ends with.
    """

    number: int
    began: float
    at: str = ""
    is_ok: bool
    text: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Document):
    """A coordinator, as status.json has it.

    Attributes:
        pid: Of the coordinator.
        root, inbox, outbox: Its folders; `per_user` says that the outbox has one for each user.
        state: A `DaemonState`.
        updated: When this was so, in Unix seconds; `updated_at` is the same for people.
        troubles: What keeps it from working as it should, for people, the worst first.
        notes: What people should know of how it works here, and need not repair.
        takes_reloads: Whether SIGHUP has it read its configuration again; it ends what does not.
        reloads: The newest last.
        eta_seconds: Seconds until all jobs are done that are not paused; None while that is not known.
        jobs: Running ones, then those that wait, the oldest first, then those that are kept apart.
        further_jobs: Those behind them in line.
        settling: Names of files in the inbox that are on their way.
        rejected, published: The last ones.
        processes: `{clerk or endpoint: process id, None while it does not run}`.
    """

    format: int = FORMAT
    version: str
    pid: int
    root: str
    inbox: str
    outbox: str
    per_user: bool = False
    state: str
    updated: float
    updated_at: str
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    takes_reloads: bool = False
    reloads: tuple[ReloadView, ...] = ()
    eta_seconds: float | None = None
    jobs: tuple[JobView, ...] = ()
    further_jobs: tuple[FurtherJobView, ...] = ()
    endpoints: tuple[EndpointView, ...] = ()
    pulls: tuple[PullView, ...] = ()
    settling: tuple[str, ...] = ()
    waiting: tuple[WaitingView, ...] = ()
    rejected: tuple[RejectedView, ...] = ()
    published: tuple[PublishedView, ...] = ()
    processes: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def all_jobs(self) -> tuple[JobView | FurtherJobView, ...]:
        """All jobs that are not published."""
        return (*self.jobs, *self.further_jobs)

    def find_job(self, job: str) -> JobView | None:
        """Return the job of an id, or None when it is not among `jobs`."""
        return next((item for item in self.jobs if item.job == job), None)

    @property
    def done(self) -> int:
        """Requests of all these jobs that have a recorded result."""
        return sum(item.done for item in self.jobs)

    @property
    def in_flight(self) -> int:
        """Requests at endpoints now."""
        return sum(item.in_flight for item in self.endpoints)

    @property
    def tokens_per_second(self) -> float:
        """Of all endpoints at present."""
        return sum(item.tokens_per_second for item in self.endpoints)

    @property
    def staying(self) -> tuple[EndpointView, ...]:
        """The endpoints that are not on their way out of the configuration."""
        return tuple(item for item in self.endpoints if item.state != EndpointState.DRAINING)

    @property
    def up(self) -> int:
        """How many endpoints are UP."""
        return sum(item.state == EndpointState.UP for item in self.endpoints)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView(View):
    """The coordinator as it knows itself: with what status.json has no keys for.

    Attributes:
        unfinished: Jobs that are accepted, neither published nor kept apart.
        requests: All of those jobs.
    """

    unfinished: int = field(metadata=UNWRITTEN)
    requests: int = field(metadata=UNWRITTEN)
