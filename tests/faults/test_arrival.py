"""How files come into the inbox, with a clock that the test turns; what the unit tests leave out."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.coordinator.inbox_watch import InboxWatch
from obcd.coordinator.loop_waits import Waker
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Drop
from obcd.spool.intake.acceptance import Accepted, Rejected, Verdict, accept
from tests.faults.conftest import Mount
from tests.support import wait_until
from tests.unit.spool.spools import THREE, accept_bytes, finish, lines_of, make_layout, order_of, put, put_marker, scan

SETTLE = 5.0


class Door:
    """An inbox and a clerk; `look` is one scan, and what settled is accepted."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.inbox = Inbox(layout.inbox, ["clinical"], SETTLE, require_marker=False)
        self.now = 0.0
        self.verdicts: list[Verdict] = []

    def look(self, seconds: float) -> list[Drop]:
        self.now += seconds
        drops = scan(self.inbox, self.now)
        self.verdicts += [accept(self.layout, order_of(drop, f"job{len(self.verdicts)}")) for drop in drops]
        return drops

    def settle(self) -> Accepted:
        """Look until all has settled; it must be one job."""
        self.look(0.0)
        self.look(SETTLE)
        (verdict,) = self.verdicts
        assert isinstance(verdict, Accepted)
        return verdict


@pytest.fixture
def door(scratch: Path) -> Door:
    return Door(make_layout(scratch / "root", "clinical"))


def line(number: int) -> bytes:
    return b'{"prompt": "line %d"}\n' % number


@pytest.mark.case("A1")
def test_slow_writer_is_waited_for_to_the_last_line(door: Door) -> None:
    with (door.layout.inbox / "notes.jsonl").open("ab", buffering=0) as file:
        for number in range(16):
            file.write(line(number))
            assert door.look(0.5) == []

    assert door.settle().header.requests == 16


@pytest.mark.case("A2")
def test_file_that_is_opened_and_added_to_three_times_is_one_job(door: Door) -> None:
    for number in range(3):
        with (door.layout.inbox / "notes.jsonl").open("ab") as file:
            file.write(line(number))
        assert door.look(SETTLE - 0.5) == []

    assert door.settle().header.requests == 3


def rename_in(elsewhere: Path, inbox: Path) -> None:
    elsewhere.rename(inbox / "notes.jsonl")


def link_and_unlink(elsewhere: Path, inbox: Path) -> None:
    os.link(elsewhere, inbox / ".notes.tmp")
    elsewhere.unlink()
    os.link(inbox / ".notes.tmp", inbox / "notes.jsonl")
    (inbox / ".notes.tmp").unlink()


def hard_link(elsewhere: Path, inbox: Path) -> None:
    os.link(elsewhere, inbox / "notes.jsonl")
    elsewhere.unlink()


def rsync(elsewhere: Path, inbox: Path) -> None:
    """Let rsync copy; where there is none, do as it does: a hidden name with random letters, old times, a rename."""
    if shutil.which("rsync"):
        subprocess.run(["rsync", "-a", str(elsewhere), str(inbox / "notes.jsonl")], check=True, timeout=30)
        return
    temporary = inbox / ".notes.jsonl.Qx3f9a"
    temporary.write_bytes(elsewhere.read_bytes())
    os.utime(temporary, (10**9, 10**9))
    temporary.rename(inbox / "notes.jsonl")


@pytest.mark.case("A5", "A6", "A7", "A8")
@pytest.mark.parametrize("arrive", [rename_in, link_and_unlink, hard_link, rsync])
def test_file_that_arrives_whole_is_one_job(door: Door, arrive: Callable[[Path, Path], None]) -> None:
    elsewhere = door.layout.root / "elsewhere"
    elsewhere.write_bytes(THREE)

    arrive(elsewhere, door.layout.inbox)

    assert door.settle().header.requests == 3
    assert [path.name for path in door.layout.inbox.iterdir() if path.is_file()] == []


@pytest.mark.case("A9", "A10", "A11")
def test_upload_that_broke_off_is_sent_again_and_only_the_whole_one_is_run(door: Door) -> None:
    path = put(door.layout, THREE[:-9])
    door.look(0.0)
    (drop,) = door.look(SETTLE)
    door.inbox.hold(drop, "cut off", door.now + 5)
    assert not isinstance(door.verdicts.pop(), Accepted | Rejected)

    path.unlink()
    put(door.layout, THREE)

    assert door.settle().header.requests == 3


@pytest.mark.case("A13")
def test_marker_that_comes_first_waits_for_its_file(door: Door) -> None:
    put_marker(door.layout.inbox / "notes.jsonl", bytes=len(THREE), lines=3)
    assert door.look(60.0) == []
    put(door.layout, THREE)

    (drop,) = door.look(0.0)

    assert drop.marker is not None
    assert isinstance(door.verdicts[0], Accepted)


@pytest.mark.case("A14")
def test_old_times_on_a_file_that_is_still_written_prove_nothing(door: Door) -> None:
    with (door.layout.inbox / "notes.jsonl").open("ab", buffering=0) as file:
        for number in range(5):
            file.write(line(number))
            os.utime(file.fileno(), (10**9, 10**9))
            assert door.look(SETTLE - 1) == []

    assert door.settle().header.requests == 5


@pytest.mark.case("A15")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_clock_on_the_wall_may_jump(door: Door, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    real = time.time
    put(door.layout, THREE)
    assert door.look(0.0) == []

    monkeypatch.setattr(time, "time", lambda: real() + jump)

    assert door.look(SETTLE - 0.1) == []
    assert len(door.look(0.1)) == 1


@pytest.mark.case("A18")
def test_file_replaced_between_scan_and_claim_is_examined_again(door: Door) -> None:
    path = put(door.layout, THREE)
    door.look(0.0)
    (drop,) = scan(door.inbox, SETTLE)
    put(door.layout, line(1), "newer")
    (door.layout.inbox / "newer").rename(path)

    assert not isinstance(accept(door.layout, order_of(drop)), Accepted)
    assert path.read_bytes() == line(1)


@pytest.mark.case("A26")
def test_inbox_that_is_mounted_over_and_unmounted_goes_on(door: Door, mount: Mount) -> None:
    put(door.layout, THREE, "below.jsonl")
    mount(door.layout.inbox)
    assert door.look(0.0) == []
    put(door.layout, THREE, "above.jsonl")
    door.look(1.0)
    assert [drop.key.name for drop in door.look(SETTLE)] == ["above.jsonl"]

    subprocess.run(["umount", str(door.layout.inbox)], check=True, timeout=30)

    door.look(1.0)
    assert [drop.key.name for drop in door.look(SETTLE)] == ["below.jsonl"]
    assert all(isinstance(verdict, Accepted) for verdict in door.verdicts)


@pytest.mark.case("A27")
@pytest.mark.parametrize("is_configured", [True, False])
def test_inbox_that_is_a_link_is_the_folder_behind_it(scratch: Path, is_configured: bool) -> None:
    (scratch / "share").mkdir()
    (scratch / "root").mkdir()
    link = scratch / "link" if is_configured else scratch / "root" / "inbox"
    link.symlink_to(scratch / "share")
    layout = Layout.at(scratch / "root", str(link) if is_configured else None)
    layout.create([])
    door = Door(layout)

    put(layout, THREE)

    assert layout.inbox == scratch / "share"
    assert finish(layout, door.settle().header) == layout.outbox / "notes"


@pytest.mark.case("A28")
def test_inbox_that_cannot_be_read_for_a_while_loses_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    put(door.layout, THREE)
    door.look(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", raise_refused)
        with pytest.raises(PermissionError):
            door.look(1.0)

    assert len(door.look(SETTLE)) == 1


def raise_refused(path: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.case("A33")
def test_files_that_came_while_nobody_looked_are_taken_in_the_order_of_their_arrival(door: Door) -> None:
    names = [f"{(number * 37) % 50:02}.jsonl" for number in range(50)]
    last = 0
    for name in names:
        path = put(door.layout, THREE, name)
        while path.stat().st_ctime_ns <= last:
            path.touch()
        last = path.stat().st_ctime_ns
    door.look(0.0)

    assert [drop.key.name for drop in door.look(SETTLE)] == names
    assert all(isinstance(verdict, Accepted) for verdict in door.verdicts)


# --- events are only a hint ------------------------------------------------------------------------------------------


@pytest.mark.case("A23")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_watch_whose_thread_died_is_built_anew(scratch: Path) -> None:
    class FailingWaker(Waker):
        def wake(self) -> None:
            raise RuntimeError("an event that nobody expected")

    inbox = InboxWatch([scratch], FailingWaker())
    inbox.ensure()
    observer = inbox._observer
    assert observer is not None
    (scratch / "a.jsonl").touch()
    wait_until(lambda: not observer.is_alive())

    inbox.ensure()
    inbox.take_news()
    (scratch / "b.jsonl").touch()

    wait_until(lambda: inbox.has_news)
    inbox.stop()


@pytest.mark.case("A24", "A25")
@pytest.mark.parametrize("is_kept", [True, False], ids=["renamed", "removed"])
def test_folder_that_took_the_place_of_the_inbox_is_watched(scratch: Path, is_kept: bool) -> None:
    folder = scratch / "inbox"
    folder.mkdir()
    inbox = InboxWatch([folder], Waker())
    inbox.ensure()
    folder.rename(scratch / "old") if is_kept else folder.rmdir()
    folder.mkdir()
    inbox.ensure()
    inbox.take_news()

    (folder / "a.jsonl").touch()

    wait_until(lambda: inbox.has_news)
    inbox.stop()


@pytest.mark.case("F16")
@pytest.mark.parametrize("harm", ["chmod", "truncate"])
def test_what_is_done_to_the_original_after_acceptance_does_not_reach_the_job(door: Door, harm: str) -> None:
    header = accept_bytes(door.layout, THREE)
    original = door.layout.claim(header.id, "") / "notes.jsonl"
    original.chmod(0) if harm == "chmod" else os.truncate(original, 5)

    folder = finish(door.layout, header)

    assert (folder / "input.jsonl").read_bytes() == THREE
    assert len(lines_of(folder / "responses.jsonl")) == 3
