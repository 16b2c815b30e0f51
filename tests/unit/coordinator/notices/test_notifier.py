"""The coordinator's side of the notifier, with a child that only records what it is sent."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.notices.notifier import (
    RESTART_BASE,
    RESTART_LIMIT,
    EventTaken,
    FinishSending,
    Notifier,
    RaiseEvent,
    SendingTroubles,
    SetPlan,
)
from obcd.core.events import EventKind, NotableEvent
from obcd.errors import InputError
from obcd.spool.folders.event_files import folder_of, open_folder, write_event
from obcd.spool.folders.layout import Layout
from obcd.workers.channel import ClosedError
from tests.unit.spool.spools import make_layout

OFF, ON = Settings(), Settings.model_validate({"notify": {"command": ["tell"]}})
EVENT = NotableEvent(id="evt_1", kind=EventKind.DISK, at=1.0, text="full")


class FakeChild:
    """A child and its channel; `says` is what it answers next, None that it is gone."""

    pid = 4711
    is_stopped = False
    wants_write = False

    def __init__(self) -> None:
        self.channel = self
        self.heard: list[Any] = []
        self.says: list[Any] | None = []
        self.is_killed = False

    def fileno(self) -> int:
        return 3

    def send(self, message: Any) -> None:
        self.heard.append(message)

    def receive(self) -> list[Any]:
        if self.says is None:
            raise ClosedError
        said, self.says = self.says, []
        return said

    def kill(self) -> None:
        self.is_killed = True


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path)


@pytest.fixture
def children() -> list[FakeChild]:
    return []


@pytest.fixture
def notifier(layout: Layout, children: list[FakeChild]) -> Notifier:
    def start() -> FakeChild:
        children.append(FakeChild())
        return children[-1]

    return Notifier(layout, start=start)


def test_off_by_default_there_is_no_process_and_no_folder(
    layout: Layout, notifier: Notifier, children: list[FakeChild]
) -> None:
    notifier.configure(OFF)
    notifier.tick(0.0)
    notifier.raise_event(EVENT)
    notifier.stop()

    assert (children, notifier.pids, notifier.filenos()) == ([], {}, [])
    assert not folder_of(layout.root).exists()


def test_batch_never_sends(layout: Layout) -> None:
    notifier = Notifier(layout, is_used=False)
    notifier.configure(ON)

    assert not notifier.is_wanted
    assert not folder_of(layout.root).exists()


def test_the_folder_is_there_while_notifications_are_wanted(
    layout: Layout, notifier: Notifier, children: list[FakeChild]
) -> None:
    notifier.configure(ON)
    notifier.tick(0.0)
    assert folder_of(layout.root).stat().st_mode & 0o777 == 0o700
    assert children[0].heard == [SetPlan(ON.notify_plan())]
    write_event(layout.root, EVENT)

    notifier.configure(OFF)
    assert not folder_of(layout.root).exists()
    assert children[0].is_killed


def test_what_a_configuration_left_behind_is_removed_at_the_start(layout: Layout, notifier: Notifier) -> None:
    open_folder(layout.root)
    notifier.configure(OFF)

    assert not folder_of(layout.root).exists()


def test_a_folder_of_somebody_else_is_an_error_before_anything_changes(layout: Layout, notifier: Notifier) -> None:
    folder_of(layout.root).mkdir(mode=0o755)
    with pytest.raises(InputError):
        notifier.configure(ON)

    assert not notifier.is_wanted


def test_an_unchanged_configuration_is_not_sent_again(notifier: Notifier, children: list[FakeChild]) -> None:
    notifier.configure(ON)
    notifier.tick(0.0)
    notifier.configure(ON)

    assert len(children[0].heard) == 1


def test_an_event_is_repeated_until_a_notifier_has_it(notifier: Notifier, children: list[FakeChild]) -> None:
    notifier.configure(ON)
    notifier.raise_event(EVENT)  # before there is a notifier
    notifier.tick(0.0)
    assert children[0].heard[1:] == [RaiseEvent(EVENT)]

    children[0].says = None
    notifier.tick(1.0)
    notifier.tick(1.0 + RESTART_BASE)
    assert children[1].heard[1:] == [RaiseEvent(EVENT)]

    children[1].says = [EventTaken(EVENT.id)]
    notifier.tick(2.0 + RESTART_BASE)
    children[1].says = None
    notifier.tick(3.0)
    notifier.tick(100.0)
    assert children[2].heard[1:] == []


def test_a_notifier_that_keeps_dying_is_started_ever_later(notifier: Notifier, children: list[FakeChild]) -> None:
    notifier.configure(ON)
    now, starts = 0.0, [0.0]
    notifier.tick(now)
    while now < 200:
        now += 0.25
        if children[-1].says is not None:
            children[-1].says = None
        count = len(children)
        notifier.tick(now)
        if len(children) > count:
            starts.append(now)

    pauses = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert pauses[0] <= RESTART_BASE + 0.5
    assert pauses[-1] > RESTART_LIMIT / 2
    assert len(children) < 12


def test_what_fails_is_shown_and_forgotten_with_the_notifier(notifier: Notifier, children: list[FakeChild]) -> None:
    notifier.configure(ON)
    notifier.tick(0.0)
    children[0].says = [SendingTroubles(("it fails",))]
    notifier.tick(1.0)
    assert notifier.troubles == ("it fails",)
    assert notifier.pids == {"notifier": 4711}

    notifier.configure(OFF)
    assert not notifier.troubles


def test_a_notifier_that_stands_still_is_replaced(notifier: Notifier, children: list[FakeChild]) -> None:
    notifier.configure(ON)
    notifier.tick(0.0)
    children[0].is_stopped = True
    notifier.replace_stopped(1.0)
    notifier.tick(1.0 + RESTART_BASE)

    assert (children[0].is_killed, len(children)) == (True, 2)


def test_the_end_lets_it_finish_and_does_not_wait_for_ever(
    notifier: Notifier, children: list[FakeChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.coordinator.notices.notifier.select.select", lambda *_: ([], [], []))
    notifier.configure(ON)
    notifier.tick(0.0)
    notifier.stop(0.01)

    assert children[0].heard[-1] == FinishSending()
    assert children[0].is_killed
