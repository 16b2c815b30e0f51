"""Make a line of the history each minute from the coordinator's views, and give it to the recorder's thread to write.

    view, once a second ─► integrals of slots ─┐
    results on disk ─► counts of jobs ─────────┴─ once a minute ─► HistoryLine ─► recorder ─► root/history/

The sums over all lines of a run are what its counters grew by, except for the time after its last line.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from obcd.coordinator.history.idle_slots import find_idle_reason
from obcd.coordinator.metering.counters import CountersView
from obcd.coordinator.view import EndpointView, LiveView
from obcd.core.answer.counts import Counts
from obcd.core.endpoint.health import EndpointState
from obcd.hosts.record import CardReading
from obcd.spool.history.history_files import write_history
from obcd.spool.history.history_line import CardColumns, EndpointColumns, HistoryLine, JobColumns

logger = logging.getLogger(__name__)

#: Seconds from one line to the next. When the cluster gets its first job or ends its last one a line ends at once, so
#: that the energy of a job that runs alone is not mixed with that of idle cards: so many times a minute, and then only
#: after the least seconds.
LINE_SECONDS, LEAST_SECONDS, MOST_TURNS = 60.0, 15.0, 4
#: The most seconds by which a counter of energy is brought forward: a record is as old as that, with its reading.
MOST_AGE_SECONDS = 20.0
#: The most seconds for which one view counts: after a longer pause the machine was suspended.
MOST_VIEW_SECONDS = 10.0
#: The most lines that wait for a disk that refuses: a day of them.
MOST_WAITING = 1440
#: Hosts of endpoints on this machine.
LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))


class HistoryWriter:
    """Collects what a line needs, and hands it over. Main thread, except where it says otherwise.

    Args:
        root: The root of the spool; None: no history is kept.
        run_later: Runs a call in a thread that may wait for the disk.
    """

    def __init__(self, root: Path | None, run_later: Callable[[Callable[[], object]], object]) -> None:
        self._root, self._run_later = root, run_later
        self._lines: deque[HistoryLine] = deque(maxlen=MOST_WAITING)
        self._is_broken = False
        self._began: float | None = None
        self._seen_at = 0.0
        self._is_working = False
        #: When the last lines ended because work began or ended.
        self._turns = deque([float("-inf")] * MOST_TURNS, maxlen=MOST_TURNS)
        self._idle: dict[str, float] = {}
        #: {endpoint: seconds in which it was UP, and the sums of its slots and of its requests in flight}
        self._used: dict[str, list[float]] = {}
        #: {job: its results since the last line}
        self._jobs: dict[str, Counts] = {}
        self._counters = CountersView()
        #: {endpoint: what it had counted at the last line}
        self._endpoints: dict[str, tuple[int, int, int, int]] = {}

    def on_recorded(self, job: str, counts: Counts) -> None:
        """Count a result of a job that is on disk."""
        if self._root is None:
            return
        sums = self._jobs.get(job)
        if sums is None:
            sums = self._jobs[job] = Counts()
        sums.responses += counts.responses
        sums.failures += counts.failures
        if not counts.cached:
            sums.prompt_tokens += counts.prompt_tokens
            sums.eval_tokens += counts.eval_tokens
            sums.work_seconds += counts.work_seconds

    def tick(self, view: LiveView, now: float) -> None:
        """Take a view, in monotonic seconds; when a line is due, make it."""
        if self._root is None:
            return
        if self._began is None:
            self._began = self._seen_at = now
            self._is_working, self._counters = view.unfinished > 0, view.counters
        self._integrate(view, min(now - self._seen_at, MOST_VIEW_SECONDS))
        self._seen_at = now
        has_turned = self._is_working is not (view.unfinished > 0)
        if has_turned and (now - self._turns[0] >= LINE_SECONDS or now - self._began >= LEAST_SECONDS):
            self._turns.append(now)
            self._hand_over(view, now)
        elif now - self._began >= LINE_SECONDS:
            self._hand_over(view, now)

    def finish(self, view: LiveView, now: float) -> None:
        """Make the last line, which is shorter."""
        if self._began is not None and now > self._began:
            self._integrate(view, min(now - self._seen_at, MOST_VIEW_SECONDS))
            self._hand_over(view, now)

    def _integrate(self, view: LiveView, seconds: float) -> None:
        is_waited_for = view.requests_waiting > 0
        for item in view.endpoints:
            used = self._used.get(item.name)
            if used is None:
                used = self._used[item.name] = [0.0, 0.0, 0.0]
            if item.state == EndpointState.UP:
                used[0] += seconds
            used[1] += item.slots * seconds
            used[2] += item.in_flight * seconds
            if is_waited_for and item.slots > item.in_flight:
                reason = find_idle_reason(view, item)
                self._idle[reason] = self._idle.get(reason, 0.0) + (item.slots - item.in_flight) * seconds

    def _hand_over(self, view: LiveView, now: float) -> None:
        self._lines.append(self._make(view, now))
        self._began, self._counters, self._is_working = now, view.counters, view.unfinished > 0
        self._idle, self._used, self._jobs = {}, {}, {}
        self._run_later(self._write)

    def _write(self) -> None:
        """Write the lines that wait, in the thread of the recorder; they are kept while the disk refuses."""
        try:
            while self._lines and self._root is not None:
                write_history(self._root, self._lines[0])
                self._lines.popleft()
        except OSError as error:
            if not self._is_broken:
                text = "the history cannot be written: %s; it is tried again each minute"
                logger.warning(text, error.strerror, extra={"action": "history_failed"})
            self._is_broken = True
        else:
            self._is_broken = False

    # --- a line --------------------------------------------------------------------------------------------------

    def _make(self, view: LiveView, now: float) -> HistoryLine:
        counters, before = view.counters, self._counters
        cards = _cards_of(view)
        busy = [card.utilization for _, card in cards if card.utilization is not None]
        watts = [card.power_watts for _, card in cards if card.power_watts is not None]
        return HistoryLine(
            time=view.updated,
            seconds=round(now - (self._began or now), 3),
            jobs=view.unfinished,
            waiting=view.requests_waiting,
            responses=counters.responses - before.responses,
            failures=_grown(counters.failures, before.failures),
            retries=_grown(counters.retries, before.retries),
            cache_hits=counters.cache_hits - before.cache_hits,
            prompt_tokens=counters.prompt_tokens - before.prompt_tokens,
            output_tokens=counters.output_tokens - before.output_tokens,
            slot_seconds=round(sum(used[1] for used in self._used.values()), 1),
            busy_seconds=round(sum(used[2] for used in self._used.values()), 1),
            idle_seconds={reason: round(seconds, 1) for reason, seconds in self._idle.items()},
            utilization=round(sum(busy) / len(busy), 3) if busy else None,
            power_watts=round(sum(watts), 1) if watts else None,
            endpoints=self._endpoint_columns(view),
            cards=_card_columns(cards),
            active=_job_columns(self._jobs),
        )

    def _endpoint_columns(self, view: LiveView) -> EndpointColumns:
        hosts = {name: host.name for host in view.hosts for name in host.endpoints}
        items = view.endpoints
        grown = list(self._grown_endpoints(items))
        used = [self._used[item.name] for item in items]
        return EndpointColumns(
            name=tuple(item.name for item in items),
            host=tuple(hosts.get(item.name) or ("" if item.host in LOOPBACK else item.host) for item in items),
            gpu=tuple(item.gpu for item in items),
            state=tuple(str(item.state) for item in items),
            slots=tuple(item.slots for item in items),
            in_flight=tuple(item.in_flight for item in items),
            up_seconds=tuple(round(item[0], 1) for item in used),
            slot_seconds=tuple(round(item[1], 1) for item in used),
            busy_seconds=tuple(round(item[2], 1) for item in used),
            answered=tuple(item[0] for item in grown),
            faults=tuple(item[1] for item in grown),
            prompt_tokens=tuple(item[2] for item in grown),
            output_tokens=tuple(item[3] for item in grown),
        )

    def _grown_endpoints(self, items: tuple[EndpointView, ...]) -> Iterator[tuple[int, ...]]:
        """Yield what each endpoint has counted since the last line; one that came again counts from 0."""
        before, self._endpoints = self._endpoints, {}
        for item in items:
            counted = item.answered, item.faults, item.prompt_tokens, item.output_tokens
            earlier = before.get(item.name, (0, 0, 0, 0))
            self._endpoints[item.name] = counted
            if any(new < old for new, old in zip(counted, earlier, strict=True)):
                earlier = (0, 0, 0, 0)
            yield tuple(new - old for new, old in zip(counted, earlier, strict=True))


def _cards_of(view: LiveView) -> list[tuple[str, CardReading]]:
    """Return the cards of registered hosts, and those of this machine on which servers of obcd run, with "" as host."""
    cards = [(host.name, _brought_forward(card, host.age_seconds or 0.0)) for host in view.hosts for card in host.cards]
    seen = {card.uuid for _, card in cards}
    served = [card for card in view.cards if card.name] or view.cards  # without a plan no card has its name
    return cards + [("", _brought_forward(card, 0.0)) for card in served if card.uuid not in seen]


def _brought_forward(card: CardReading, age: float) -> CardReading:
    """Return a reading with its energy as of now: it is some seconds old, and a job may have begun or ended since.

    Args:
        age: Seconds since it was written.
    """
    if card.energy_joules is None or card.power_watts is None:
        return card
    seconds = min(age + card.age_seconds, MOST_AGE_SECONDS)
    return replace(card, energy_joules=card.energy_joules + card.power_watts * seconds)


def _grown(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: number - before.get(name, 0) for name, number in now.items() if number != before.get(name, 0)}


def _card_columns(cards: list[tuple[str, CardReading]]) -> CardColumns:
    return CardColumns(
        uuid=tuple(card.uuid for _, card in cards),
        host=tuple(host for host, _ in cards),
        index=tuple(card.index for _, card in cards),
        product=tuple(card.name for _, card in cards),
        utilization=tuple(card.utilization for _, card in cards),
        memory_used_bytes=tuple(card.memory_used_bytes for _, card in cards),
        power_watts=tuple(card.power_watts for _, card in cards),
        energy_joules=tuple(None if card.energy_joules is None else round(card.energy_joules, 1) for _, card in cards),
        temperature_celsius=tuple(card.temperature_celsius for _, card in cards),
        xid_errors=tuple(card.xid_errors for _, card in cards),
        last_xid=tuple(card.last_xid for _, card in cards),
    )


def _job_columns(jobs: Mapping[str, Counts]) -> JobColumns:
    return JobColumns(
        job=tuple(jobs),
        done=tuple(sums.done for sums in jobs.values()),
        failed=tuple(sums.failures for sums in jobs.values()),
        prompt_tokens=tuple(sums.prompt_tokens for sums in jobs.values()),
        output_tokens=tuple(sums.eval_tokens for sums in jobs.values()),
        work_seconds=tuple(round(sums.work_seconds, 1) for sums in jobs.values()),
    )
