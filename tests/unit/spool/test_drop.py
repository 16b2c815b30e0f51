from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.spool.drop import submit
from obcd.spool.inbox import Inbox, Marker
from obcd.spool.intake import Accepted, accept
from obcd.spool.layout import Layout
from tests.unit.spool.spools import THREE, make_layout, order_of


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path / "root", "clinical")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(THREE)
    return path


def listing(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.inbox.iterdir() if path.is_file())


def test_submitted_file_lies_in_the_inbox_with_a_marker_that_is_right(layout: Layout, source: Path) -> None:
    done = submit(layout.inbox, source)

    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]
    assert (done.name, done.prompts, done.bad) == ("notes.jsonl", 3, 0)
    marker = Marker.parse((layout.inbox / "notes.jsonl.done").read_bytes())
    assert marker == Marker(hashlib.sha256(THREE).hexdigest(), len(THREE), 3, done.drop_id)
    assert source.exists()


def test_submitted_file_is_taken_at_the_first_look(layout: Layout, source: Path) -> None:
    done = submit(layout.inbox, source, "clinical")

    (drop,) = Inbox(layout.inbox, ["clinical"], 5.0, require_marker=True).scan(0.0)
    verdict = accept(layout, order_of(drop))

    assert isinstance(verdict, Accepted)
    assert (verdict.header.drop_id, verdict.header.profile) == (done.drop_id, "clinical")


def test_name_is_given_its_suffix(layout: Layout, source: Path) -> None:
    submit(layout.inbox, source, name="monday")

    assert listing(layout) == ["monday.jsonl", "monday.jsonl.done"]


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "a\nb", "x" * 200])
def test_name_that_is_no_plain_file_name_is_refused(layout: Layout, source: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a job's name"):
        submit(layout.inbox, source, name=name)
    assert listing(layout) == []


def test_bad_lines_are_counted_and_the_first_ten_told(layout: Layout, source: Path) -> None:
    source.write_bytes(THREE + b"x\n" * 12)

    done = submit(layout.inbox, source)

    assert (done.prompts, done.bad, len(done.bad_lines)) == (3, 12, 10)
    assert done.bad_lines[0][0] == 4


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "there is no prompt in it"),
        (b"\n \n", "there is no prompt in it"),
        (b"x\n", "not one of its 1 lines is a prompt"),
        (b"\x1f\x8b\x08", "gzip"),
        (b'{"prompt": "' + b"x" * 2000 + b'"}\n', "line 1 is longer than 1024 bytes"),
    ],
)
def test_what_is_no_prompt_file_is_refused_before_it_is_dropped(
    layout: Layout, source: Path, content: bytes, why: str
) -> None:
    source.write_bytes(content)

    with pytest.raises(InputError, match=why):
        submit(layout.inbox, source, max_line_bytes=1024)
    assert listing(layout) == []


def test_name_that_lies_in_the_inbox_already_is_refused(layout: Layout, source: Path) -> None:
    submit(layout.inbox, source)

    with pytest.raises(InputError, match="lies in the inbox already"):
        submit(layout.inbox, source)


def test_profile_without_a_folder_is_refused(layout: Layout, source: Path) -> None:
    with pytest.raises(InputError, match="no profile"):
        submit(layout.inbox, source, "clinicl")


def test_source_that_is_not_there_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*missing\.jsonl: No such file"):
        submit(layout.inbox, tmp_path / "missing.jsonl")
    assert listing(layout) == []


def test_inbox_need_not_be_readable(layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object = ".") -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)

    submit(layout.inbox, source)

    monkeypatch.undo()
    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]


def test_drop_that_fails_half_way_leaves_nothing(layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(InputError, match="No space left"):
        submit(layout.inbox, source)
    assert listing(layout) == []
