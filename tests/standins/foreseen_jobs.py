"""Jobs on a simulated cluster whose ends are foreseen on the way, as the coordinator foresees them."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from obcd.core.forecasting.deadline_watch import DeadlineWatch
from obcd.core.forecasting.queue_forecast import Capacity, Load, forecast
from obcd.core.forecasting.windows import Windows
from obcd.core.forecasting.work_left import WorkLeft, sizes_of
from obcd.core.pending.longest_first import sort_sizes
from obcd.core.scheduling.leases import Lease
from tests.standins.nights import SimulatedCluster

BERLIN = ZoneInfo("Europe/Berlin")
#: Seconds between two forecasts.
LOOK_SECONDS = 20.0


@dataclass(slots=True)
class ForeseenCluster(SimulatedCluster):
    """A cluster whose requests take what was made up for them, and which learns from that."""

    seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    sizes: dict[str, bytes] = field(default_factory=dict)
    work: dict[str, WorkLeft] = field(default_factory=dict)
    submitters: dict[str, int] = field(default_factory=dict)

    def seconds_of(self, lease: Lease) -> float:
        return self.seconds[lease.request]

    def add_made_up(self, job: str, requests: int, mean: float, windows: Windows | None, submitter: int = 1) -> None:
        """Add a job; a part of what its requests take goes with the lengths of their lines."""
        chance = self.chance
        width, share, noise = chance.choice([0.3, 0.6, 1.0]), chance.choice([0.0, 0.4, 0.9]), chance.uniform(0.2, 0.6)
        lengths = [int(200 * chance.lognormvariate(0, width)) + 20 for _ in range(requests)]
        usual = statistics.mean(lengths)
        for ordinal, length in enumerate(lengths):
            seconds = mean * (1 - share + share * length / usual) * chance.lognormvariate(-noise * noise / 2, noise)
            self.seconds[job, ordinal] = seconds
        self.sizes[job], self.submitters[job] = sizes_of(lengths), submitter
        self.work[job] = WorkLeft(Counter(self.sizes[job]))
        self.add_job(job, requests, windows, sizes=sort_sizes(lengths), submitter=submitter)

    def on_answer(self, lease: Lease) -> None:
        size = self.sizes[lease.job][lease.ordinal]
        self.work[lease.job].note(size, self.now - lease.sent_at)
        self.work[lease.job].end(size)

    def foresee(self) -> dict[str, float | None]:
        """Return when each job ends, in Unix seconds."""
        loads = []
        for job, work in self.work.items():
            backlog = self.backlogs[job]
            mine = [lease for lease in self.out.values() if lease.job == job]
            work.look_at([(self.sizes[job][lease.ordinal], self.now - lease.sent_at) for lease in mine])
            if backlog.unfinished:
                loads.append(
                    Load(
                        job=job,
                        submitter=self.submitters[job],
                        requests=work.requests,
                        seconds=work.seconds,
                        spread=work.spread(is_longest_first=backlog.puts_longest_first),
                        windows=self.job_windows.get(job, Windows()),
                    )
                )
        places = [
            Capacity(
                name=name,
                slots=self.scheduler.endpoint(name).health.open_slots(slots),
                windows=self.endpoint_windows.get(name, Windows()),
            )
            for name, slots in self.slots.items()
        ]
        return forecast(loads, places, self.at)

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until a condition holds."""
        while True:
            self.tick()
            if until():
                return
            self.now = max(self.next_change(), self.now + 1e-6)


def make_cluster(seed: int, *, with_windows: bool) -> tuple[ForeseenCluster, str]:
    """Return a cluster and the job that counts; another user's job may share the slots with it."""
    chance = random.Random(seed)
    start = datetime(2027, 3, chance.randrange(20, 29), chance.randrange(24), 30, tzinfo=BERLIN).timestamp()
    cluster = ForeseenCluster({"gpu0": 8, "gpu1": 8}, start, chance, limit=1e9)
    nights = Windows.parse(chance.choice(["20:00-07:00", "mon-fri 19:00-06:30; sat-sun"]), BERLIN)
    if with_windows and chance.random() < 0.5:
        cluster.endpoint_windows["gpu1"] = Windows.parse("18:00-08:00", BERLIN)
    cluster.add_made_up("job", chance.randrange(1000, 1600), chance.uniform(60, 500), nights if with_windows else None)
    if chance.random() < 0.5:
        cluster.add_made_up("other", chance.randrange(300, 800), chance.uniform(60, 500), None, submitter=2)
    return cluster, "job"


def error_at(seed: int, part: float, *, with_windows: bool) -> float:
    """Return how wrong the forecast was when a part of the job's lines was answered, as a share of the time to go."""
    cluster, job = make_cluster(seed, with_windows=with_windows)
    backlog = cluster.backlogs[job]
    left = len(backlog) - max(5, int(part * len(backlog)))
    cluster.run(lambda: backlog.unfinished <= left)
    seen, end = cluster.at, cluster.foresee()[job]
    cluster.run(lambda: not backlog.unfinished)
    assert end is not None
    return abs(end - cluster.at) / (cluster.at - seen)


@dataclass(frozen=True, slots=True)
class Reported:
    """When a missed deadline was reported.

    Attributes:
        before: Seconds before the deadline; negative after it; None: never.
        after: Seconds after the miss became foreseeable.
    """

    before: float | None
    after: float | None

    @property
    def is_in_time(self) -> bool:
        """Whether it was reported an hour before the deadline, or within a minute of becoming foreseeable."""
        return (self.before is not None and self.before >= 3600.0) or (self.after is not None and self.after <= 60.0)


def report_of(seed: int, *, breaks: bool, late: float) -> Reported:
    """Return when a deadline was reported that the job misses.

    Args:
        breaks: Whether an endpoint goes half way, so that the miss is foreseeable from then on; otherwise it is so
            from the twentieth of the job on.
        late: By how many seconds the job misses its deadline; negative: it does not.
    """
    end, twentieth, _ = _run_through(seed, None, breaks_at=None)
    middle = (end + twentieth) / 2 if breaks else None
    if middle is not None:
        end, _, _ = _run_through(seed, None, breaks_at=middle)
    watch = DeadlineWatch(end - late)
    _, _, reported = _run_through(seed, watch, breaks_at=middle)
    if reported is None:
        return Reported(None, None)
    return Reported(watch.by - reported, reported - (twentieth if middle is None else middle))


def _run_through(seed: int, watch: DeadlineWatch | None, breaks_at: float | None) -> tuple[float, float, float | None]:
    """Run a job to its end; return when that was, when a twentieth was done, and when it was reported as late."""
    cluster, job = make_cluster(seed, with_windows=seed % 2 == 0)
    backlog, twentieth, next_look, reported = cluster.backlogs[job], 0.0, 0.0, None
    while True:
        cluster.tick()
        if not backlog.unfinished:
            return cluster.at, twentieth, reported
        if not twentieth and backlog.unfinished <= 0.95 * len(backlog):
            twentieth = cluster.at
        if breaks_at is not None and cluster.at >= breaks_at and cluster.slots.pop("gpu1", None) is not None:
            cluster.scheduler.endpoint("gpu1").drain(cluster.now)
        if watch is not None and cluster.now >= next_look:
            next_look = cluster.now + LOOK_SECONDS
            end = cluster.foresee().get(job) if cluster.work[job].seen >= 5 else None
            if watch.look(end, end, cluster.at, cluster.work[job].seen) and watch.is_late and reported is None:
                reported = cluster.at
        wanted = [cluster.next_change()]
        if watch is not None and twentieth:
            wanted.append(next_look)
        if breaks_at is not None and cluster.at < breaks_at:
            wanted.append(breaks_at - cluster.offset)
        cluster.now = max(min(wanted), cluster.now + 1e-6)
