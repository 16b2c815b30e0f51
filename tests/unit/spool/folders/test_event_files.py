"""The files of root/events/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.core.events import EventKind, NotableEvent
from obcd.errors import InputError
from obcd.spool.folders.event_files import EventFile, folder_of, read_events, remove_event, write_event


def an_event(name: str = "evt_disk_1", text: str = "the disk is full") -> NotableEvent:
    return NotableEvent(id=name, kind=EventKind.DISK, at=1.5, text=text, facts={"seconds": 3})


def test_an_event_is_read_as_it_was_written_until_it_is_removed(tmp_path: Path) -> None:
    write_event(tmp_path, an_event("evt_1"))
    write_event(tmp_path, an_event("evt_2"), {"mail"})

    assert list(read_events(tmp_path)) == [
        EventFile(an_event("evt_1")),
        EventFile(an_event("evt_2"), frozenset({"mail"})),
    ]
    remove_event(tmp_path, "evt_1")
    remove_event(tmp_path, "evt_1")
    assert [item.event.id for item in read_events(tmp_path)] == ["evt_2"]


def test_only_the_daemon_may_look_into_the_folder(tmp_path: Path) -> None:
    write_event(tmp_path, an_event())

    assert folder_of(tmp_path).stat().st_mode & 0o777 == 0o700
    assert (folder_of(tmp_path) / "evt_disk_1.json").stat().st_mode & 0o777 == 0o600


def test_a_second_version_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write_event(tmp_path, an_event(text="one"))
    write_event(tmp_path, an_event(text="two"))

    assert [item.event.text for item in read_events(tmp_path)] == ["two"]


def test_other_files_are_left_out(tmp_path: Path) -> None:
    write_event(tmp_path, an_event())
    folder = folder_of(tmp_path)
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

    assert [item.event.id for item in read_events(tmp_path)] == ["evt_disk_1"]


def test_no_folder_means_no_events(tmp_path: Path) -> None:
    assert list(read_events(tmp_path)) == []


@pytest.mark.parametrize("name", ["", "../evt", "evt.x", "evt\n", "é", "x" * 201])
def test_an_id_that_is_no_word_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a word"):
        write_event(tmp_path, an_event(name))


def test_a_folder_that_others_can_open_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path).mkdir(mode=0o755)

    with pytest.raises(InputError, match="chmod 0700"):
        write_event(tmp_path, an_event())
