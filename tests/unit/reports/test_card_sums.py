"""The energy of cards: the difference of NVML's counter, whatever happens to the counter meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from obcd.coordinator.history.minutes import HistoryWriter
from obcd.coordinator.view import HostView
from obcd.host.cards.gpus import read_cards
from obcd.hosts.record import CardReading
from obcd.reports.card_sums import CardSums
from obcd.reports.report import ReportedCard
from obcd.spool.history.history_line import CardColumns, HistoryLine
from tests.gpu_support import StandIns, card, card_uuid
from tests.unit.coordinator.history.test_minutes import VIEW

Curve = Callable[[float], float]


def line(time: float, *cards: CardReading, host: str = "h") -> HistoryLine:
    """Return a line of a minute."""
    columns = CardColumns(
        uuid=tuple(item.uuid for item in cards),
        host=(host,) * len(cards),
        index=tuple(item.index for item in cards),
        product=tuple(item.name for item in cards),
        utilization=tuple(item.utilization for item in cards),
        memory_used_bytes=tuple(item.memory_used_bytes for item in cards),
        power_watts=tuple(item.power_watts for item in cards),
        energy_joules=tuple(item.energy_joules for item in cards),
        temperature_celsius=tuple(item.temperature_celsius for item in cards),
        xid_errors=tuple(item.xid_errors for item in cards),
        last_xid=tuple(item.last_xid for item in cards),
    )
    return HistoryLine(time=time, seconds=60.0, cards=columns)


def counted(time: float, joules: float | None, **more: float) -> HistoryLine:
    return line(time, CardReading(uuid="GPU-1", index=0, energy_joules=joules, **more))  # type: ignore[arg-type]


def summed(start: float, end: float, *lines: HistoryLine) -> list[ReportedCard]:
    sums = CardSums(start, end)
    for item in lines:
        sums.add(item)
    return list(sums.cards())


def joules(start: float, end: float, *lines: HistoryLine) -> float | None:
    return sum(item.joules or 0.0 for item in summed(start, end, *lines))


def test_energy_is_the_difference_of_the_counter() -> None:
    lines = [counted(60.0 * number, 5e6 + 1000.0 * number) for number in range(11)]

    assert joules(0.0, 600.0, *lines) == 10_000.0
    assert joules(90.0, 150.0, *lines) == 1000.0
    assert summed(0.0, 600.0, *lines)[0].estimated_joules == 0.0


def test_energy_while_no_coordinator_ran_counts_by_time() -> None:
    assert joules(0.0, 1800.0, counted(0.0, 0.0), counted(3600.0, 36_000.0)) == 18_000.0


def test_counter_that_starts_again_counts_from_0() -> None:
    assert joules(0.0, 180.0, counted(60.0, 9e9), counted(120.0, 9e9 + 500), counted(180.0, 300.0)) == 800.0


def test_counter_that_was_brought_forward_too_far_is_corrected_by_the_next_line() -> None:
    lines = [counted(60.0, 1000.0), counted(120.0, 7000.0), counted(135.0, 4000.0), counted(180.0, 7000.0)]

    assert joules(60.0, 180.0, *lines) == 6000.0


def test_counter_that_grows_faster_than_any_card_draws_does_not_count() -> None:
    (found,) = summed(60.0, 120.0, counted(60.0, 1.0), counted(120.0, 1e12, power_watts=100.0))

    assert (found.joules, found.estimated_joules) == (6000.0, 6000.0)


def test_without_a_counter_energy_is_estimated_by_power() -> None:
    (found,) = summed(0.0, 120.0, counted(60.0, None, power_watts=100.0), counted(120.0, None, power_watts=300.0))

    assert (found.joules, found.estimated_joules, found.power_watts) == (24_000.0, 24_000.0, 200.0)


def test_card_that_reports_nothing_has_no_energy() -> None:
    (found,) = summed(0.0, 60.0, counted(60.0, None))

    assert (found.joules, found.utilization, found.power_watts) == (None, None, None)


def test_clock_that_goes_back_takes_no_energy() -> None:
    lines = [counted(60.0, 0.0), counted(120.0, 100.0), counted(90.0, 200.0), counted(150.0, 300.0)]

    assert joules(0.0, 240.0, *lines) == 200.0


def test_instances_of_one_card_count_its_energy_once() -> None:
    def both(time: float, energy: float) -> HistoryLine:
        parts = [CardReading(uuid=f"MIG-{n}", index=3, energy_joules=energy, utilization=0.5) for n in range(2)]
        return line(time, *parts)

    found = summed(0.0, 120.0, both(60.0, 0.0), both(120.0, 600.0))

    assert [item.joules for item in found] == [600.0, None]


def test_cards_of_the_same_index_on_two_hosts_are_two() -> None:
    lines = []
    for time, energy in ((60.0, 0.0), (120.0, 600.0)):
        one = line(time, CardReading(uuid="GPU-1", index=0, energy_joules=energy), host="a")
        other = line(time, CardReading(uuid="GPU-2", index=0, energy_joules=energy), host="b")
        lines += [one, other]

    assert joules(0.0, 120.0, *lines) == 1200.0


def test_new_xids_are_counted_and_those_of_before_are_not() -> None:
    lines = [counted(60.0, None, xid_errors=3, last_xid=13), counted(120.0, None, xid_errors=5, last_xid=79)]
    restarted = counted(180.0, None, xid_errors=1, last_xid=63)

    (found,) = summed(90.0, 180.0, *lines, restarted)

    assert (found.xid_errors, found.last_xid) == (3, 63)


def curve(second: float, began: float, ended: float) -> float:
    """Return the power of a card, in watts: idle, then a job with waves and a pause if it is long, then idle."""
    middle = (began + ended) / 2
    if not began <= second < ended or (ended - began > 100 and 0 <= second - middle < 15):
        return 62.0
    return 420.0 + 180.0 * math.sin(second / 37)


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize(("began", "length"), [(628, 30), (641, 30), (653, 30), (607, 60), (634, 60), (625, 150)])
def test_joules_of_a_job_are_those_of_the_curve_of_its_card(
    began: int, length: int, *, is_local: bool, stand_ins: StandIns, tmp_path: Path
) -> None:
    """The whole way: NVML read each 5 s, a record each 10 s, a view each second, lines, the report on its time."""
    lines: list[HistoryLine] = []
    writer = HistoryWriter(None, lambda _: None)
    writer._root, writer._run_later = tmp_path, lambda _: lines.append(writer._lines[-1])
    energy, used, ended, read_at, written_at = 81e6, 0.0, began + length, 0, 0
    reading = record = CardReading(uuid="")
    for second in range(1000):
        power = curve(second, began, ended)
        energy += power
        used += power if began <= second < ended else 0.0
        if second % 5 == 0:
            stand_ins.describe([card(0, energy_joules=round(energy, 3), power_watts=power)])
            reading, read_at = CardReading.of(asdict(read_cards()[card_uuid(0)]), "H100"), second
        if second % 10 == 3:
            record, written_at = replace(reading, age_seconds=second - read_at), second
        aged = (replace(reading, age_seconds=second - read_at),)
        host = HostView(name="h", state="serving", age_seconds=second - written_at, cards=(record,))
        shown = replace(VIEW, cards=aged) if is_local else replace(VIEW, hosts=(host,))
        if second > 10:
            unfinished = int(began <= second < ended)
            writer.tick(replace(shown, unfinished=unfinished, updated=float(second)), float(second))

    (found,) = summed(began, ended, *lines)

    assert found.joules == pytest.approx(used, rel=0.05)
    assert found.estimated_joules == 0.0
