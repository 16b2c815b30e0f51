"""The state of the coordinator as one frozen value: the source of everything that shows it.

    Coordinator.view ─► LiveView ─► status.json ─► View ─► obcd status, demo, control, reload
                           └──────► STATUS of systemd, obcd batch

Its fields are the keys of status.json; those of `JobView` are also the keys of progress.json. Seconds and rates are
rounded here, once. A view holds counts and states, never a prompt or a response. A field without a default is in the
file of every version; a state is a string, because a newer version may have more states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from obcd.coordinator.metering.counters import CountersView
from obcd.core.documents import LEFT_OUT_IF_NONE, UNWRITTEN, Document
from obcd.core.endpoint.health import EndpointState
from obcd.hosts.record import CardReading

FORMAT = 1


class DaemonState(StrEnum):
    """The state of the coordinator."""

    STARTING = "STARTING"  # it recovers what an earlier one left
    READY = "READY"  # it accepts drops and sends requests
    DRAINING = "DRAINING"  # it sends no new requests; requests in flight may finish


class JobState(StrEnum):
    """The state of a job; on disk the existing files represent it."""

    ACCEPTED = "ACCEPTED"  # on disk, waiting to become one of the active jobs
    RUNNING = "RUNNING"  # its requests are sent
    PAUSED = "PAUSED"  # none of its requests are sent: its .pause file is in the inbox, or obcd itself paused it
    CANCELLED = "CANCELLED"  # requests without a result become failures; then it is published
    COMPLETE = "COMPLETE"  # every request has a recorded result; its outputs are being written
    QUARANTINED = "QUARANTINED"  # set aside, because it crashed the coordinator repeatedly


class WaitReason(StrEnum):
    """Why a file of the inbox is not accepted, or has no effect."""

    FILE = "file"  # the file itself: its name, its type, its permissions
    PROFILE = "profile"  # its profile is no longer in the configuration
    LIMIT = "limit"  # its submitter has as much in work as the limits of [spool] allow
    DISK = "disk"  # there is too little free space
    CONTROL = "control"  # it is a control file of no effect


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView(Document):
    """A job that is not published.

    Attributes:
        job: Its id.
        name: The name of its file; `profile` is the inbox folder of the file, "" for none.
        drop_id: The id that `obcd submit` gave the drop, "" for none.
        parent: The job that it retries, "" for none.
        uid: The user id of its submitter.
        state: A `JobState`.
        priority: Its priority among the jobs of its submitter: -10 to 10, usually 0.
        context: Its context lengths, e.g. `num_ctx 4096 for 9912 requests, 16384 for 88`; "" for the configured one.
        total, done, failed, cut_short, empty: Number of requests: all, with a recorded result, with a failure as
            result, with a response that reached num_predict, with a response that says nothing.
        failed_by_class: `{class: number of requests with such a failure}`.
        tokens_per_second, requests_per_second: The present rates; 0 while the job is not running.
        work_seconds: Seconds of server work in its results, without the wait for a slot of the server.
        prompt_eval_seconds: Seconds of it in which prompts were evaluated.
        evaluated_tokens, cached_tokens: Prompt tokens that servers evaluated, and those that came from their prefix
            caches, as far as replies say so; None while none does.
        eta_seconds: Seconds to go, by the job's own speed, the jobs beside it and the windows; None while that is not
            known.
        by: Its deadline in UTC, e.g. `2026-12-02T05:00:00.000Z`; None for a job without one.
        ends_at: For a job with a deadline: when it is expected to end; None while that is not known.
        late_seconds: By how many seconds it will miss its deadline; None if it will not.
        trouble: Why the job does not continue, for people; "" while it does.
        remark: What its submitter asked for and does not get, for people, e.g. a deadline; None for none.
        updated_at: The time of this state in UTC, e.g. `2026-11-22T18:01:05.250Z`; None for a job that is not running.
        batch: OpenAI's batch object for a job of OpenAI's lines; else None.
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
    failed_by_class: Mapping[str, int] = field(default_factory=dict)
    cut_short: int = 0
    empty: int = 0
    tokens_per_second: float = 0.0
    requests_per_second: float = 0.0
    work_seconds: float = 0.0
    prompt_eval_seconds: float = 0.0
    evaluated_tokens: int | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    cached_tokens: int | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    eta_seconds: float | None = None
    by: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    ends_at: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    late_seconds: float | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    trouble: str = ""
    remark: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    updated_at: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    batch: Mapping[str, object] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherJobView(Document):
    """A job so far back in line that it is only named; fields as in `JobView`."""

    job: str
    profile: str
    name: str
    state: str

    def to_json(self) -> dict[str, object]:
        """Return the object; written out here because there may be ten thousand of them once a second."""
        return {"job": self.job, "profile": self.profile, "name": self.name, "state": self.state}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView(Document):
    """An endpoint.

    Attributes:
        name: The name in the configuration, e.g. `gpu1:11432`.
        gpu: The index of the GPU that is shown with it.
        slots: Number of requests that it may have in flight now; `finds_slots` says whether it is found by measurement.
        in_flight: Number of requests that it has in flight.
        state: An `EndpointState`.
        reason: Why it is not UP, for people.
        version: The version of Ollama, "" while it has not been reached.
        models: Canonical names of its models, sorted.
        loaded, loaded_num_ctx: The model of its last requests, e.g. `llama3.2`, which the server keeps in memory, and
            the context length; "" and 0 before the first one.
        answered, faults: Number of attempts with a response and with a fault, counted from the start.
        prompt_tokens, output_tokens: Tokens of its responses, counted from the start.
        tokens_per_second: The present rate.
        left_out: The work that it does not get, and why, for people.
        host: The host in its URL.
        digests: `{model: the characters of its digest that count}`, of its models.
        window: Its windows, e.g. `mon-fri 20:00-07:00`, separated by semicolons; None: it has none.
        yields: Why it leaves its slots to people now, "" if it does not; None: it never does.
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
    host: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)
    loaded: str = ""
    loaded_num_ctx: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    window: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    yields: str | None = field(default=None, metadata=LEFT_OUT_IF_NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView(Document):
    """A record in the hosts folder.

    Attributes:
        name: The name of its file without `.json`.
        owner: The user who owns it, "" if that is not known.
        by: What started the host, e.g. `slurm 4711_2`.
        state: `serving`, `draining` or `gone`, as the record says; else `silent`, `dead` or `refused`.
        age_seconds: Seconds since it changed, on the coordinator's clock; None if it was never seen to change.
        endpoints: The names of its endpoints that are used.
        seconds_left: Until its allocation ends; None: it has no end.
        why: Why it, or some of its endpoints, are not used, for people; "" if all are.
        cards: The readings of its cards.
    """

    name: str
    owner: str = ""
    by: str = ""
    state: str
    age_seconds: float | None = None
    endpoints: tuple[str, ...] = ()
    seconds_left: float | None = None
    why: str = ""
    cards: tuple[CardReading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PullView(Document):
    """A model that an endpoint is fetching, e.g. `qwen3:8b`; `percent` counts the bytes known so far."""

    endpoint: str
    model: str
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingView(Document):
    """A file of the inbox, as `profile/name`, that is not accepted or has no effect, and why.

    Attributes:
        reason: A `WaitReason`.
    """

    file: str
    why: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedView(Document):
    """A rejected file: its name, its status folder in the outbox, and the reason."""

    file: str
    folder: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedView(Document):
    """A job in the outbox; `name` includes its profile; the counts are those of its results."""

    job: str
    name: str
    folder: str
    responses: int
    failures: int
    empty: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadView(Document):
    """The outcome of a reload of the configuration.

    Attributes:
        number: Counted from 1 since the coordinator's start.
        began: When it began, in seconds of the machine's monotonic clock, which all its processes share.
        at: When it ended, for people.
        text: The changes in one line, or the fault, with one line for each if there are several.
        exit_code: The exit code of `obcd reload`.
    """

    number: int
    began: float
    at: str = ""
    is_ok: bool
    text: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View(Document):
    """A coordinator, as in status.json.

    Attributes:
        pid: The process id of the coordinator.
        root, inbox, outbox: Its folders; `per_user` says whether the outbox has a folder for each user.
        state: A `DaemonState`.
        updated: The time of this state in Unix seconds; `updated_at` is the same for people.
        troubles: What keeps it from working as it should, for people, the worst first.
        notes: What people should know about how it works here; nothing needs repair.
        takes_reloads: Whether the process reloads its configuration at SIGHUP; otherwise SIGHUP ends it.
        reloads: The last reloads, the newest last.
        eta_seconds: Seconds until all jobs that are not paused are done; None while that is not known.
        jobs: The running jobs, then those that wait, the oldest first, then those that are set aside.
        further_jobs: The jobs behind them in line.
        hosts: The records in the hosts folder.
        settling: Names of files in the inbox that are settling.
        rejected, published: The last ones.
        processes: `{clerk or endpoint: process id, None while it does not run}`.
        requests_waiting: Requests without a result that are not in flight, of all jobs that are not paused.
        free_bytes, min_free_bytes: Free space on the filesystem of the root, and the space below which obcd pauses;
            None while it is not known.
        cards: The readings of the cards of the coordinator's machine, if servers of obcd run there.
        counters: What metrics show as counters.
        paces: `{profile: the mean time in which one of its requests held a slot, in seconds}`; None: it is not known.
        windows: `{profile, "" for the top level: the windows of its new jobs, separated by semicolons}`, of those that
            have any; None: none has.
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
    hosts: tuple[HostView, ...] = ()
    pulls: tuple[PullView, ...] = ()
    settling: tuple[str, ...] = ()
    waiting: tuple[WaitingView, ...] = ()
    rejected: tuple[RejectedView, ...] = ()
    published: tuple[PublishedView, ...] = ()
    processes: Mapping[str, int | None] = field(default_factory=dict)
    requests_waiting: int = 0
    free_bytes: int | None = None
    min_free_bytes: int | None = None
    cards: tuple[CardReading, ...] = ()
    counters: CountersView = field(default_factory=CountersView)
    paces: Mapping[str, float] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)
    windows: Mapping[str, str] | None = field(default=None, metadata=LEFT_OUT_IF_NONE)

    @property
    def all_jobs(self) -> tuple[JobView | FurtherJobView, ...]:
        """All jobs that are not published."""
        return (*self.jobs, *self.further_jobs)

    def find_job(self, job: str) -> JobView | None:
        """Return the job of an id, or None when it is not among `jobs`."""
        return next((item for item in self.jobs if item.job == job), None)

    @property
    def done(self) -> int:
        """The number of requests of all these jobs that have a recorded result."""
        return sum(item.done for item in self.jobs)

    @property
    def in_flight(self) -> int:
        """The number of requests at endpoints now."""
        return sum(item.in_flight for item in self.endpoints)

    @property
    def tokens_per_second(self) -> float:
        """The present rate of all endpoints together."""
        return sum(item.tokens_per_second for item in self.endpoints)

    @property
    def staying(self) -> tuple[EndpointView, ...]:
        """The endpoints that are not draining."""
        return tuple(item for item in self.endpoints if item.state != EndpointState.DRAINING)

    @property
    def up(self) -> int:
        """The number of endpoints that are UP."""
        return sum(item.state == EndpointState.UP for item in self.endpoints)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView(View):
    """A view from within the coordinator, with fields that are not in status.json.

    Attributes:
        unfinished: Number of jobs that are accepted and neither published nor set aside.
        requests: Number of requests of all those jobs.
        waits_for_host: Whether there is no endpoint, and hosts may register.
        is_short_of_disk: Whether no request is sent because the disk is almost full.
    """

    unfinished: int = field(metadata=UNWRITTEN)
    requests: int = field(metadata=UNWRITTEN)
    waits_for_host: bool = field(default=False, metadata=UNWRITTEN)
    is_short_of_disk: bool = field(default=False, metadata=UNWRITTEN)
