from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from obcd.host.cards.card import Readings
from obcd.host.watch import card_reader
from obcd.host.watch.card_reader import KEPT_XIDS, PERIOD, CardReader, CardReport, Xid
from tests.support import wait_until

LOST = {"GPU-1": Readings(uuid="GPU-1", index=1, is_lost=True)}


class Driver:
    """Reads when it may, and tells each Xid once."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.read_count = 0
        self.xids: list[tuple[str, int]] = []
        self.reader = CardReader(self.read, self.poll)

    def read(self) -> Mapping[str, Readings]:
        self.read_count += 1
        self.may_answer.wait(30)
        return LOST

    def poll(self) -> list[tuple[str, int]]:
        told, self.xids = self.xids, []
        return told

    def tick(self, now: float) -> tuple[Xid, ...]:
        """Turn until the reading that begins with it is taken in."""
        before, found = self.reader.latest, list(self.reader.tick(now))

        def has_come() -> bool:
            found.extend(self.reader.tick(now))
            return self.reader.latest is not before

        wait_until(has_come, 5.0)
        return tuple(found)


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_a_reading_is_told_with_the_time_when_it_began(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([17.0, 99.0])
    monkeypatch.setattr(card_reader, "monotonic", lambda: next(times))
    assert driver.reader.latest == CardReport()
    driver.tick(20.0)
    assert driver.reader.latest == CardReport(at=17.0, readings=LOST)


def test_cards_are_read_at_intervals_and_not_more(driver: Driver) -> None:
    driver.tick(1000.0)
    for now in (1000.0, 1001.0, 1000.0 + PERIOD - 0.1):
        driver.reader.tick(now)
    assert driver.read_count == 1
    driver.tick(1000.0 + PERIOD)
    assert driver.read_count == 2


def test_a_driver_that_hangs_holds_up_nobody_and_is_asked_once(driver: Driver) -> None:
    driver.may_answer.clear()
    for now in range(1000, 2000):
        assert driver.reader.tick(float(now)) == ()
    assert (driver.read_count, driver.reader.latest) == (1, CardReport())
    driver.may_answer.set()
    wait_until(lambda: driver.reader.tick(2000.0) == () and driver.reader.latest.readings == LOST, 5.0)


def test_an_xid_is_new_once_and_then_remembered(driver: Driver) -> None:
    driver.xids = [("GPU-1", 79), ("", 31)]
    assert [(xid.uuid, xid.code) for xid in driver.tick(0.0)] == [("GPU-1", 79), ("", 31)]
    assert driver.tick(PERIOD) == ()
    assert [xid.code for xid in driver.reader.latest.xids] == [79, 31]
    assert driver.reader.latest.xids[0].at.endswith("Z")


def test_only_the_last_xids_are_remembered(driver: Driver) -> None:
    driver.xids = [("", number) for number in range(2 * KEPT_XIDS)]
    assert len(driver.tick(0.0)) == 2 * KEPT_XIDS
    assert [xid.code for xid in driver.reader.latest.xids] == list(range(KEPT_XIDS, 2 * KEPT_XIDS))


def test_all_xids_of_a_card_are_counted(driver: Driver) -> None:
    driver.xids = [("GPU-1", 13)] * (2 * KEPT_XIDS)
    driver.tick(0.0)
    driver.xids = [("GPU-2", 63), ("GPU-1", 79)]
    driver.tick(PERIOD)

    counts = {uuid: (item.count, item.last) for uuid, item in driver.reader.latest.xid_counts.items()}
    assert counts == {"GPU-1": (2 * KEPT_XIDS + 1, 79), "GPU-2": (1, 63)}


def test_a_reading_that_fails_tells_nothing_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Mapping[str, Readings]:
        raise ValueError("not a number")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    driver.xids = [("GPU-1", 79)]
    assert [xid.code for xid in driver.tick(0.0)] == [79]
    wait_until(lambda: driver.read_count == 1 and not driver.reader.tick(0.0))
    monkeypatch.setattr(driver.reader, "_read", fail)
    assert driver.tick(PERIOD + 1) == ()
    assert driver.reader.latest.readings == {}
    assert [xid.code for xid in driver.reader.latest.xids] == [79]
