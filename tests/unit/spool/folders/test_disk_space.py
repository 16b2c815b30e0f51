"""When there is too little room to begin anything, as a table; and the ballast, as a real file."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from obcd.spool.folders.disk_space import (
    BALLAST_BYTES,
    Ballast,
    Space,
    ballast_bytes,
    find_shortage,
    least_bytes,
    least_files,
    read_space,
    shown_size,
)
from tests.golden.wording import wording

KIB, MIB, GIB = 2**10, 2**20, 2**30
ROOT = Path("/spool")


def space(free: int, size: int = 100 * GIB, files: int = 10**6, most_files: int = 10**7) -> Space:
    return Space(free=free, size=size, free_inodes=files, inodes=most_files, is_read_only=False)


@pytest.mark.parametrize(
    ("found", "wanted", "is_short", "owed", "is_refused"),
    [
        # the default, on a large disk: 256 MiB, and a quarter more to go on
        (space(256 * MIB), None, False, 0, False),
        (space(256 * MIB - 1), None, False, 0, True),
        (space(320 * MIB - 1), None, True, 0, True),
        (space(320 * MIB), None, True, 0, False),
        # and on a small one: a twentieth of it
        (space(52 * KIB, MIB), None, False, 0, False),
        (space(51 * KIB, MIB), None, False, 0, True),
        (space(16 * KIB, 64 * KIB), None, False, 0, False),
        # what the configuration says counts as it is
        (space(10 * GIB), 10 * GIB, False, 0, False),
        (space(10 * GIB - 1), 10 * GIB, False, 0, True),
        (space(100 * GIB), 200 * GIB, False, 0, True),
        (space(0), 0, False, 0, False),
        (space(0), 0, True, 0, False),
        # what has to be written first
        (space(300 * MIB), None, False, 44 * MIB, False),
        (space(300 * MIB), None, False, 45 * MIB, True),
        (space(0), 0, False, 1, True),
        # files (inodes)
        (space(GIB, files=999), None, False, 0, True),
        (space(GIB, files=1000), None, False, 0, False),
        (space(GIB, files=1249), None, True, 0, True),
        (space(GIB, files=1250), None, True, 0, False),
        (space(GIB, files=5, most_files=100), None, False, 0, False),
        (space(GIB, files=4, most_files=100), None, False, 0, True),
        # a filesystem that does not count
        (space(0, size=0), None, False, 0, False),
        (space(GIB, files=0, most_files=0), None, False, 0, False),
    ],
)
def test_nothing_is_begun_where_there_is_too_little_room(
    found: Space, wanted: int | None, is_short: bool, owed: int, is_refused: bool
) -> None:
    reason = find_shortage(ROOT, found, wanted, is_short=is_short, owed=owed)

    assert bool(reason) is is_refused
    assert not reason or "/spool" in reason


def test_reason_names_what_is_short_and_the_key() -> None:
    assert find_shortage(ROOT, space(12 * MIB), None, is_short=False) == (wording("only-12-mib-are-free-where"))
    assert find_shortage(ROOT, space(GIB, files=3), None, is_short=False) == (wording("only-3-more-files-can-be"))


def test_read_only_filesystem_has_no_room() -> None:
    found = Space(free=GIB, size=GIB, free_inodes=0, inodes=0, is_read_only=True)

    assert "read-only" in find_shortage(ROOT, found, 0, is_short=False)


def test_what_is_set_aside_fits_the_disk() -> None:
    assert (least_bytes(space(0, MIB), None), least_files(space(0, MIB, 0, 100))) == (MIB // 20, 5)
    assert [ballast_bytes(space(0, size)) for size in (64 * KIB, MIB, 100 * MIB, GIB, 0)] == [
        655,
        MIB // 100,
        MIB,
        BALLAST_BYTES,
        BALLAST_BYTES,
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (2048, "2.0 KiB"), (150 * KIB, "150 KiB"), (int(1.5 * GIB), "1.5 GiB")],
)
def test_size_is_shown_for_people(count: int, text: str) -> None:
    assert shown_size(count) == text


def test_space_is_that_of_the_filesystem(tmp_path: Path) -> None:
    space = read_space(tmp_path)

    assert 0 < space.free <= space.size
    assert not space.is_read_only


# --- the ballast -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ballast(tmp_path: Path) -> Ballast:
    return Ballast(tmp_path / "ballast")


def test_ballast_takes_blocks_and_gives_them_back(ballast: Ballast, tmp_path: Path) -> None:
    assert (ballast.size(), ballast.give_up()) == (0, False)

    ballast.make(MIB)

    status = (tmp_path / "ballast").stat()
    assert (ballast.size(), status.st_blocks * 512 >= MIB, status.st_mode & 0o777) == (MIB, True, 0o600)
    assert (ballast.give_up(), ballast.size()) == (True, 0)
    assert list(tmp_path.iterdir()) == []


def test_ballast_that_finds_no_room_leaves_nothing(ballast: Ballast, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large") as refusal:
            ballast.make(MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert refusal.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_ballast_is_not_made_through_a_link(ballast: Ballast, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    os.symlink("other", tmp_path / "ballast")
    assert ballast.size() == 0

    ballast.make(8192)

    assert (tmp_path / "other").read_text() == "kept"
    assert ballast.size() == 8192
