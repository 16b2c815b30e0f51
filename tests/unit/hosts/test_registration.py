from __future__ import annotations

import os
from pathlib import Path

import pytest

from obcd.hosts.record import HostState, RegisteredEndpoint, parse_record
from obcd.hosts.registration import KEPT_SECONDS, RECORD_MODE, Registration

ENDPOINT = RegisteredEndpoint(url="http://10.0.0.11:11432", gpu_uuid="GPU-1", slots=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(path: Path) -> tuple[int, str, int]:
    record = parse_record(path.read_bytes())
    return record.sequence, record.state, len(record.endpoints)


def test_each_writing_replaces_the_record_with_the_next_sequence(folder: Path) -> None:
    registration = Registration(folder, "gpu1", by="slurm 1")

    assert registration.write(HostState.SERVING, [ENDPOINT]) == ""
    first = registration.path.stat().st_ino
    assert registration.write(HostState.DRAINING, [ENDPOINT]) == ""

    assert read(folder / "gpu1.json") == (2, "draining", 1)
    assert registration.path.stat().st_ino != first  # a reader of the first one has it whole
    assert os.listdir(folder) == ["gpu1.json"]


def test_end_is_written_as_gone_and_only_after_a_record(folder: Path) -> None:
    registration = Registration(folder, "gpu1")
    registration.close()
    assert os.listdir(folder) == []

    registration.write(HostState.SERVING, [ENDPOINT])
    registration.close()

    assert read(folder / "gpu1.json") == (2, "gone", 0)


def test_record_is_for_the_group_whatever_the_umask_is(folder: Path) -> None:
    old = os.umask(0o077)
    try:
        Registration(folder, "gpu1").write(HostState.SERVING)
    finally:
        os.umask(old)

    assert (folder / "gpu1.json").stat().st_mode & 0o777 == RECORD_MODE


def test_seconds_left_are_counted_at_each_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1000.0, 1010.0, 2000.0])
    monkeypatch.setattr("obcd.hosts.registration.wall", lambda: next(times))
    registration = Registration(folder, "gpu1", until=1600.0)

    left = []
    for _ in range(3):
        registration.write(HostState.SERVING)
        left.append(parse_record(registration.path.read_bytes()).seconds_left)

    assert left == [600.0, 590.0, 0.0]


def test_folder_that_is_away_is_reported_and_not_raised(folder: Path) -> None:
    registration = Registration(folder / "hosts", "gpu1")

    assert registration.write(HostState.SERVING)
    (folder / "hosts").mkdir()
    assert registration.write(HostState.SERVING) == ""

    assert read(registration.path) == (2, "serving", 0)  # a failed writing counts too


def test_folder_that_is_a_file_is_reported(folder: Path) -> None:
    (folder / "hosts").write_text("")

    assert Registration(folder / "hosts", "gpu1").write(HostState.SERVING)


def test_later_start_of_the_same_name_takes_over(folder: Path) -> None:
    first, second = Registration(folder, "gpu1"), Registration(folder, "gpu1")
    first.write(HostState.SERVING)
    second.write(HostState.SERVING)

    assert first.write(HostState.SERVING)
    assert first.close()

    assert read(folder / "gpu1.json") == (1, "serving", 0)
    assert second.write(HostState.SERVING) == ""


def test_removed_record_is_written_again(folder: Path) -> None:
    registration = Registration(folder, "gpu1")
    registration.write(HostState.SERVING)
    registration.path.unlink()

    assert registration.write(HostState.SERVING) == ""
    assert read(folder / "gpu1.json") == (2, "serving", 0)


def test_start_removes_what_earlier_hosts_left_and_nothing_else(folder: Path) -> None:
    for name, age in (("old", 2 * KEPT_SECONDS), ("fresh", 0.0)):
        ended = Registration(folder, name)
        ended.write(HostState.SERVING)
        ended.close()
        os.utime(ended.path, (0, ended.path.stat().st_mtime - age))
    silent = Registration(folder, "silent")
    silent.write(HostState.SERVING)
    torn = f".torn.{'0a' * 16}.tmp"
    (folder / torn).write_text("{")
    (folder / ".editor.tmp").write_text("of another program")
    (folder / "notes.json").write_text("{")
    for name in ("silent.json", torn, ".editor.tmp", "notes.json"):
        os.utime(folder / name, (0, 1e9))

    Registration(folder, "new").write(HostState.SERVING)

    assert sorted(os.listdir(folder)) == [".editor.tmp", "fresh.json", "new.json", "notes.json", "silent.json"]


@pytest.mark.parametrize("name", ["", ".gpu1", "a/b", "a b", "ä", "x" * 101, "a\n"])
def test_name_that_is_no_file_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Registration(folder, name)
