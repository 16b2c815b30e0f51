"""When what lasts becomes an event."""

from __future__ import annotations

from obcd.coordinator.notices.alarms import CLEAR_SECONDS, Alarms
from obcd.core.events import EventKind, NotableEvent

LIMIT = 600.0


def look(alarms: Alarms, now: float, *lost: str, disk: str = "") -> list[NotableEvent]:
    return list(alarms.look(dict.fromkeys(lost, "connection refused"), LIMIT, disk, now, 1000.0 + now))


def test_an_endpoint_is_lost_after_the_limit_and_only_once() -> None:
    alarms = Alarms()
    assert look(alarms, 0.0, "gpu1:11432") == []
    assert look(alarms, LIMIT - 1, "gpu1:11432") == []

    (event,) = look(alarms, LIMIT, "gpu1:11432")
    assert (event.kind, event.text) == (
        EventKind.ENDPOINT,
        "gpu1:11432 has not served for 10 min 00 s: connection refused",
    )
    assert event.facts["endpoints"] == {"gpu1:11432": {"seconds": 600, "reason": "connection refused"}}
    assert look(alarms, 10 * LIMIT, "gpu1:11432") == []


def test_an_endpoint_that_serves_meanwhile_is_not_lost() -> None:
    alarms = Alarms()
    look(alarms, 0.0, "a")
    look(alarms, LIMIT - 1)
    look(alarms, LIMIT, "a")

    assert look(alarms, 2 * LIMIT - 1, "a") == []
    assert len(look(alarms, 2 * LIMIT, "a")) == 1


def test_an_endpoint_that_comes_back_and_is_lost_again_is_another_event() -> None:
    alarms = Alarms()
    look(alarms, 0.0, "a")
    (first,) = look(alarms, LIMIT, "a")
    look(alarms, LIMIT + 1)
    look(alarms, LIMIT + 2, "a")
    (second,) = look(alarms, 2 * LIMIT + 2, "a")

    assert first.id != second.id


def test_endpoints_that_are_lost_together_are_one_event() -> None:
    alarms = Alarms()
    look(alarms, 0.0, "a")
    look(alarms, 30.0, "a", "b", "c")
    look(alarms, 550.0, "a", "b", "c", "late")

    (event,) = look(alarms, LIMIT, "a", "b", "c", "late")
    assert event.text == "3 endpoints have not served for 9 min 30 s; the first is a"
    assert event.facts["lost"] == 3
    assert look(alarms, LIMIT + 30, "a", "b", "c", "late") == []
    (event,) = look(alarms, 550 + LIMIT, "a", "b", "c", "late")
    assert list(event.facts["endpoints"]) == ["late"]  # type: ignore[call-overload]


def test_a_full_disk_is_one_event_until_it_was_right_for_a_while() -> None:
    alarms = Alarms()
    (event,) = look(alarms, 0.0, disk="the disk is full")
    assert (event.kind, event.text) == (EventKind.DISK, "the disk is full")
    assert look(alarms, 5.0, disk="the disk is full") == []
    assert look(alarms, 10.0) == []
    assert look(alarms, 15.0, disk="the disk is full") == []
    assert look(alarms, 15.0 + CLEAR_SECONDS) == []
    (again,) = look(alarms, 20.0 + CLEAR_SECONDS, disk="the disk is full")

    assert again.id != event.id
