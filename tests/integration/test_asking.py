"""Asking a coordinator of this very process for a reload: whom the signal goes to, and which outcome counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from obcd.clock import monotonic
from obcd.coordinator import reload_request
from obcd.coordinator.reload_request import ask_to_reload
from obcd.errors import InputError, TimedOutError
from obcd.spool.folders.layout import Layout, SpoolLock
from tests.golden.wording import wording

pytestmark = pytest.mark.integration

OLD = {"number": 1, "began": 0.0, "is_ok": True, "text": "old news", "exit_code": 0}


@pytest.fixture
def lock(layout: Layout) -> Iterator[SpoolLock]:
    made = SpoolLock(layout)
    made.acquire()
    yield made
    made.release()


@pytest.fixture
def hung_up() -> Iterator[list[Callable[[], None]]]:
    """Yield a list of what is done at a SIGHUP, one entry a signal."""
    actions: list[Callable[[], None]] = []
    old = signal.signal(signal.SIGHUP, lambda *_: actions.pop(0)())
    yield actions
    signal.signal(signal.SIGHUP, old)


def show(layout: Layout, *reloads: dict[str, Any], pid: int | None = None) -> None:
    layout.status.write_text(
        json.dumps({"pid": pid or os.getpid(), "takes_reloads": True, "reloads": reloads}), "utf-8"
    )


def test_outcome_is_the_first_that_began_after_the_request(
    layout: Layout, lock: SpoolLock, hung_up: list[Callable[[], None]]
) -> None:
    show(layout, OLD)

    def reload() -> None:
        ours = {**OLD, "number": 2, "began": monotonic(), "text": "ours"}
        show(layout, OLD, ours, {**ours, "number": 3, "began": monotonic() + 1, "text": "later"})

    hung_up.append(reload)

    assert ask_to_reload(layout, 10.0).text == "ours"


def test_old_outcome_is_not_taken_for_ours(layout: Layout, lock: SpoolLock, hung_up: list[Callable[[], None]]) -> None:
    show(layout, OLD)
    hung_up.append(lambda: None)

    with pytest.raises(TimedOutError, match=wording("pid-has-not-read-its-configuration", os.getpid())):
        ask_to_reload(layout, 0.2)
    assert hung_up == []


def test_status_and_lock_file_without_a_holder_are_nobody(layout: Layout) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (layout.root / "lock").write_text(f"pid {stranger.pid}\n", "utf-8")
        show(layout, pid=stranger.pid)

        with pytest.raises(InputError, match=wording("no-coordinator-runs-on", layout.root)):
            ask_to_reload(layout, 1.0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_status_of_another_process_than_the_lock_holder_is_not_believed(layout: Layout, lock: SpoolLock) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        show(layout, pid=stranger.pid)

        with pytest.raises(TimedOutError, match=wording("shows-no-status")):
            ask_to_reload(layout, 0.2)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_coordinator_that_ends_meanwhile_is_told(
    layout: Layout, lock: SpoolLock, hung_up: list[Callable[[], None]]
) -> None:
    show(layout)

    def end() -> None:
        layout.status.unlink()
        lock.release()

    hung_up.append(end)

    with pytest.raises(InputError, match=wording("ended-before-it-had-read")):
        ask_to_reload(layout, 10.0)


def test_coordinator_that_is_killed_meanwhile_is_told_at_once_though_its_status_stays(
    layout: Layout, lock: SpoolLock, hung_up: list[Callable[[], None]]
) -> None:
    show(layout, OLD)
    hung_up.append(lock.release)

    with pytest.raises(InputError, match=wording("ended-before-it-had-read")):
        ask_to_reload(layout, 30.0)


@pytest.mark.parametrize(
    "rubbish", [None, 7, [{}], [None], [{"began": "x"}], [{"began": 1e99}], [{**OLD, "began": 1e99, "text": None}]]
)
def test_reloads_that_are_not_as_we_write_them_are_passed_over(
    layout: Layout, lock: SpoolLock, hung_up: list[Callable[[], None]], rubbish: object
) -> None:
    show(layout)
    document = json.loads(layout.status.read_bytes())

    def spoil() -> None:
        layout.status.write_text(json.dumps({**document, "reloads": rubbish}), "utf-8")

    hung_up.append(spoil)

    with pytest.raises(TimedOutError):
        ask_to_reload(layout, 0.05)


def test_fifo_in_place_of_the_status_keeps_nobody_waiting(layout: Layout, lock: SpoolLock) -> None:
    os.mkfifo(layout.status)

    with pytest.raises(TimedOutError, match=wording("shows-no-status")):
        ask_to_reload(layout, 0.05)


@pytest.mark.parametrize("said", [{"takes_reloads": False}, {}])
def test_what_a_hangup_would_end_is_not_sent_one(layout: Layout, lock: SpoolLock, said: dict[str, object]) -> None:
    layout.status.write_text(json.dumps({"pid": os.getpid(), "reloads": [], **said}), "utf-8")

    with pytest.raises(InputError, match="obcd batch"):  # and we live
        ask_to_reload(layout, 5.0)


@pytest.mark.parametrize("said", [{"takes_reloads": "yes"}, {"takes_reloads": 1}, {"pid": str(os.getpid())}])
def test_status_that_is_not_as_we_write_it_has_nobody_signalled(
    layout: Layout, lock: SpoolLock, said: dict[str, object]
) -> None:
    document = {"pid": os.getpid(), "takes_reloads": True, "reloads": [], **said}
    layout.status.write_text(json.dumps(document), "utf-8")

    with pytest.raises(TimedOutError, match=wording("shows-no-status")):  # and we live
        ask_to_reload(layout, 0.05)


def test_process_that_got_the_number_of_a_coordinator_that_just_ended_is_not_signalled(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    holders = [stranger.pid]

    def holder(_: Layout) -> int | None:
        if holders:
            return holders.pop()
        layout.status.unlink(missing_ok=True)
        return None

    monkeypatch.setattr(reload_request, "lock_holder", holder)
    try:
        show(layout, pid=stranger.pid)

        with pytest.raises(InputError, match=wording("ended-before-it-had-read")):
            ask_to_reload(layout, 5.0)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.2)
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("place", ["lock_holder", "signal.pidfd_send_signal"])
def test_coordinator_of_another_user_is_named_with_a_way(
    layout: Layout, lock: SpoolLock, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    show(layout)

    def refuse(*_: object) -> None:
        raise PermissionError

    module, _, name = place.rpartition(".")
    monkeypatch.setattr(getattr(reload_request, module) if module else reload_request, name, refuse)

    with pytest.raises(InputError, match=wording("belongs-to-another-user-sudo-u")):
        ask_to_reload(layout, 1.0)
