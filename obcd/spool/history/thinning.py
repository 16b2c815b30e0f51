"""Thin the history to as many points as a plot can show. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from obcd.core.documents import Document
from obcd.spool.history.history_line import HistoryLine

#: Least part of a point's time that lines must cover; a point with less is a gap: no coordinator ran.
LEAST_COVER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint(Document):
    """The means over one part of the time; all are None where no coordinator ran.

    Attributes:
        time: The middle of that part, in Unix seconds.
        responses, failures, prompt_tokens, output_tokens: Each second.
        waiting: Requests that wait for a slot.
        slots, busy, idle: Slots, requests in flight, and slots that are idle while prompts wait.
        utilization, power_watts: Of all cards: their mean, 0 to 1, and the sum; None too if no card reports it.
    """

    time: float
    responses: float | None = None
    failures: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    waiting: float | None = None
    slots: float | None = None
    busy: float | None = None
    idle: float | None = None
    utilization: float | None = None
    power_watts: float | None = None


class _Sums:
    """Sums over the seconds of one part."""

    __slots__ = ("amounts", "power", "power_seconds", "seconds", "utilization", "utilization_seconds")

    def __init__(self) -> None:
        self.seconds = self.utilization = self.utilization_seconds = self.power = self.power_seconds = 0.0
        self.amounts = [0.0] * 8

    def add(self, line: HistoryLine, seconds: float) -> None:
        share = seconds / line.seconds
        self.seconds += seconds
        amounts = (
            line.responses, line.failed, line.prompt_tokens, line.output_tokens, line.waiting * line.seconds,
            line.slot_seconds, line.busy_seconds, line.idle,
        )  # fmt: skip
        self.amounts = [before + amount * share for before, amount in zip(self.amounts, amounts, strict=True)]
        if line.utilization is not None:
            self.utilization += line.utilization * seconds
            self.utilization_seconds += seconds
        if line.power_watts is not None:
            self.power += line.power_watts * seconds
            self.power_seconds += seconds

    def point(self, time: float, width: float) -> HistoryPoint:
        if self.seconds < LEAST_COVER * width:
            return HistoryPoint(time=round(time, 1))
        responses, failures, prompt, output, waiting, slots, busy, idle = (
            round(amount / self.seconds, 3) for amount in self.amounts
        )
        return HistoryPoint(
            time=round(time, 1),
            responses=responses,
            failures=failures,
            prompt_tokens=prompt,
            output_tokens=output,
            waiting=waiting,
            slots=slots,
            busy=busy,
            idle=idle,
            utilization=round(self.utilization / self.utilization_seconds, 3) if self.utilization_seconds else None,
            power_watts=round(self.power / self.power_seconds, 1) if self.power_seconds else None,
        )


class Thinner:
    """Makes the points of a plot from lines, one after another; memory is that of the points.

    Args:
        start, end: Unix seconds; each point stands for an equal part of the time between them.
    """

    def __init__(self, start: float, end: float, points: int) -> None:
        self._start, self._end, self._width = start, end, (end - start) / points
        self._parts = [_Sums() for _ in range(points)]

    def add(self, line: HistoryLine) -> None:
        """Count a line in each part of the time by the seconds that it shares with it."""
        began = line.time - line.seconds
        if line.seconds <= 0 or line.time <= self._start or began >= self._end:
            return
        first = max(0, int((began - self._start) / self._width))
        last = min(len(self._parts) - 1, math.ceil((line.time - self._start) / self._width) - 1)
        for number in range(first, last + 1):
            left = self._start + number * self._width
            shared = min(line.time, left + self._width) - max(began, left)
            if shared > 0:
                self._parts[number].add(line, shared)

    def points(self) -> list[HistoryPoint]:
        """Return the points in the order of time."""
        middle = self._start + self._width / 2
        return [part.point(middle + number * self._width, self._width) for number, part in enumerate(self._parts)]


def thin(lines: Iterable[HistoryLine], start: float, end: float, points: int) -> list[HistoryPoint]:
    """Return the means over `points` equal parts of the time from `start` to `end`, in Unix seconds."""
    thinner = Thinner(start, end, points)
    for line in lines:
        thinner.add(line)
    return thinner.points()
