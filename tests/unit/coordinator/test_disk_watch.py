"""The room: what is foreseen and what the disk refused make one pause, said once, that ends by itself."""

from __future__ import annotations

import errno
import logging
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from obcd.clock import monotonic
from obcd.coordinator import disk_watch as module
from obcd.coordinator.disk_watch import BALLAST, HANG_SECONDS, PAUSED, DiskWatch
from obcd.spool.folders.disk_space import BALLAST_BYTES, Ballast, Space
from tests.golden.wording import wording
from tests.support import wait_until

MIB, GIB = 2**20, 2**30
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
QUOTA = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@dataclass
class Disk:
    """Says how much is free, in place of the filesystem below a folder."""

    folder: Path
    space: Space

    def fill_to(self, free: int) -> None:
        self.space = replace(self.space, free=free)

    def refuse_ballast(self, error: OSError, patch: pytest.MonkeyPatch) -> None:
        def refuse(self: Ballast, size: int) -> None:
            raise error

        patch.setattr(Ballast, "make", refuse)

    @property
    def has_ballast(self) -> bool:
        return (self.folder / BALLAST).exists()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk(tmp_path, Space(free=10 * GIB, size=100 * GIB, free_inodes=0, inodes=0, is_read_only=False))
    monkeypatch.setattr(module, "read_space", lambda path: made.space)
    return made


@pytest.fixture
def room(disk: Disk) -> DiskWatch:
    made = DiskWatch(disk.folder)
    made.look()
    return made


def trouble(room: DiskWatch) -> str:
    """Let the thread look once, and the main loop turn once."""
    room.look()
    room.tick(monotonic())
    return room.trouble


def test_ballast_is_set_aside_at_the_first_look(room: DiskWatch, disk: Disk) -> None:
    assert trouble(room) == ""
    assert (disk.folder / BALLAST).stat().st_size == BALLAST_BYTES


def test_little_room_pauses_and_a_quarter_more_ends_it_with_one_line_each(
    room: DiskWatch, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    with caplog.at_level(logging.INFO):
        for free in (256, 255, 200, 256, 319, 320, 256):
            disk.fill_to(free * MIB)
            said.append(bool(trouble(room)))

    assert said == [False, True, True, True, True, False, False]
    assert [record.action for record in caplog.records] == ["room_short", "room_again"]  # type: ignore[attr-defined]
    assert caplog.messages[0].endswith(wording("256-mib-are-to-stay-free", PAUSED))


def test_other_configuration_counts_from_the_next_look_on(room: DiskWatch, disk: Disk) -> None:
    room.configure(20 * GIB)
    assert wording("20-gib-are-to-stay-free") in trouble(room)

    room.configure(0)

    assert trouble(room) == ""


@pytest.mark.parametrize("refusal", [FULL, QUOTA])
def test_full_disk_gets_the_room_of_the_ballast_and_nothing_is_begun_until_it_is_there_again(
    room: DiskWatch, disk: Disk, refusal: OSError, caplog: pytest.LogCaptureFixture
) -> None:
    room.configure(0)
    disk.fill_to(0)

    room.refuse(refusal)
    assert not (disk.folder / BALLAST).exists()
    room.tick(monotonic())
    assert wording("results-cannot-be-recorded", refusal.strerror) in room.trouble

    disk.fill_to(BALLAST_BYTES)
    room.look()
    assert not (disk.folder / BALLAST).exists(), "its room was taken back before the results were written"

    room.relieve()  # written where the ballast was
    disk.fill_to(0)
    room.look()
    room.tick(monotonic())
    assert "only 0 bytes are free" in room.trouble
    disk.fill_to(BALLAST_BYTES - 1)
    assert trouble(room) != ""
    assert not (disk.folder / BALLAST).exists()

    disk.fill_to(BALLAST_BYTES)
    assert trouble(room) == ""
    assert (disk.folder / BALLAST).stat().st_size == BALLAST_BYTES
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


def test_quota_that_statvfs_does_not_know_is_found_by_the_ballast(
    room: DiskWatch, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.refuse(QUOTA)
    room.relieve()
    with monkeypatch.context() as patch:
        disk.refuse_ballast(QUOTA, patch)
        assert wording("no-room-to-set-aside") in trouble(room)

    assert trouble(room) == ""


def test_refusal_is_told_though_room_was_short_before(
    room: DiskWatch, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.fill_to(MIB)
    assert trouble(room) != ""

    room.refuse(OSError(errno.EIO, "Input/output error"))
    for _ in range(3):
        trouble(room)

    assert [message.partition(" ")[0] for message in caplog.messages] == ["only", "results"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EFBIG])
def test_disk_that_refuses_for_another_reason_keeps_the_ballast(room: DiskWatch, disk: Disk, number: int) -> None:
    room.refuse(OSError(number, os.strerror(number)))
    assert os.strerror(number) in trouble(room)
    assert disk.has_ballast

    room.relieve()

    assert trouble(room) == ""


def test_filesystem_without_room_to_set_aside_is_worked_on_without(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk.refuse_ballast(OSError(errno.EOPNOTSUPP, "Operation not supported"), monkeypatch)
    room = DiskWatch(disk.folder)

    assert [trouble(room) for _ in range(3)] == [""] * 3
    assert caplog.messages == [wording("no-room-can-be-set-aside")]


def test_answers_that_cannot_be_published_for_want_of_room_pause_too(room: DiskWatch, disk: Disk) -> None:
    room.tick(0.0, "no space to publish the results of a.jsonl")
    assert room.trouble == wording("there-is-no-room-to-publish", PAUSED)
    room.throw_off()
    for _ in range(2):
        room.look()
        assert not (disk.folder / BALLAST).exists(), "its room was taken back before the answers were published"

    room.tick(0.0)
    room.look()
    room.tick(0.0)

    assert (room.trouble, (disk.folder / BALLAST).exists()) == ("", True)


def test_filesystem_that_hangs_holds_no_turn_up_and_is_said(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, real = threading.Event(), disk.space
    room = DiskWatch(disk.folder)
    room.start()

    def hang(path: Path) -> Space:
        answers.wait(30)
        return real

    monkeypatch.setattr(module, "read_space", hang)
    room.configure(None)  # it looks at once
    wait_until(lambda: room._look_began is not None)
    room.tick(monotonic())
    assert room.trouble == ""

    room.tick(monotonic() + HANG_SECONDS)
    assert wording("has-not-answered-for") in room.trouble
    answers.set()
    wait_until(lambda: room._look_began is None)
    room.tick(monotonic() + HANG_SECONDS)

    assert room.trouble == ""
    room.stop()


def test_filesystem_that_cannot_be_asked_has_no_room(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> Space:
        raise OSError(errno.ESTALE, "Stale file handle")

    room = DiskWatch(disk.folder)
    monkeypatch.setattr(module, "read_space", fail)

    assert wording("does-not-answer-stale-file-handle") in trouble(room)


def test_ballast_is_there_while_it_runs(disk: Disk) -> None:
    room = DiskWatch(disk.folder)
    room.start()
    assert (disk.folder / BALLAST).exists()

    room.stop()

    assert list(disk.folder.iterdir()) == []


def test_ballast_that_is_given_up_while_the_disk_is_looked_at_is_missed(
    room: DiskWatch, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(path: Path) -> Space:
        room.throw_off()  # the recorder's thread comes in between
        return disk.space

    def make_nothing(self: Ballast, size: int) -> None:
        """Stand for one that is gone again at once."""

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_space", look)
        patch.setattr(Ballast, "make", make_nothing)
        assert trouble(room) != ""

    assert trouble(room) == ""
