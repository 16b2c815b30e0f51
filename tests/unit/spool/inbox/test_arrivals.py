from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from obcd.clock import wall
from obcd.spool.inbox.arrivals import MOST_CONTROLS, RESTLESS_SECONDS, Inbox
from obcd.spool.inbox.drops import Drop, Key, Unfit
from obcd.spool.inbox.markers import ORPHAN_SECONDS, Marker
from tests.golden.wording import wording
from tests.unit.spool.spools import put_marker, scan

SETTLE = 5.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    (path / "clinical").mkdir(parents=True)
    return path


@pytest.fixture
def inbox(folder: Path) -> Inbox:
    return Inbox(folder, ["clinical"], SETTLE, require_marker=False)


def write(folder: Path, name: str = "notes.jsonl", content: bytes = b'{"prompt": "a"}\n') -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def names(drops: list[Drop]) -> list[str]:
    return [drop.key.name for drop in drops]


def test_file_settles_when_two_looks_over_the_settle_time_saw_the_same(folder: Path, inbox: Inbox) -> None:
    write(folder)

    assert scan(inbox, 0.0) == []
    assert scan(inbox, SETTLE - 0.1) == []
    assert names(scan(inbox, SETTLE)) == ["notes.jsonl"]


def test_one_look_is_never_enough_however_late_it_comes(folder: Path) -> None:
    inbox = Inbox(folder, [], 0.0, require_marker=False)
    write(folder)

    assert scan(inbox, 1000.0) == []
    assert names(scan(inbox, 1000.0)) == ["notes.jsonl"]


def test_each_change_begins_settling_anew(folder: Path, inbox: Inbox) -> None:
    path = write(folder)
    scan(inbox, 0.0)
    with path.open("ab") as file:
        file.write(b'{"prompt": "b"}\n')

    assert scan(inbox, SETTLE) == []
    assert scan(inbox, 2 * SETTLE - 0.1) == []
    assert names(scan(inbox, 2 * SETTLE)) == ["notes.jsonl"]


def test_old_mtime_does_not_make_a_file_old(folder: Path, inbox: Inbox) -> None:
    path = write(folder)
    os.utime(path, (1_000_000_000, 1_000_000_000))

    assert scan(inbox, 0.0) == []
    assert names(scan(inbox, SETTLE)) == ["notes.jsonl"]


def test_mtime_in_the_future_does_not_keep_a_file_from_settling(folder: Path, inbox: Inbox) -> None:
    path = write(folder)
    os.utime(path, (4_000_000_000, 4_000_000_000))

    scan(inbox, 0.0)

    assert names(scan(inbox, SETTLE)) == ["notes.jsonl"]


def test_settled_file_is_offered_once(folder: Path, inbox: Inbox) -> None:
    write(folder)
    scan(inbox, 0.0)
    scan(inbox, SETTLE)

    assert scan(inbox, 2 * SETTLE) == []
    assert not inbox.settling


def test_file_that_goes_and_comes_settles_from_the_beginning(folder: Path, inbox: Inbox) -> None:
    path = write(folder)
    scan(inbox, 0.0)
    path.unlink()
    scan(inbox, 1.0)
    write(folder)

    assert scan(inbox, SETTLE) == []
    assert inbox.settling


def test_drops_come_in_the_order_of_their_arrival(folder: Path, inbox: Inbox) -> None:
    first = write(folder, "z.jsonl")
    write(folder, "a.jsonl")
    while (folder / "a.jsonl").stat().st_ctime_ns <= first.stat().st_ctime_ns:
        (folder / "a.jsonl").touch()
    scan(inbox, 0.0)

    assert names(scan(inbox, SETTLE)) == ["z.jsonl", "a.jsonl"]


def test_file_in_a_profile_folder_carries_its_profile(folder: Path, inbox: Inbox) -> None:
    write(folder / "clinical")
    scan(inbox, 0.0)

    assert [drop.key for drop in scan(inbox, SETTLE)] == [Key("clinical", "notes.jsonl")]


def test_folder_that_is_no_profile_waits_when_prompts_lie_in_it(folder: Path, inbox: Inbox) -> None:
    (folder / "clinicl").mkdir()
    (folder / "empty").mkdir()
    write(folder / "clinicl")

    scan(inbox, 0.0)

    assert inbox.waiting == {Key("", "clinicl"): Unfit.PROFILE}


# --- markers ---------------------------------------------------------------------------------------------------------


def test_marker_settles_its_file_at_once(folder: Path, inbox: Inbox) -> None:
    path = write(folder)
    put_marker(path, bytes=path.stat().st_size, drop_id="d1")

    (drop,) = scan(inbox, 0.0)

    assert drop.marker == Marker(size=path.stat().st_size, drop_id="d1")


def test_empty_marker_is_a_marker(folder: Path, inbox: Inbox) -> None:
    put_marker(write(folder))

    assert [drop.marker for drop in scan(inbox, 0.0)] == [Marker()]


def test_file_waits_while_its_marker_promises_another_size(folder: Path, inbox: Inbox) -> None:
    path = write(folder)
    put_marker(path, bytes=9999)

    assert scan(inbox, 0.0) == []
    assert "9999 bytes, but the file has 16" in inbox.waiting[Key("", "notes.jsonl")]


@pytest.mark.parametrize(
    "content", ["{", "[1]", '"x"', "x" * 5000, "[" * 4000, "1" * 4090, '{"drop_id": ' + "[" * 4000]
)
def test_file_waits_while_its_marker_is_nonsense(folder: Path, inbox: Inbox, content: str) -> None:
    path = write(folder)
    path.with_name("notes.jsonl.done").write_text(content, "utf-8")

    assert scan(inbox, 0.0) == []
    assert wording("cannot-be-read") in inbox.waiting[Key("", "notes.jsonl")]


def test_marker_that_is_a_link_is_not_followed(folder: Path, inbox: Inbox, tmp_path: Path) -> None:
    path = write(folder)
    (tmp_path / "elsewhere").write_text("{}", "utf-8")
    path.with_name("notes.jsonl.done").symlink_to(tmp_path / "elsewhere")

    assert scan(inbox, 0.0) == []
    assert wording("cannot-be-read") in inbox.waiting[Key("", "notes.jsonl")]


def test_required_marker_is_waited_for_and_the_wait_is_said(folder: Path) -> None:
    inbox = Inbox(folder, [], SETTLE, require_marker=True)
    path = write(folder)
    scan(inbox, 0.0)

    assert scan(inbox, 10 * SETTLE) == []
    assert wording("waits-for-its-marker-notes-jsonl") in inbox.waiting[Key("", "notes.jsonl")]

    put_marker(path)
    assert names(scan(inbox, 11 * SETTLE)) == ["notes.jsonl"]
    assert inbox.waiting == {}


def test_marker_without_its_file_is_removed_after_an_hour(folder: Path, inbox: Inbox) -> None:
    orphan = put_marker(folder / "gone.jsonl", drop_id="d1")
    kept = put_marker(write(folder), bytes=9999)

    scan(inbox, 0.0)
    scan(inbox, ORPHAN_SECONDS)
    assert orphan.exists()

    scan(inbox, ORPHAN_SECONDS + 1)
    assert not orphan.exists()
    assert kept.exists()


# --- what is not looked at -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [".notes.jsonl.a1B2c3", "notes.jsonl~", "x.tmp", "x.part", "x.jsonl.partial", "x.filepart", ".nfs000123",
     "x.swp", "x.crdownload", "#notes.jsonl#", "notes.jsonl.cancel", "notes.jsonl.pause", "notes.jsonl.priority-10"],
)  # fmt: skip
def test_temporary_and_control_names_are_passed_over_in_silence(folder: Path, inbox: Inbox, name: str) -> None:
    write(folder, name)
    scan(inbox, 0.0)

    assert scan(inbox, 10 * SETTLE) == []
    assert inbox.waiting == {}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("notes.txt", Unfit.NAME),
        ("notes.JSONL", None),
        ("a\nb.jsonl", Unfit.UNPRINTABLE),
        ("a\x1b[31m.jsonl", Unfit.UNPRINTABLE),
        ("a\u202eb.jsonl", Unfit.UNPRINTABLE),
        ("ä" * 100 + ".jsonl", Unfit.LONG),
        ("-rf.jsonl", None),
        ("two words.jsonl", None),
    ],
)
def test_unfit_names_wait_with_their_reason(folder: Path, inbox: Inbox, name: str, why: Unfit | None) -> None:
    write(folder, name)
    scan(inbox, 0.0)

    drops = scan(inbox, SETTLE)

    assert inbox.waiting.get(Key("", name)) == why
    assert bool(drops) == (why is None)


def test_name_that_is_not_utf8_waits(folder: Path, inbox: Inbox) -> None:
    with open(os.fsencode(folder) + b"/caf\xe9.jsonl", "wb") as file:
        file.write(b'{"prompt": "a"}\n')
    scan(inbox, 0.0)

    assert scan(inbox, SETTLE) == []
    assert list(inbox.waiting.values()) == [Unfit.UNPRINTABLE]


def test_symbolic_link_is_never_followed(folder: Path, inbox: Inbox, tmp_path: Path) -> None:
    target = write(tmp_path, "secret.jsonl")
    (folder / "link.jsonl").symlink_to(target)
    (folder / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    (folder / "loop.jsonl").symlink_to(folder / "loop.jsonl")
    scan(inbox, 0.0)

    assert scan(inbox, SETTLE) == []
    assert set(inbox.waiting.values()) == {Unfit.LINK}
    assert len(inbox.waiting) == 3


def test_profile_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    write(elsewhere)
    (folder / "clinical").symlink_to(elsewhere)
    inbox = Inbox(folder, ["clinical"], 0.0, require_marker=False)
    scan(inbox, 0.0)

    assert scan(inbox, 1.0) == []
    assert inbox.waiting == {Key("", "clinical"): Unfit.LINK}


def test_fifo_neither_blocks_nor_is_read(folder: Path, inbox: Inbox) -> None:
    os.mkfifo(folder / "pipe.jsonl")

    scan(inbox, 0.0)

    assert scan(inbox, SETTLE) == []
    assert inbox.waiting == {Key("", "pipe.jsonl"): Unfit.SPECIAL}


def test_second_hard_link_is_waited_out(folder: Path, inbox: Inbox, tmp_path: Path) -> None:
    source = write(tmp_path, "source.jsonl")
    os.link(source, folder / "notes.jsonl")
    scan(inbox, 0.0)
    assert scan(inbox, SETTLE) == []
    assert inbox.waiting == {Key("", "notes.jsonl"): Unfit.HARD_LINK}

    source.unlink()
    scan(inbox, 2 * SETTLE)

    assert names(scan(inbox, 3 * SETTLE)) == ["notes.jsonl"]
    assert inbox.waiting == {}


@pytest.mark.parametrize("drop_id", ["0123456789abcdef", "../0123456789abc", ""])
@pytest.mark.parametrize("is_old", [True, False])
def test_hidden_name_that_a_dead_submitter_left_is_removed_after_a_while(
    folder: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, drop_id: str, is_old: bool
) -> None:
    path, twin = write(folder), folder / ".0123456789abcdef.tmp"
    os.link(path, twin)
    put_marker(path, drop_id=drop_id)
    now = wall() + (RESTLESS_SECONDS + 1 if is_old else 0)
    monkeypatch.setattr("obcd.spool.inbox.arrivals.wall", lambda: now)

    scan(inbox, 0.0)

    is_removed = is_old and drop_id == "0123456789abcdef"
    assert twin.exists() != is_removed
    assert names(scan(inbox, 0.1)) == (["notes.jsonl"] if is_removed else [])


def test_file_of_a_hidden_name_that_is_another_stays(
    folder: Path, inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = write(folder), write(folder, ".0123456789abcdef.tmp")
    os.link(path, tmp_path / "elsewhere")
    put_marker(path, drop_id="0123456789abcdef")
    now = wall() + RESTLESS_SECONDS + 1
    monkeypatch.setattr("obcd.spool.inbox.arrivals.wall", lambda: now)

    scan(inbox, 0.0)

    assert other.exists()
    assert inbox.waiting == {Key("", "notes.jsonl"): Unfit.HARD_LINK}


def test_unreadable_file_waits_and_is_taken_after_chmod(shared: Path) -> None:
    inbox = Inbox(shared, [], SETTLE, require_marker=False)
    path = write(shared)
    path.chmod(0o000)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        assert scan(inbox, 0.0) == []
        assert inbox.waiting == {Key("", "notes.jsonl"): Unfit.UNREADABLE}
    finally:
        if is_root:
            os.seteuid(0)

    path.chmod(0o644)
    scan(inbox, 1.0)
    assert names(scan(inbox, 1.0 + SETTLE)) == ["notes.jsonl"]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_profile_folder_that_cannot_be_read_costs_the_others_nothing(
    folder: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("clinical"):
            raise OSError(error, os.strerror(error), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    write(folder)
    scan(inbox, 0.0)

    assert names(scan(inbox, SETTLE)) == ["notes.jsonl"]
    expected = {errno.EACCES: Unfit.CLOSED, errno.EIO: "this folder cannot be read: Input/output error"}
    assert inbox.waiting == ({Key("", "clinical"): expected[error]} if error in expected else {})


def test_restless_file_is_never_offered_and_said_to_be_restless(folder: Path, inbox: Inbox) -> None:
    path, now = write(folder), 0.0
    while now <= RESTLESS_SECONDS + 2 * SETTLE:
        assert scan(inbox, now) == []
        with path.open("ab") as file:
            file.write(b"x")
        now += SETTLE - 1

    assert "still changing" in inbox.waiting[Key("", "notes.jsonl")]


def test_scan_of_a_missing_inbox_raises_and_forgets_nothing(folder: Path, inbox: Inbox) -> None:
    write(folder)
    scan(inbox, 0.0)
    folder.rename(folder.with_name("away"))

    with pytest.raises(FileNotFoundError):
        scan(inbox, 1.0)

    folder.with_name("away").rename(folder)
    assert names(scan(inbox, SETTLE)) == ["notes.jsonl"]


# --- what the clerk did not take -------------------------------------------------------------------------------------


def settle(folder: Path, inbox: Inbox) -> Drop:
    write(folder)
    scan(inbox, 0.0)
    (drop,) = scan(inbox, SETTLE)
    return drop


def test_held_drop_is_offered_again_when_its_time_is_over(folder: Path, inbox: Inbox) -> None:
    drop = settle(folder, inbox)
    inbox.hold(drop, "torn", until=20.0)

    assert scan(inbox, 19.9) == []
    assert inbox.waiting == {drop.key: "torn"}
    assert names(scan(inbox, 20.0)) == ["notes.jsonl"]


def test_held_drop_keeps_its_reason_while_the_clerk_looks_again(folder: Path, inbox: Inbox) -> None:
    drop = settle(folder, inbox)
    inbox.hold(drop, "torn", until=20.0)

    scan(inbox, 20.0)
    assert inbox.waiting == {drop.key: "torn"}
    scan(inbox, 20.5)
    assert inbox.waiting == {drop.key: "torn"}


def test_held_drop_that_changes_is_forgiven(folder: Path, inbox: Inbox) -> None:
    drop = settle(folder, inbox)
    inbox.hold(drop, "torn", until=1e9)
    write(folder, content=b'{"prompt": "whole now"}\n')

    scan(inbox, 20.0)
    assert inbox.waiting == {}
    assert names(scan(inbox, 20.0 + SETTLE)) == ["notes.jsonl"]


def test_newer_file_of_the_name_is_not_held_for_what_was_said_of_the_older_one(folder: Path, inbox: Inbox) -> None:
    older = settle(folder, inbox)
    write(folder, content=b'{"prompt": "another one"}\n')
    scan(inbox, 20.0)

    inbox.hold(older, "torn", until=1e9)

    assert names(scan(inbox, 20.0 + SETTLE)) == ["notes.jsonl"]
    assert inbox.waiting == {}


def test_drop_held_because_of_another_job_is_offered_when_that_one_is_published(folder: Path, inbox: Inbox) -> None:
    drop = settle(folder, inbox)
    inbox.hold(drop, "the same file is being answered", until=float("inf"))
    assert scan(inbox, 1e6) == []

    inbox.wake_held()

    assert names(scan(inbox, 1e6)) == ["notes.jsonl"]


def test_drop_that_was_not_asked_about_is_offered_again(folder: Path, inbox: Inbox) -> None:
    drop = settle(folder, inbox)

    inbox.offer_again(drop)

    assert names(scan(inbox, SETTLE + 1)) == ["notes.jsonl"]


def test_file_that_the_clerk_has_is_not_opened_at_each_scan_unless_it_changes(
    folder: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(folder, inbox)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", pytest.fail)
        assert scan(inbox, SETTLE + 1) == []

    write(folder, content=b'{"prompt": "the next of that name"}\n')
    scan(inbox, SETTLE + 2)

    assert names(scan(inbox, 2 * SETTLE + 2)) == ["notes.jsonl"]


def test_look_that_fails_midway_forgets_nothing_of_what_had_settled(
    folder: Path, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a file that settled, and a disk that fails when the look has just passed it
    write(folder)
    scan(inbox, 0.0)
    entries = inbox._entries

    def failing() -> Iterator[object]:
        yield from entries()
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(inbox, "_entries", failing)
        with pytest.raises(OSError, match="Input/output"):
            scan(inbox, SETTLE)

    # then the next look offers it
    assert names(scan(inbox, SETTLE + 1)) == ["notes.jsonl"]


def test_look_goes_on_in_slices_also_over_folders(folder: Path, inbox: Inbox) -> None:
    for number in range(50):
        (folder / f"folder{number}").mkdir()
    write(folder)

    slices = 0
    while inbox.look(0.0, 0.0) is None:
        slices += 1

    assert slices >= 50
    assert inbox.ignored == 50


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize(
    "lay",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text('{"bytes": 1}'),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/etc/passwd"),
    ],
    ids=["empty", "wrong", "folder", "link"],
)
def test_marker_of_a_stranger_says_nothing_and_does_not_stay(
    folder: Path, inbox: Inbox, lay: Callable[[Path], object]
) -> None:
    # given somebody's file that is still being written, and a marker that a stranger laid beside it
    write(folder)
    os.chown(folder / "notes.jsonl", 1234, -1)
    marker = folder / "notes.jsonl.done"
    lay(marker)
    os.chown(marker, 4321, -1, follow_symlinks=False)

    # then it is not taken for whole, and the submitter's own marker finds its place
    assert scan(inbox, 0.0) == []
    assert inbox.waiting == {}
    assert not os.path.lexists(marker)
    assert names(scan(inbox, SETTLE)) == ["notes.jsonl"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_control_files_of_one_owner_are_told_up_to_a_bound_and_those_of_others_all(folder: Path, inbox: Inbox) -> None:
    for number in range(MOST_CONTROLS + 20):
        (folder / f"a{number}.jsonl.cancel").touch()
        os.chown(folder / f"a{number}.jsonl.cancel", 1234, -1)
    (folder / "z.jsonl.cancel").touch()

    scan(inbox, 0.0)

    assert len(inbox.controls) == MOST_CONTROLS + 1
    assert Key("", "z.jsonl.cancel") in inbox.controls
