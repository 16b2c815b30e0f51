"""The counts and rates of one job while it runs; the scheduler holds its requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from obcd.clock import timestamp, wall
from obcd.coordinator.jobs.recorder import Entry
from obcd.coordinator.jobs.refusal_count import RefusalCount
from obcd.coordinator.view import JobState, JobView
from obcd.core.answer.counts import Counts
from obcd.core.answer.openai.batch import Batch
from obcd.core.endpoint.rates import Rate
from obcd.core.forecasting.deadline_watch import DeadlineWatch
from obcd.core.forecasting.work_left import WorkLeft
from obcd.core.pending.backlog import Backlog
from obcd.errors import IllegalMoveError
from obcd.spool.job.job_folder import JobHeader

#: {state of a running job: the states that may follow}
MOVES = {
    JobState.RUNNING: {JobState.PAUSED, JobState.CANCELLED, JobState.COMPLETE},
    JobState.PAUSED: {JobState.RUNNING, JobState.CANCELLED, JobState.COMPLETE},
    JobState.CANCELLED: {JobState.COMPLETE},
    JobState.COMPLETE: frozenset[JobState](),
}


@dataclass(slots=True)
class RunningJob:
    """One active job."""

    header: JobHeader
    backlog: Backlog
    counts: Counts  # recorded results: they never run ahead of the disk
    answers: Rate  # results per second
    tokens: Rate  # generated tokens per second
    times: Sequence[int] | None = None  # by ordinal, how many requests share its result; None: one each
    state: JobState = JobState.RUNNING
    failures: dict[str, int] = field(default_factory=dict)  # {class: number of recorded failures}
    trouble: str = ""
    held: str = ""  # why obcd itself has paused it
    waits: str = ""  # which window it waits for
    priority: int = 0  # as its user set it; the rank of the backlog may be raised
    work_sizes: bytes = b""  # the size of each line (see `work_left`); empty if it is not known
    work: WorkLeft = field(init=False)
    ends_at: float | None = None  # the end that is foreseen, in Unix seconds
    deadline: DeadlineWatch | None = None  # what is foreseen for its deadline, if it has one
    refusals: RefusalCount = field(default_factory=RefusalCount)
    lacks_room: bool = False  # its results could not be published because there was no free space
    shown_at: float = field(default=-1e9)  # when its progress was last shown

    def __post_init__(self) -> None:
        left = self.backlog.count_unended(self.work_sizes)
        self.work = WorkLeft(left)
        self.work.note_earlier(self.counts.done, self.counts.seconds)

    def size_of(self, ordinal: int) -> int:
        """Return the size of a line, as in `WorkLeft`."""
        return self.work_sizes[ordinal] if self.work_sizes else 0

    def note_work(self, ordinal: int, seconds: float | None) -> None:
        """Learn from the result of a request.

        Args:
            seconds: How long it held its slot; None if it was not sent, or has failed (see `WorkLeft.note_lost`).
        """
        size = self.size_of(ordinal)
        if seconds is not None:
            self.work.note(size, seconds)
        self.work.end(size)

    def entry(self, ordinal: int, record: bytes, counts: Counts, signature: int = 0, failure: str = "") -> Entry:
        """Return a result to be written to disk; it counts once for each of the equal requests that share it.

        Args:
            signature: The number of its signature.
            failure: Its class, if it is a failure.
        """
        model = self.header.signatures[signature].model if self.header.signatures else ""
        return Entry(self.header.id, record, counts.times(self.lines_of(ordinal)), model, failure)

    def on_recorded(self, entry: Entry, now: float) -> None:
        """Count a result that is on disk."""
        self.counts.add(entry.counts)
        self.answers.add(entry.counts.done, now)
        if entry.failure:
            self.failures[entry.failure] = self.failures.get(entry.failure, 0) + entry.counts.failures

    def lines_of(self, ordinal: int) -> int:
        """Return how many equal requests share the result of one."""
        return self.times[ordinal] if self.times is not None else 1

    def eta_seconds(self, now: float) -> float | None:
        """Return how long the rest takes at the present rate; None while that is not known."""
        rate = self.answers.per_second(now)
        return (self.header.requests - self.counts.done) / rate if rate > 0 else None

    def move(self, state: JobState) -> None:
        """Move to another state; there is no way back from an end.

        Raises:
            IllegalMoveError: If there is no such move; nothing has changed.
        """
        if state not in MOVES[self.state]:
            raise IllegalMoveError(f"{self.header.id} cannot become {state}: it is {self.state}")
        self.state = state
        self.backlog.is_paused = state is JobState.PAUSED

    def view(self, now: float, obstacle: str = "") -> JobView:
        """Return the view of the job.

        Args:
            obstacle: Why no request can be sent at present.
        """
        counts, is_going = self.counts, self.state is not JobState.PAUSED
        trouble = self.trouble or self.held or self.waits or obstacle
        eta = self.eta_seconds(now) if is_going else None
        if is_going and self.ends_at is not None:  # it knows the windows, and the jobs beside this one
            eta = max(0.0, self.ends_at - wall())
        return replace(
            idle_view(self.header, self.state, trouble, self.priority, self.deadline),
            done=counts.done,
            failed=counts.failures,
            failed_by_class=dict(self.failures),
            cut_short=counts.cut_short,
            empty=counts.empty,
            tokens_per_second=round(self.tokens.per_second(now), 1) if is_going else 0.0,
            requests_per_second=round(self.answers.per_second(now), 2) if is_going else 0.0,
            work_seconds=round(counts.work_seconds, 1),
            prompt_eval_seconds=round(counts.prompt_eval_seconds, 1),
            evaluated_tokens=counts.evaluated_tokens if counts.knows_cache else None,
            cached_tokens=counts.cached_tokens if counts.knows_cache else None,
            eta_seconds=None if eta is None else round(eta, 1),
            updated_at=timestamp(wall()),
            batch=self._batch() if self.header.asks else None,
        )

    def _batch(self) -> Mapping[str, object]:
        """Return the progress of a job of OpenAI's lines as OpenAI's batch object; each of several choices counts."""
        counts = self.counts
        batch = Batch(
            job=self.header.id,
            endpoint=self.header.asks,
            status="in_progress" if counts.done < self.header.requests else "finalizing",
            total=self.header.requests,
            completed=counts.responses,
            failed=counts.failures,
            input_tokens=counts.prompt_tokens,
            output_tokens=counts.eval_tokens,
            times={"created_at": self.header.accepted_at, "in_progress_at": self.header.accepted_at},
        )
        return batch.to_json()


def no_obstacle(job: str) -> str:
    """Return that requests of a job can be sent."""
    return ""


def idle_view(
    header: JobHeader,
    state: JobState,
    trouble: str = "",
    priority: int = 0,
    deadline: DeadlineWatch | None = None,
) -> JobView:
    """Return the view of a job that is not running."""
    ends_at = deadline.ends_at if deadline is not None else None
    late = deadline.late_seconds if deadline is not None else None
    return JobView(
        by=timestamp(header.by) if header.by else None,
        ends_at=timestamp(ends_at) if ends_at is not None else None,
        late_seconds=None if late is None else round(late, 1),
        job=header.id,
        name=header.name,
        profile=header.profile,
        drop_id=header.drop_id,
        parent=header.parent,
        uid=header.uid,
        state=state,
        priority=priority,
        context=header.context.describe() if header.context is not None else "",
        total=header.requests,
        trouble=trouble,
        remark=header.remark or None,
    )


def time_to_go(jobs: Collection[RunningJob], waiting: int, in_flight: float) -> float | None:
    """Return how long the cluster takes for all remaining requests, in seconds; None while that is not known.

    This is the remaining work, in seconds at an endpoint, divided by the number of requests in flight. It is not the
    number of remaining requests divided by results per second: jobs of short and of long requests take turns, so the
    present mixture does not predict the rest.

    Args:
        waiting: Number of requests of jobs that have not started; assumed to be as long as the others.
        in_flight: Number of calls at endpoints now; several requests may go out in one.
    """
    answered = sum(job.counts.responses for job in jobs)
    if not answered or not in_flight:
        return None
    usual = sum(job.counts.seconds for job in jobs) / answered
    work, longest = waiting * usual, usual if waiting else 0.0
    for job in jobs:
        left = job.header.requests - job.counts.done
        each = job.counts.seconds / job.counts.responses if job.counts.responses else usual
        work += left * each
        longest = max(longest, each if left else 0.0)
    return max(work / in_flight, longest)
