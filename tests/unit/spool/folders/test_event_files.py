"""The files of root/events/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.core.events import EventKind, NotableEvent
from obcd.errors import InputError
from obcd.spool.folders.event_files import (
    EventFile,
    close_folder,
    find_events,
    folder_of,
    open_folder,
    read_event,
    remove_event,
    write_event,
)


def an_event(name: str = "evt_disk_1", text: str = "the disk is full") -> NotableEvent:
    return NotableEvent(id=name, kind=EventKind.DISK, at=1.5, text=text, facts={"seconds": 3})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    open_folder(tmp_path)
    return tmp_path


def test_an_event_is_read_as_it_was_written_until_it_is_removed(root: Path) -> None:
    assert write_event(root, an_event("evt_2"), {"mail"})
    assert write_event(root, an_event("evt_1"))

    assert find_events(root) == ["evt_1", "evt_2"]
    assert read_event(root, "evt_1") == EventFile(an_event("evt_1"))
    assert read_event(root, "evt_2") == EventFile(an_event("evt_2"), frozenset({"mail"}))
    remove_event(root, "evt_1")
    remove_event(root, "evt_1")
    assert find_events(root) == ["evt_2"]
    assert read_event(root, "evt_1") is None


def test_only_the_daemon_may_look_into_the_folder(root: Path) -> None:
    write_event(root, an_event())

    assert folder_of(root).stat().st_mode & 0o777 == 0o700
    assert (folder_of(root) / "evt_disk_1.json").stat().st_mode & 0o777 == 0o600


def test_a_second_version_takes_the_place_of_the_first(root: Path) -> None:
    write_event(root, an_event(text="one"))
    write_event(root, an_event(text="two"))

    found = read_event(root, "evt_disk_1")
    assert found is not None
    assert found.event.text == "two"


def test_what_obcd_did_not_write_is_no_event(root: Path) -> None:
    write_event(root, an_event())
    folder = folder_of(root)
    whole = (folder / "evt_disk_1.json").read_text()
    (folder / "evt_other.json").write_text(whole)  # its id is another one
    (folder / ".evt_3.json.tmp").write_text(whole)
    (folder / "notes.txt").write_text("x")
    (folder / "evt_torn.json").write_text(whole[:-9])
    (folder / "evt_list.json").write_text("[]")
    (folder / "evt_deep.json").write_text("[" * 100_000)
    (folder / "evt_long.json").write_text(whole + " " * 2**20)
    (folder / "evt_sent.json").write_text(json.dumps({**json.loads(whole), "id": "evt_sent", "sent": 3}))
    (folder / "evt_folder.json").mkdir()

    assert len(find_events(root)) == 8
    assert [name for name in find_events(root) if read_event(root, name)] == ["evt_disk_1"]


def test_without_the_folder_no_event_is_written(root: Path) -> None:
    write_event(root, an_event("evt_1"))
    close_folder(root)
    close_folder(root)

    assert not write_event(root, an_event("evt_2"))
    assert find_events(root) == []
    assert not folder_of(root).exists()


@pytest.mark.parametrize("name", ["", "../evt", "evt.x", "evt\n", "é", "x" * 201])
def test_an_id_that_is_no_word_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a word"):
        write_event(root, an_event(name))


def test_a_folder_that_others_can_open_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path).mkdir(mode=0o755)

    with pytest.raises(InputError, match="chmod 0700"):
        open_folder(tmp_path)
