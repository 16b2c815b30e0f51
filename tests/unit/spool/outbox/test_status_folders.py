"""Status folders, progress and waiting beside the published ones: none is worth trouble, other folders stay."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Key
from obcd.spool.outbox.status_folders import StatusFolders, find_progress
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, accept_bytes


@pytest.fixture
def signs(layout: Layout) -> StatusFolders:
    return StatusFolders(layout)


def test_waiting_sign_says_why_and_goes_when_it_is_resolved(layout: Layout, signs: StatusFolders) -> None:
    key = Key("", "notes.jsonl")

    assert signs.show_waiting({key: wording("it-is-empty")}) == [(key, wording("it-is-empty"))]
    sign = layout.outbox / "notes.waiting" / "why.txt"
    assert sign.read_text("utf-8") == wording("notes-jsonl-it-is-empty")
    assert signs.show_waiting({key: wording("it-is-empty")}) == []

    assert signs.show_waiting({key: "still empty"}) == [(key, "still empty")]
    assert sign.read_text("utf-8") == "notes.jsonl: still empty\n"

    assert signs.show_waiting({}) == []
    assert list(layout.outbox.iterdir()) == []


def test_waiting_signs_of_like_names_do_not_share_a_folder(layout: Layout, signs: StatusFolders) -> None:
    keys = [Key("", "a.jsonl"), Key("", "a"), Key("clinical", "a.jsonl"), Key("", "x" * 250), Key("", "\x1b\n/")]

    signs.show_waiting(dict.fromkeys(keys, "why"))

    assert len(list(layout.outbox.glob("**/why.txt"))) == len(keys)
    signs.show_waiting({})
    assert list(layout.outbox.glob("**/why.txt")) == []


def test_progress_sign_shows_and_goes(layout: Layout, signs: StatusFolders) -> None:
    header = accept_bytes(layout, THREE)

    signs.show_progress(header, {"done": 1, "drop_id": "d1"})
    signs.show_progress(header, {"done": 2, "drop_id": "d1"}, "too much is refused")
    assert (layout.outbox / "notes.partial" / "why.txt").read_text() == "too much is refused\n"
    signs.show_progress(header, {"done": 2, "drop_id": "d1"})
    assert not (layout.outbox / "notes.partial" / "why.txt").exists()

    assert disk.read_json(layout.outbox / "notes.partial" / "progress.json")["done"] == 2
    assert find_progress(layout.outbox, "d1", "notes.jsonl", "") == {"done": 2, "drop_id": "d1"}
    assert find_progress(layout.outbox, "d2", "notes.jsonl", "") is None
    signs.end_progress("job1")
    signs.end_progress("job1")
    assert list(layout.outbox.iterdir()) == []


def test_signs_of_an_earlier_coordinator_are_cleared(layout: Layout, signs: StatusFolders) -> None:
    signs.show_waiting({Key("clinical", "a.jsonl"): "why", Key("", "b.jsonl"): "why"})
    signs.show_progress(accept_bytes(layout, THREE), {"done": 1})
    (layout.outbox / "c.waiting").mkdir()

    StatusFolders(layout).clear()

    assert [path.name for path in layout.outbox.glob("**/*")] == ["clinical"]


def test_folders_of_others_that_look_like_signs_are_left_alone(
    layout: Layout, signs: StatusFolders, tmp_path: Path
) -> None:
    published = layout.outbox / "x.partial"
    published.mkdir()
    (published / "manifest.json").write_text("{}", "utf-8")
    foreign = layout.outbox / "thesis.partial"
    foreign.mkdir()
    (foreign / "chapter1.tex").write_text("years of work", "utf-8")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (layout.outbox / "link.waiting").symlink_to(elsewhere)
    (layout.outbox / "file.waiting").write_text("a file", "utf-8")

    signs.clear()

    assert (foreign / "chapter1.tex").exists()
    assert sorted(path.name for path in layout.outbox.iterdir()) == [
        "file.waiting", "link.waiting", "thesis.partial", "x.partial",
    ]  # fmt: skip


def put_file(sign: Path, elsewhere: Path) -> None:
    sign.write_text("mine", "utf-8")


def put_link(sign: Path, elsewhere: Path) -> None:
    sign.symlink_to(elsewhere)


def put_work(sign: Path, elsewhere: Path) -> None:
    sign.mkdir()
    (sign / "thesis.tex").write_text("mine", "utf-8")


@pytest.mark.parametrize("replace", [put_file, put_link, put_work])
def test_sign_that_was_replaced_is_left_alone_and_shown_elsewhere(
    layout: Layout, signs: StatusFolders, tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    header, key, elsewhere = accept_bytes(layout, THREE), Key("", "a.jsonl"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    signs.show_progress(header, {"done": 1})
    signs.show_waiting({key: "why"})
    planted = [layout.outbox / "notes.partial", layout.outbox / "a.waiting"]
    for sign in planted:
        disk.remove_tree(sign)
        replace(sign, elsewhere)

    signs.show_progress(header, {"done": 2})
    assert signs.show_waiting({key: "other"}) == [(key, "other")]

    assert disk.read_json(layout.outbox / "notes.job1.partial" / "progress.json")["done"] == 2
    assert (layout.outbox / "a.1.waiting" / "why.txt").read_text("utf-8") == "a.jsonl: other\n"
    signs.end_progress("job1")
    signs.show_waiting({})
    signs.clear()
    assert sorted(layout.outbox.iterdir()) == sorted([*planted])
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("replace", [put_file, put_link, put_work])
def test_sign_that_was_replaced_before_it_goes_is_left_alone(
    layout: Layout, signs: StatusFolders, tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    signs.show_progress(accept_bytes(layout, THREE), {"done": 1})
    signs.show_waiting({Key("", "a.jsonl"): "why"})
    for name in ("notes.partial", "a.waiting"):
        disk.remove_tree(layout.outbox / name)
        replace(layout.outbox / name, tmp_path)

    signs.end_progress("job1")
    assert signs.show_waiting({}) == []

    assert sorted(path.name for path in layout.outbox.iterdir()) == ["a.waiting", "notes.partial"]


def test_read_only_disk_costs_the_signs_and_nothing_else(
    layout: Layout, signs: StatusFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, key, late = accept_bytes(layout, THREE), Key("", "a.jsonl"), Key("", "late.jsonl")
    signs.show_progress(header, {"done": 1})
    signs.show_waiting({key: "why"})

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "mkdir"), (Path, "write_text"), (disk, "remove_tree"), (disk, "show_json")):
            patch.setattr(owner, name, refuse)
        signs.show_progress(header, {"done": 2})
        assert signs.show_waiting({late: "why"}) == [(late, "why")]
        assert signs.show_waiting({late: "why"}) == []
        signs.end_progress("job1")
        signs.clear()

    assert signs.show_waiting({late: "why"}) == []
    assert (layout.outbox / "late.waiting" / "why.txt").exists()


def test_outbox_that_is_gone_costs_the_signs_and_nothing_else(layout: Layout, signs: StatusFolders) -> None:
    header = accept_bytes(layout, THREE)
    disk.remove_tree(layout.outbox)

    signs.clear()
    signs.show_progress(header, {"done": 1})
    signs.show_waiting({Key("clinical", "a.jsonl"): "why"})
    signs.end_progress("job1")
    assert signs.show_waiting({}) == []


def test_sign_that_cannot_be_written_leaves_no_folder(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = StatusFolders(layout)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "write_text", fail)
    for _ in range(3):
        signs.show_waiting({Key("", "notes.jsonl"): "it waits"})
    assert list(layout.outbox.iterdir()) == []

    monkeypatch.undo()
    signs.show_waiting({Key("", "notes.jsonl"): "it waits"})
    assert [item.name for item in layout.outbox.iterdir()] == ["notes.waiting"]
