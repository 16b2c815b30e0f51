from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import InputError
from obcd.results.reading.sources import find_sources
from obcd.spool.folders import acl
from obcd.text_files import LeftOut
from tests.golden.wording import wording
from tests.unit.results.conftest import Publish


def names(folder: Path, ignore: Path | None = None) -> list[str]:
    return [source.place if isinstance(source, LeftOut) else source.name for source in find_sources(folder, ignore)]


def test_per_prompt_files_come_by_time_and_number_before_other_names(tmp_path: Path) -> None:
    for name in ["1700000000-10.json", "1700000000-9.JSON", "999-1.json", "b.json", "a.json", "notes.txt", ".x.json"]:
        (tmp_path / name).write_text("{}")

    assert names(tmp_path) == ["999-1.json", "1700000000-9.JSON", "1700000000-10.json", "a.json", "b.json"]


def test_published_folders_come_by_name_at_any_depth(tmp_path: Path, publish: Publish) -> None:
    publish("ward/zeta", {1: "{}"})
    publish("ward/alpha", {1: "{}"})
    publish("notes", {1: "{}"})
    (tmp_path / "1-1.json").write_text("{}")

    assert names(tmp_path) == ["1-1.json", "notes", "ward/alpha", "ward/zeta"]


def test_folder_itself_can_be_published(publish: Publish) -> None:
    assert names(publish("notes", {1: "{}"})) == ["notes"]


def test_current_folder_has_its_own_name(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(publish("notes", {1: "{}"}))

    assert names(Path()) == ["notes"]


def test_job_whose_lines_all_failed_is_published_too(publish: Publish) -> None:
    folder = publish("notes", {}, failed={1: "timeout"})
    (folder / "responses.jsonl").unlink()

    assert names(folder) == ["notes"]


@pytest.mark.parametrize("name", ["notes.partial", "notes.waiting", "notes.rejected", ".obcd"])
def test_unfinished_and_hidden_folders_are_not_looked_into(tmp_path: Path, publish: Publish, name: str) -> None:
    publish(f"{name}/inner", {1: "{}"})

    assert names(tmp_path) == []


def test_unfinished_folder_that_is_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.partial").mkdir()

    with pytest.raises(InputError, match=wording("holds-no-answers")):
        find_sources(tmp_path / "notes.partial")


def test_links_are_not_followed_round_in_a_circle(tmp_path: Path, publish: Publish) -> None:
    publish("notes", {1: "{}"})
    (tmp_path / "loop").symlink_to(tmp_path)

    assert names(tmp_path) == ["notes"]


def test_earlier_output_among_the_inputs_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "1-1.json").write_text("{}")
    (tmp_path / "merged.json").write_text("[]")

    assert names(tmp_path, ignore=tmp_path / "merged.json") == ["1-1.json"]


def test_names_are_safe_to_print(tmp_path: Path) -> None:
    for name in [b"\xff.json", b"a\x1b[2J.json", b"b\n.json"]:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_text("{}")

    assert names(tmp_path) == [r"a\x1b[2J.json", r"b\n.json", r"\udcff.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_folder_that_cannot_be_read_is_named(tmp_path: Path, publish: Publish) -> None:
    publish("notes", {1: "{}"})
    (tmp_path / "theirs").mkdir(mode=0)

    assert names(tmp_path) == ["notes", "theirs/"]


def test_home_of_another_submitter_is_passed_over(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("notes", {1: "{}"})
    theirs, real = tmp_path / "theirs", os.scandir
    theirs.mkdir()
    monkeypatch.setattr(acl, "readers", lambda path: (61002,) if path == theirs else ())

    def closed(path: Any) -> Any:
        if str(path) == str(theirs):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", closed)

    assert names(tmp_path) == ["notes"]
    monkeypatch.setattr(acl, "readers", lambda path: ())
    assert names(tmp_path) == ["notes", "theirs/"]


def test_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=wording("there-is-no-folder-no")):
        find_sources(tmp_path / "no")


def test_file_of_a_published_folder_is_answered_with_that_folder(tmp_path: Path, publish: Publish) -> None:
    folder = publish("notes", {1: "a"})

    with pytest.raises(InputError, match=wording("is-not-a-folder-give", folder)):
        find_sources(folder / "responses.jsonl")
