"""Keeps endpoints and jobs to their windows: the scheduler hears when each closes, and what is late is aborted.

The windows follow the clock on the wall, everything else the monotonic clock. So both are compared in each tick: a
clock that is set, or a machine that slept, changes when a window closes, and loses nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import cache
from operator import itemgetter

from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.jobs.job_lifecycle import Jobs
from obcd.core.forecasting.local_times import describe_moment
from obcd.core.forecasting.windows import Windows
from obcd.core.scheduling.holder import CLOSED
from obcd.spool.job.job_folder import JobHeader
from obcd.text import plural

logger = logging.getLogger(__name__)

#: Seconds by which the two clocks may drift apart between two ticks; more is a jump.
DRIFT_SECONDS = 0.05
#: The beginning of the sentence about a job or an endpoint that waits.
WAITS = "waits for its window"
#: Jobs that `notes` names.
MOST_NAMED = 3


@cache
def windows_of(texts: tuple[str, ...]) -> Windows:
    """Return the windows of a configuration, which has checked them; few differ, so each is parsed once."""
    return Windows.parse(texts)


def window_of(header: JobHeader) -> Windows:
    """Return the windows of a job."""
    return windows_of(tuple(header.settings.window))


class WindowKeeper:
    """Opens and closes endpoints and jobs. Main thread only."""

    def __init__(self, jobs: Jobs, endpoints: Endpoints) -> None:
        self._jobs = jobs
        self._endpoints = endpoints
        #: What was looked at last: revisions and the difference of the clocks; and until when it holds.
        self._seen: tuple[int, int, int] | None = None
        self._offset = self._until = -math.inf
        #: {endpoint that is closed: when it opens}, and the same for jobs
        self._closed: dict[str, float] = {}
        self._closed_jobs: dict[str, float] = {}

    def tick(self, now: float, at: float) -> float:
        """Open and close what is due, and abort what is in flight outside its window.

        Args:
            now: In monotonic seconds.
            at: The same moment in Unix seconds.

        Returns:
            When the next window opens or closes, in monotonic seconds; infinite if there is none.
        """
        seen = self._jobs.revision, self._jobs.starts, self._endpoints.changes
        is_jump = abs(at - now - self._offset) > DRIFT_SECONDS
        if seen != self._seen or is_jump or at >= self._until:
            self._seen, self._offset, self._until = seen, at - now, math.inf
            self._look(at)
            self._endpoints.break_off_closed()
        return self._until - self._offset

    def _look(self, at: float) -> None:
        closed: dict[str, float] = {}
        for member in self._endpoints.members:
            windows = windows_of(member.window)
            self._endpoints.scheduler.endpoint(member.name).closes_at = self._closes_at(windows, at)
            if not windows.is_open(at):
                closed[member.name] = windows.opens_at(at)
        shut: dict[str, float] = {}
        for header in self._jobs.windowed.values():
            windows = window_of(header)
            closes_at = self._closes_at(windows, at)
            if (running := self._jobs.running.get(header.id)) is not None:
                running.backlog.closes_at = closes_at
            if closes_at == CLOSED:
                shut[header.id] = windows.opens_at(at)
        self._log(closed, self._closed, "endpoint", at)
        self._closed, self._closed_jobs = closed, shut
        self._endpoints.wait_for_windows(
            {name: _describe(opens, at) for name, opens in sorted(closed.items(), key=itemgetter(1))}
        )
        self._jobs.wait_for_windows({job: _describe(opens, at) for job, opens in shut.items()})

    def _closes_at(self, windows: Windows, at: float) -> float | None:
        """Return when windows close, in monotonic seconds, as in `Holder`."""
        spell = windows.around(at)
        if spell.until is not None:
            self._until = min(self._until, spell.until)
        if not spell.is_open:
            return CLOSED
        return None if spell.until is None else spell.until - self._offset

    @staticmethod
    def _log(now: Mapping[str, float], before: Mapping[str, float], noun: str, at: float) -> None:
        for name in now.keys() - before.keys():
            text = "%s %s %s"
            logger.info(text, noun, name, _describe(now[name], at), extra={"action": "window_closed", "endpoint": name})
        for name in before.keys() - now.keys():
            logger.info("the window of %s %s is open", noun, name, extra={"action": "window_opened", "endpoint": name})

    def notes(self) -> list[str]:
        """Return which jobs wait for their windows, for people."""
        headers = [header for header in self._jobs.windowed.values() if header.id in self._closed_jobs]
        waits = self._jobs.window_waits
        found = [f"{header.label} {waits[header.id]}" for header in headers[:MOST_NAMED] if header.id in waits]
        if len(headers) > MOST_NAMED:
            more = plural(len(headers) - MOST_NAMED, "more job waits", "more jobs wait")
            found.append(f"{more} for a window: obcd status --json")
        return found


def _describe(opens: float, at: float) -> str:
    return f"{WAITS}, {describe_moment(opens, at)}"
