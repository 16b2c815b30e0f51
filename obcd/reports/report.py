"""A report as one document: the content of `obcd report --json`, and what the page is drawn from.

It holds counts, names of jobs and states; never a prompt, a response, or the message of a failure, which may quote one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from obcd.core.documents import Document
from obcd.spool.history.thinning import HistoryPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedJob(Document):
    """A job.

    Attributes:
        state: `published`, or the `JobState` of one that is not.
        accepted_at, started_at, finished_at: RFC 3339 in UTC; None while they are not known.
        seconds: From the first request to the last response, so far.
        work_seconds: Seconds of server work in its results.
        speedup: Server work for each second; None while that is not known.
        endpoints: The names of those that answered.
    """

    job: str
    name: str
    profile: str = ""
    state: str = "published"
    requests: int = 0
    responses: int = 0
    failures: int = 0
    failures_by_class: Mapping[str, int] = field(default_factory=dict)
    cut_short: int = 0
    empty: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    accepted_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    seconds: float | None = None
    responses_per_second: float | None = None
    output_tokens_per_second: float | None = None
    work_seconds: float = 0.0
    speedup: float | None = None
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name with its profile."""
        return f"{self.profile}/{self.name}" if self.profile else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEndpoint(Document):
    """An endpoint in the time of the report.

    Attributes:
        host, gpu: The host and the index of its card there.
        product: The name of that card, "" if it is not known.
        answered, faults, prompt_tokens, output_tokens: Of all jobs; in a report on one job, `responses` and
            `job_output_tokens` are those of the job.
        up, busy: The share of the time in which it was UP, and of its slots that were in use; None if not known.
    """

    name: str
    host: str = ""
    gpu: int = 0
    product: str = ""
    answered: int = 0
    faults: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    responses: int = 0
    job_output_tokens: int = 0
    up: float | None = None
    busy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedCard(Document):
    """A card in the time of the report; None for what it does not report.

    Attributes:
        utilization, power_watts: Means.
        memory_used_bytes, temperature_celsius: The most.
        joules: Its energy; `estimated_joules` is the part that comes from readings of its power and not of its counter.
        xid_errors: Number of faults (Xid) that its driver reported meanwhile; `last_xid` is the last one ever.
    """

    uuid: str
    host: str = ""
    index: int = -1
    product: str = ""
    utilization: float | None = None
    power_watts: float | None = None
    memory_used_bytes: int | None = None
    temperature_celsius: int | None = None
    joules: float | None = None
    estimated_joules: float = 0.0
    xid_errors: int = 0
    last_xid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedIdle(Document):
    """Slots that were idle while prompts waited, for one `IdleReason`; `share` is that of all slots over all time."""

    reason: str
    slot_seconds: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEnergy(Document):
    """Energy.

    Attributes:
        cards: Number of cards whose energy is known.
        joules: Of all cards in the time of the report; None if no card reports any.
        estimated_joules: The part that comes from readings of power and not of the cards' counters.
        share: In a report on one job: its part of the server work of that time; else 1. None while it is not known.
        watt_hours: Of the job or of all, i.e. the joules times the share.
        output_tokens_per_watt_hour, tokens_per_watt_hour: Of that, without and with the tokens of prompts.
    """

    cards: int = 0
    joules: float | None = None
    estimated_joules: float = 0.0
    share: float | None = None
    watt_hours: float | None = None
    output_tokens_per_watt_hour: float | None = None
    tokens_per_watt_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Document):
    """A report.

    Attributes:
        subject: `job` or `period`.
        start, end: Its time in Unix seconds; `start_at` and `end_at` are the same for people.
        covered_seconds: The part of it that the history has.
        jobs: The jobs of that time, the last ones first; in a report on one job, that one.
        more_jobs: Number of further jobs, which count in no sum of `jobs`.
        responses … output_tokens: Of all jobs in that time, by the history.
        slot_seconds, busy_seconds: The sums over time of slots and of requests in flight.
        idle: Slots that were idle while prompts waited, the most first.
        points: The plots; `job_points` are those of the job alone.
        notes: What is missing, for people.
    """

    format: int = 1
    obcd: str
    made_at: str
    subject: str
    start: float
    end: float
    start_at: str
    end_at: str
    covered_seconds: float = 0.0
    jobs: tuple[ReportedJob, ...] = ()
    more_jobs: int = 0
    responses: int = 0
    failures: int = 0
    failures_by_class: Mapping[str, int] = field(default_factory=dict)
    retries_by_class: Mapping[str, int] = field(default_factory=dict)
    cache_hits: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    slot_seconds: float = 0.0
    busy_seconds: float = 0.0
    idle: tuple[ReportedIdle, ...] = ()
    energy: ReportedEnergy = field(default_factory=ReportedEnergy)
    endpoints: tuple[ReportedEndpoint, ...] = ()
    cards: tuple[ReportedCard, ...] = ()
    points: tuple[HistoryPoint, ...] = ()
    job_points: tuple[HistoryPoint, ...] = ()
    notes: tuple[str, ...] = ()
