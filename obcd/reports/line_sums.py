"""Sums over the lines of the history in a time: results, slots, endpoints, and the part of one job. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from obcd.reports.card_sums import CardSums
from obcd.reports.report import ReportedEndpoint, ReportedIdle
from obcd.spool.history.history_line import HistoryLine
from obcd.spool.history.thinning import Thinner


@dataclass(slots=True)
class _EndpointSums:
    host: str = ""
    gpu: int = 0
    seconds: float = 0.0
    amounts: list[float] = field(default_factory=lambda: [0.0] * 7)


class LineSums:
    """Sums over lines; one at the edge of the time counts by the part that is inside.

    Args:
        start, end: The time, in Unix seconds.
        points: How many points the plots get.
        job: The id of the job whose part is summed as well, "" for none.
    """

    def __init__(self, start: float, end: float, points: int, job: str = "") -> None:
        self.start, self.end, self._job = start, end, job
        self._plot, self._job_plot = Thinner(start, end, points), Thinner(start, end, points)
        self.cards = CardSums(start, end)
        self.seconds = self.slot_seconds = self.busy_seconds = 0.0
        self.failures: dict[str, float] = {}
        self.retries: dict[str, float] = {}
        self._idle: dict[str, float] = {}
        self._amounts = [0.0] * 4
        self._work = self._job_work = 0.0
        self._job_tokens = [0, 0]
        self._endpoints: dict[str, _EndpointSums] = {}

    def add(self, line: HistoryLine) -> None:
        """Take a line; those before the time are of use for counters of cards."""
        self.cards.add(line)
        shared = min(line.time, self.end) - max(line.time - line.seconds, self.start)
        if line.seconds <= 0 or shared <= 0:
            return
        share = shared / line.seconds
        self.seconds += shared
        self.slot_seconds += share * line.slot_seconds
        self.busy_seconds += share * line.busy_seconds
        amounts = line.responses, line.cache_hits, line.prompt_tokens, line.output_tokens
        self._amounts = [before + share * amount for before, amount in zip(self._amounts, amounts, strict=True)]
        _add_shares(self.failures, line.failures, share)
        _add_shares(self.retries, line.retries, share)
        _add_shares(self._idle, line.idle_seconds, share)
        self._plot.add(line)
        if self._job:
            self._add_job(line, share)
        self._add_endpoints(line, share, shared)

    def _add_job(self, line: HistoryLine, share: float) -> None:
        active = line.active
        self._work += share * sum(active.work_seconds)
        if self._job not in active.job:
            self._job_plot.add(HistoryLine(time=line.time, seconds=line.seconds))
            return
        number = active.job.index(self._job)
        self._job_work += share * active.work_seconds[number]
        failed = active.failed[number]
        self._job_tokens[0] += active.prompt_tokens[number]
        self._job_tokens[1] += active.output_tokens[number]
        self._job_plot.add(
            HistoryLine(
                time=line.time,
                seconds=line.seconds,
                responses=active.done[number] - failed,
                failures={"": failed},
                prompt_tokens=active.prompt_tokens[number],
                output_tokens=active.output_tokens[number],
            )
        )

    def _add_endpoints(self, line: HistoryLine, share: float, shared: float) -> None:
        columns = line.endpoints
        for number, name in enumerate(columns.name):
            sums = self._endpoints.setdefault(name, _EndpointSums())
            sums.host, sums.gpu = columns.host[number], columns.gpu[number]
            sums.seconds += shared
            amounts = (
                columns.answered[number], columns.faults[number], columns.prompt_tokens[number],
                columns.output_tokens[number], columns.up_seconds[number], columns.slot_seconds[number],
                columns.busy_seconds[number],
            )  # fmt: skip
            sums.amounts = [before + share * amount for before, amount in zip(sums.amounts, amounts, strict=True)]

    @property
    def amounts(self) -> tuple[int, int, int, int]:
        """Responses, hits of the cache, tokens of prompts and of output."""
        responses, hits, prompt, output = map(round, self._amounts)
        return responses, hits, prompt, output

    @property
    def job_tokens(self) -> tuple[int, int]:
        """Tokens of the job's prompts and output."""
        return self._job_tokens[0], self._job_tokens[1]

    @property
    def job_share(self) -> float | None:
        """The part of the server work that was the job's; None if there was none."""
        return self._job_work / self._work if self._work else None

    def idle(self) -> tuple[ReportedIdle, ...]:
        """Return the slots that were idle while prompts waited, the most first."""
        ordered = sorted(self._idle.items(), key=lambda item: -item[1])
        return tuple(
            ReportedIdle(
                reason=reason,
                slot_seconds=round(seconds, 1),
                share=round(seconds / self.slot_seconds, 4) if self.slot_seconds else 0.0,
            )
            for reason, seconds in ordered
            if seconds > 0
        )

    def endpoints(self) -> tuple[ReportedEndpoint, ...]:
        """Return the endpoints, by host and name."""
        products = {(card.host, card.index): card.product for card in self.cards.cards()}
        found = (
            ReportedEndpoint(
                name=name,
                host=sums.host,
                gpu=sums.gpu,
                product=products.get((sums.host, sums.gpu), ""),
                answered=round(sums.amounts[0]),
                faults=round(sums.amounts[1]),
                prompt_tokens=round(sums.amounts[2]),
                output_tokens=round(sums.amounts[3]),
                up=round(sums.amounts[4] / sums.seconds, 4) if sums.seconds else None,
                busy=round(sums.amounts[6] / sums.amounts[5], 4) if sums.amounts[5] else None,
            )
            for name, sums in self._endpoints.items()
        )
        return tuple(sorted(found, key=lambda item: (item.host, item.name)))

    def points(self) -> tuple[Thinner, Thinner]:
        """Return what makes the points of all jobs, and of the job."""
        return self._plot, self._job_plot


def sum_lines(lines: Iterable[HistoryLine], start: float, end: float, points: int, job: str = "") -> LineSums:
    """Return the sums over lines in the order of their time; arguments as in `LineSums`."""
    sums = LineSums(start, end, points, job)
    for line in lines:
        sums.add(line)
        if line.time >= end:
            break
    return sums


def _add_shares(sums: dict[str, float], amounts: Mapping[str, float], share: float) -> None:
    for name, amount in amounts.items():
        sums[name] = sums.get(name, 0.0) + share * amount
