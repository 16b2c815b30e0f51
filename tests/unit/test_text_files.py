from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.text_files import bounded_lines, output_file, output_stream
from tests.golden.wording import wording


def write_and_fail(target: Path, fault: BaseException) -> None:
    with output_file(target, overwrite=True) as file:
        file.write(b"new")
        raise fault


def test_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.json"

    with output_file(target, overwrite=False) as file:
        file.write(b"whole")
        assert not target.exists()

    assert target.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["out.json"]


def test_file_is_durable_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    with output_file(tmp_path / "out.json", overwrite=True) as file:
        file.write(b"whole")

    assert steps == ["file", "rename", "folder"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), ValueError(), OSError(28, "No space left on device")])
def test_interrupted_writing_leaves_the_old_file_and_no_other(tmp_path: Path, fault: BaseException) -> None:
    target = tmp_path / "out.json"
    target.write_bytes(b"old")

    with pytest.raises((type(fault), InputError)):
        write_and_fail(target, fault)

    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.json"]


def test_full_disk_is_one_sentence_with_the_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*out\.json: No space left on device"):
        write_and_fail(tmp_path / "out.json", OSError(28, "No space left on device"))


def test_existing_file_is_not_touched_without_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_bytes(b"old")

    with pytest.raises(InputError, match="--force"), output_file(target, overwrite=False):
        pytest.fail("refused before any work")

    assert target.read_bytes() == b"old"


def test_file_made_by_another_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.json"

    with pytest.raises(InputError, match="--force"), output_file(target, overwrite=False):
        target.write_bytes(b"theirs")

    assert target.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out.json"]


def test_file_system_without_hard_links_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with output_file(tmp_path / "out.json", overwrite=False) as file:
        file.write(b"whole")

    assert (tmp_path / "out.json").read_bytes() == b"whole"


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(b"old")
    (tmp_path / "link.json").symlink_to("real.json")

    with output_file(tmp_path / "link.json", overwrite=True) as file:
        file.write(b"new")

    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no/out.json", wording("folder-does-not-exist")),
        (".", wording("no-regular-file")),
        ("/dev/null", "not a regular"),
    ],
)
def test_unusable_target_is_refused_before_any_work(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason), output_file(tmp_path / name, overwrite=True):
        pytest.fail("refused before any work")


def test_new_file_has_the_rights_that_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with output_file(tmp_path / "out.json", overwrite=True):
            pass
    finally:
        os.umask(before)

    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o640


def test_stream_gets_all_or_nothing() -> None:
    out = io.BytesIO()

    def write_half() -> None:
        with output_stream(out) as file:
            file.write(b"half")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        write_half()
    assert out.getvalue() == b""

    with output_stream(out) as file:
        file.write(b"whole")
    assert out.getvalue() == b"whole"


def test_long_line_is_cut_and_the_next_one_is_whole() -> None:
    stream = io.BytesIO(b"abcdefghijk\nabcd\n\nxy\rz\xe2\x80\xa8")

    assert list(bounded_lines(stream, 4)) == [b"abcde", b"abcd\n", b"\n", b"xy\rz\xe2"]
