"""The lanes of a job on disk: there and back, and no lanes from whatever else the file holds."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

import pytest

from obcd.core.request.prefixes.lane_choice import FoundLanes
from obcd.spool.job.lane_index import NAME, read_lanes, write_lanes

FOUND = FoundLanes(array("I", [1, 0, 2, 1, 0, 2, 2]), array("I", [2048, 600]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with open(tmp_path / NAME, "wb") as file:
        write_lanes(file, FOUND)
    return tmp_path


def test_lanes_come_back_sorted_by_lane(folder: Path) -> None:
    lanes = read_lanes(folder, 7)

    assert lanes is not None
    assert list(lanes.members) == [0, 3, 2, 5, 6]
    assert list(lanes.starts) == [0, 2, 5]
    assert list(lanes.shared) == [2048, 600]
    assert (folder / NAME).stat().st_size <= 16 * 7


def test_missing_file_is_no_lanes(tmp_path: Path) -> None:
    assert read_lanes(tmp_path, 7) is None


def test_file_of_another_job_is_no_lanes(folder: Path) -> None:
    assert read_lanes(folder, 6) is None
    assert read_lanes(folder, 8) is None


def test_folder_in_its_place_is_no_lanes(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()

    assert read_lanes(tmp_path, 7) is None


def test_every_torn_file_is_no_lanes(folder: Path) -> None:
    whole = (folder / NAME).read_bytes()

    for length in range(len(whole)):
        (folder / NAME).write_bytes(whole[:length])
        assert read_lanes(folder, 7) is None
    (folder / NAME).write_bytes(whole + b"\0")
    assert read_lanes(folder, 7) is None


def test_every_damaged_byte_is_no_lanes(folder: Path) -> None:
    whole = (folder / NAME).read_bytes()

    for place in range(len(whole)):
        (folder / NAME).write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        assert read_lanes(folder, 7) is None


def test_number_of_no_lane_is_no_lanes(tmp_path: Path) -> None:
    with open(tmp_path / NAME, "wb") as file:
        write_lanes(file, FoundLanes(array("I", [1, 3, 1]), array("I", [700])))

    assert read_lanes(tmp_path, 3) is None


def test_giant_counts_in_the_head_take_no_memory(folder: Path) -> None:
    whole = bytearray((folder / NAME).read_bytes())
    struct.pack_into("=II", whole, 8, 2**32 - 1, 2**32 - 1)
    (folder / NAME).write_bytes(whole)

    assert read_lanes(folder, 2**32 - 1) is None
