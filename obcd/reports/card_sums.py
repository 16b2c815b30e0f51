"""The cards over a time: their energy, from NVML's counter, and means and maxima of what they report. Pure.

The counter grows from the loading of the driver, so its difference is exact however seldom it is read. Where a card has
no counter, or it is read for the first time, its power at the end of a line counts for the line's seconds: an estimate.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from obcd.reports.report import ReportedCard
from obcd.spool.history.history_line import CardColumns, HistoryLine

#: More than any card draws: a counter that grew faster is wrong, and its difference does not count.
MOST_WATTS = 5000.0
#: How far a counter may be below its last value without having started again: that one was brought forward by power.
MOST_BACK_JOULES = 75_000.0


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    seconds: float = 0.0

    def add(self, value: float | None, seconds: float) -> None:
        if value is not None:
            self.total += value * seconds
            self.seconds += seconds

    @property
    def value(self) -> float | None:
        return self.total / self.seconds if self.seconds else None


class _CardSums:
    def __init__(self, uuid: str) -> None:
        self.card = ReportedCard(uuid=uuid)
        self.utilization, self.power = _Mean(), _Mean()
        self.memory: int | None = None
        self.temperature: int | None = None
        self.counted = self.estimated = 0.0
        self.knows_energy = self.is_inside = False
        self.counter: tuple[float, float] | None = None  # when it was read last, and its value
        self.xids: int | None = None
        self.new_xids = 0
        self.last_xid: int | None = None


class CardSums:
    """Sums over lines, in the order of their time.

    Args:
        start, end: The time that counts, in Unix seconds. Lines before it are of use: the first difference of a counter
            needs one.
    """

    def __init__(self, start: float, end: float) -> None:
        self._start, self._end = start, end
        self._cards: dict[str, _CardSums] = {}

    def add(self, line: HistoryLine) -> None:
        """Take a line."""
        columns, seen = line.cards, set[tuple[str, int]]()
        for number, uuid in enumerate(columns.uuid):
            sums = self._cards.get(uuid)
            if sums is None:
                sums = self._cards[uuid] = _CardSums(uuid)
            place = columns.host[number], columns.index[number]
            is_shared = place[1] >= 0 and place in seen  # MIG instances report the energy of their card
            seen.add(place)
            self._add_card(sums, columns, number, line, has_energy=not is_shared)

    def _add_card(
        self, sums: _CardSums, columns: CardColumns, number: int, line: HistoryLine, *, has_energy: bool
    ) -> None:
        began, power = line.time - line.seconds, columns.power_watts[number]
        shared = self._overlap(began, line.time)
        if has_energy:
            counter, before = columns.energy_joules[number], sums.counter
            used = _difference(before, counter, line.time)
            if used is not None and before is not None:
                span = line.time - before[0]
                inside = self._overlap(before[0], line.time)
                sums.counted += used * inside / span
                sums.knows_energy = sums.knows_energy or inside > 0
            elif power is not None and shared:
                sums.estimated += max(0.0, min(power, MOST_WATTS)) * shared
                sums.knows_energy = True
            sums.counter = None if counter is None else (line.time, counter)
        xids = columns.xid_errors[number]
        if shared:
            sums.is_inside = True
            if sums.xids is not None:
                sums.new_xids += xids - sums.xids if xids >= sums.xids else xids
            sums.last_xid = columns.last_xid[number]
            sums.utilization.add(columns.utilization[number], shared)
            sums.power.add(power, shared)
            sums.memory = _larger(sums.memory, columns.memory_used_bytes[number])
            sums.temperature = _larger(sums.temperature, columns.temperature_celsius[number])
            sums.card = ReportedCard(
                uuid=sums.card.uuid,
                host=columns.host[number],
                index=columns.index[number],
                product=columns.product[number],
            )
        sums.xids = xids

    def _overlap(self, began: float, ended: float) -> float:
        return max(0.0, min(ended, self._end) - max(began, self._start))

    def cards(self, only: Collection[tuple[str, int]] | None = None) -> tuple[ReportedCard, ...]:
        """Return the cards that reported in that time, by host and index.

        Args:
            only: `(host, index)` of those that are wanted; None: all.
        """
        found = [_reported(sums) for sums in self._cards.values() if sums.is_inside or sums.knows_energy]
        wanted = [card for card in found if only is None or (card.host, card.index) in only]
        return tuple(sorted(wanted, key=lambda card: (card.host, card.index, card.uuid)))


def _difference(before: tuple[float, float] | None, counter: float | None, now: float) -> float | None:
    """Return the joules since a counter was read last; None if they cannot be known."""
    if before is None or counter is None or now <= before[0]:
        return None
    used = counter - before[1]
    if used < -MOST_BACK_JOULES:
        used = counter  # the driver was loaded again: it counts from 0
    return used if used <= MOST_WATTS * (now - before[0]) else None


def _larger(one: int | None, other: int | None) -> int | None:
    values = [value for value in (one, other) if value is not None]
    return max(values) if values else None


def _reported(sums: _CardSums) -> ReportedCard:
    utilization, power = sums.utilization.value, sums.power.value
    return ReportedCard(
        uuid=sums.card.uuid,
        host=sums.card.host,
        index=sums.card.index,
        product=sums.card.product,
        utilization=None if utilization is None else round(utilization, 3),
        power_watts=None if power is None else round(power, 1),
        memory_used_bytes=sums.memory,
        temperature_celsius=sums.temperature,
        joules=round(sums.counted + sums.estimated, 1) if sums.knows_energy else None,
        estimated_joules=round(sums.estimated, 1),
        xid_errors=sums.new_xids,
        last_xid=sums.last_xid,
    )
