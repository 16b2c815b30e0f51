"""What is sent next, what is tried again, and when an event is over."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest

from obcd.config.notify_values import NotifyWays
from obcd.core.events import EventKind, NotableEvent
from obcd.notifications.outgoing import BASE_SECONDS, GIVE_UP_SECONDS, MOST_SECONDS, Attempt, Outgoing
from obcd.notifications.ways import DeliveryError, Way
from obcd.spool.folders import disk, event_files
from obcd.spool.folders.event_files import find_events, open_folder, read_event, remove_event, write_event

BOTH = NotifyWays(
    events=frozenset(EventKind) - {EventKind.TEST}, webhook="https://h/x?secret", mail_to=("ops",), sendmail="/s"
)
HOOK = NotifyWays(events=BOTH.events, webhook=BOTH.webhook)
REFUSED = DeliveryError("it is down")
AT = 1000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    open_folder(tmp_path)
    return tmp_path


@pytest.fixture
def outgoing(root: Path) -> Outgoing:
    made = Outgoing(root, root / "jobs")
    made.configure({"": HOOK})
    return made


def put(root: Path, number: int, kind: EventKind = EventKind.DISK, **changed: object) -> NotableEvent:
    event = NotableEvent(id=f"evt_{number}", kind=kind, at=AT + number, text="x", **changed)  # type: ignore[arg-type]
    write_event(root, event)
    return event


def due(outgoing: Outgoing, now: float = 0.0) -> list[Attempt]:
    outgoing.look()
    return outgoing.due(now)


def names(attempts: list[Attempt]) -> list[tuple[str, str]]:
    return [(item.event.id, item.way.value) for item in attempts]


def test_an_event_is_removed_when_every_way_has_succeeded(root: Path, outgoing: Outgoing) -> None:
    outgoing.configure({"": BOTH})
    put(root, 1)

    attempts = due(outgoing)
    assert sorted(names(attempts)) == [("evt_1", "mail"), ("evt_1", "webhook")]
    outgoing.settle(attempts[0], None, 0.0, AT)
    assert find_events(root) == ["evt_1"]
    outgoing.settle(attempts[1], None, 0.0, AT)
    assert find_events(root) == []
    assert (outgoing.waiting, outgoing.is_sending) == (0, False)


def test_what_was_sent_by_one_way_is_not_sent_again_after_a_crash(root: Path, outgoing: Outgoing) -> None:
    outgoing.configure({"": BOTH})
    put(root, 1)
    attempts = due(outgoing)
    outgoing.settle(next(item for item in attempts if item.way is Way.WEBHOOK), None, 0.0, AT)

    again = Outgoing(root, root / "jobs")
    again.configure({"": BOTH})
    assert names(due(again)) == [("evt_1", "mail")]


def test_an_event_that_nobody_wants_is_removed(root: Path, outgoing: Outgoing) -> None:
    outgoing.configure({"": HOOK, "quiet": NotifyWays(), "few": NotifyWays(events=frozenset({EventKind.FAILURES}))})
    put(root, 1, EventKind.PUBLISHED, profile="quiet")
    put(root, 2, EventKind.PUBLISHED, profile="few")

    assert due(outgoing) == []
    assert find_events(root) == []


def test_a_profile_that_is_gone_has_the_ways_of_the_top_level(root: Path, outgoing: Outgoing) -> None:
    put(root, 1, EventKind.PUBLISHED, profile="gone")

    assert names(due(outgoing)) == [("evt_1", "webhook")]


def test_one_attempt_is_under_way_for_each_route_the_oldest_first(root: Path, outgoing: Outgoing) -> None:
    for number in (3, 1, 2):
        put(root, number)

    (first,) = due(outgoing)
    assert first.event.id == "evt_1"
    assert due(outgoing) == []
    outgoing.settle(first, None, 0.0, AT)
    assert names(due(outgoing)) == [("evt_2", "webhook")]


def test_a_publication_is_sent_when_the_job_has_left_its_folder(root: Path, outgoing: Outgoing) -> None:
    (root / "jobs" / "job1").mkdir(parents=True)
    put(root, 1, EventKind.PUBLISHED, job="job1")
    assert due(outgoing) == []
    assert find_events(root) == ["evt_1"]

    (root / "jobs" / "job1").rename(root / "notes")
    assert names(due(outgoing)) == [("evt_1", "webhook")]


class TestFailures:
    def test_pauses_grow_by_route_and_another_event_is_tried_next(self, root: Path, outgoing: Outgoing) -> None:
        for number in (1, 2):
            put(root, number)
        now, tried, pauses = 0.0, [], []
        for _ in range(14):
            (attempt,) = due(outgoing, now)
            tried.append(attempt.event.id)
            outgoing.settle(attempt, REFUSED, now, AT)
            retry_at = outgoing.next_due()
            assert retry_at is not None
            assert due(outgoing, retry_at - 0.01) == []
            pauses.append(retry_at - now)
            now = retry_at

        assert tried[:4] == ["evt_1", "evt_2", "evt_1", "evt_2"]
        assert BASE_SECONDS * 0.75 <= pauses[0] <= BASE_SECONDS
        assert all(later > sooner for sooner, later in itertools.pairwise(pauses[:9]))
        assert MOST_SECONDS * 0.75 <= pauses[-1] <= MOST_SECONDS

    def test_a_success_ends_the_pauses(self, root: Path, outgoing: Outgoing) -> None:
        for number in (1, 2):
            put(root, number)
        (attempt,) = due(outgoing)
        outgoing.settle(attempt, REFUSED, 0.0, AT)
        (attempt,) = due(outgoing, 10.0)
        outgoing.settle(attempt, None, 10.0, AT)

        assert (names(due(outgoing, 10.0)), outgoing.troubles()) == ([("evt_1", "webhook")], ())

    def test_other_routes_go_on(self, root: Path, outgoing: Outgoing) -> None:
        outgoing.configure({"": BOTH})
        put(root, 1)
        for attempt in due(outgoing):
            outgoing.settle(attempt, REFUSED if attempt.way is Way.WEBHOOK else None, 0.0, AT)
        put(root, 2)

        assert names(due(outgoing)) == [("evt_2", "mail")]

    def test_a_route_that_fails_is_a_trouble_without_the_rest_of_its_url(self, root: Path, outgoing: Outgoing) -> None:
        for number in (1, 2):
            put(root, number)
        (attempt,) = due(outgoing)
        outgoing.settle(attempt, REFUSED, 0.0, AT)

        (trouble,) = outgoing.troubles()
        assert "the webhook at h fail: it is down; 2 notifications wait" in trouble
        assert "secret" not in trouble

    def test_it_is_given_up_after_a_day_with_a_line_in_the_log(
        self, root: Path, outgoing: Outgoing, caplog: pytest.LogCaptureFixture
    ) -> None:
        for number in (1, 2):
            put(root, number)
        (attempt,) = due(outgoing)
        outgoing.settle(attempt, REFUSED, 0.0, AT + GIVE_UP_SECONDS)
        assert find_events(root) == ["evt_1", "evt_2"]

        (attempt,) = due(outgoing, 10.0)
        outgoing.settle(attempt, REFUSED, 10.0, AT + GIVE_UP_SECONDS + 1.5)
        assert find_events(root) == ["evt_2"]
        (record,) = [item for item in caplog.records if getattr(item, "action", "") == "notification_given_up"]
        assert record.levelname == "ERROR"
        assert "secret" not in record.getMessage()

    def test_an_old_event_is_tried_once_before_it_is_given_up(self, root: Path, outgoing: Outgoing) -> None:
        write_event(root, NotableEvent(id="evt_1", kind=EventKind.DISK, at=0.0, text="x"))

        (attempt,) = due(outgoing)
        outgoing.settle(attempt, None, 0.0, 10 * GIVE_UP_SECONDS)
        assert find_events(root) == []

    def test_a_final_refusal_is_the_last_attempt_and_no_trouble_of_the_others(
        self, root: Path, outgoing: Outgoing
    ) -> None:
        for number in (1, 2):
            put(root, number)
        (attempt,) = due(outgoing)
        outgoing.settle(attempt, DeliveryError("gone", is_final=True), 0.0, AT)

        assert (find_events(root), outgoing.troubles()) == (["evt_2"], ())
        assert names(due(outgoing)) == [("evt_2", "webhook")]


class TestDisk:
    def test_an_event_that_the_disk_refuses_is_sent_anyway(
        self, root: Path, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(event_files.disk, "write_json", refuse)
        event = NotableEvent(id="evt_1", kind=EventKind.DISK, at=AT, text="full")
        outgoing.add(event)
        outgoing.configure({"": BOTH})  # a reload does not lose it

        attempts = due(outgoing)
        assert [item.event for item in attempts] == [event, event]
        for attempt in attempts:
            outgoing.settle(attempt, None, 0.0, AT)
        assert outgoing.waiting == 0

    def test_an_event_whose_file_cannot_be_removed_is_not_sent_twice(
        self, root: Path, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        put(root, 1)
        (attempt,) = due(outgoing)
        monkeypatch.setattr(disk, "remove", refuse)
        outgoing.settle(attempt, None, 0.0, AT)
        put(root, 2)

        assert names(due(outgoing)) == [("evt_2", "webhook")]

    def test_an_event_that_a_person_removed_is_forgotten(self, root: Path, outgoing: Outgoing) -> None:
        for number in (1, 2):
            put(root, number)
        outgoing.look()
        remove_event(root, "evt_1")

        assert names(due(outgoing)) == [("evt_2", "webhook")]
        assert outgoing.waiting == 1

    def test_files_that_obcd_did_not_write_are_left_alone(self, root: Path, outgoing: Outgoing) -> None:
        (root / "events" / "evt_9.json").write_text("{")
        put(root, 1)

        assert names(due(outgoing)) == [("evt_1", "webhook")]
        assert find_events(root) == ["evt_1", "evt_9"]

    def test_a_folder_that_does_not_change_is_not_read(
        self, root: Path, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = 10**18
        os.utime(root / "events", ns=(old, old))
        outgoing.look()
        monkeypatch.setattr("obcd.notifications.outgoing.find_events", lambda root: pytest.fail("read"))

        outgoing.look()


def test_a_new_configuration_sends_what_waits_by_its_own_ways(root: Path, outgoing: Outgoing) -> None:
    put(root, 1)
    (attempt,) = due(outgoing)
    outgoing.configure({"": NotifyWays(events=BOTH.events, mail_to=("ops",))})
    assert names(due(outgoing)) == [("evt_1", "mail")]

    outgoing.settle(attempt, None, 0.0, AT)  # it was under way by the old ones
    assert find_events(root) == ["evt_1"]
    found = read_event(root, "evt_1")
    assert found is not None
    assert found.sent == {"webhook"}


def test_the_same_receiver_of_two_profiles_is_one_route(root: Path, outgoing: Outgoing) -> None:
    outgoing.configure({"": HOOK, "a": HOOK})
    put(root, 1, EventKind.PUBLISHED, profile="a")
    put(root, 2)

    assert len(due(outgoing)) == 1


def test_a_pile_of_events_takes_linear_time(root: Path, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "events"
    one = NotableEvent(id="evt_0", kind=EventKind.DISK, at=AT, text="x")
    write_event(root, one)
    raw = (folder / "evt_0.json").read_text()
    for number in range(1, 300):
        (folder / f"evt_{number}.json").write_text(raw.replace("evt_0", f"evt_{number}"))
    outgoing.look()
    reads = 0
    read = read_event

    def counted(root: Path, event: str) -> object:
        nonlocal reads
        reads += 1
        return read(root, event)

    monkeypatch.setattr("obcd.notifications.outgoing.read_event", counted)
    while attempts := outgoing.due(0.0):
        outgoing.settle(attempts[0], None, 0.0, AT)

    assert find_events(root) == []
    assert reads <= 2 * 300
