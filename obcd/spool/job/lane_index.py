"""The lanes of a job on disk: `jobs/<id>/lanes`, written when the job is accepted, if there are any.

    head      magic, CRC32 of the rest, number of requests, number of lanes
    numbers   four bytes per request: the number of its lane, from 1; 0: none
    shared    four bytes per lane: the bytes that its requests share

The order of requests follows from it, and nothing else: without a valid file a job runs without lanes.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from itertools import accumulate
from pathlib import Path
from typing import IO

from obcd.core.pending.lanes import LaneIndex
from obcd.core.request.prefixes.lane_choice import FoundLanes

NAME = "lanes"
#: In the order of this machine's bytes: a file of another order has another magic number.
_HEAD = struct.Struct("=IIII")
_MAGIC = 0x4F424C31  # "OBL1"


def write_lanes(file: IO[bytes], lanes: FoundLanes) -> None:
    """Write the lanes of a job to an empty file; the caller syncs it."""
    body = lanes.numbers.tobytes() + lanes.shared.tobytes()
    file.write(_HEAD.pack(_MAGIC, zlib.crc32(body), len(lanes.numbers), len(lanes.shared)) + body)


def read_lanes(folder: Path, requests: int) -> LaneIndex | None:
    """Return the lanes of a job; None if it has none, or if the file is damaged or foreign.

    Takes half a second for a million requests.

    Args:
        requests: How many requests the job has.
    """
    try:
        with open(folder / NAME, "rb") as file:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return None
            magic, checksum, count, lanes = _HEAD.unpack(head)
            if magic != _MAGIC or count != requests or not 0 < lanes <= requests:
                return None
            if os.fstat(file.fileno()).st_size != _HEAD.size + 4 * (requests + lanes):
                return None
            body = file.read()
    except OSError:
        return None
    if len(body) != 4 * (requests + lanes) or zlib.crc32(body) != checksum:
        return None
    numbers, shared = array("I", body[: 4 * requests]), array("I", body[4 * requests :])
    return _index(numbers, shared) if max(numbers) <= lanes else None


def _index(numbers: array[int], shared: array[int]) -> LaneIndex:
    counts = [0] * (len(shared) + 1)
    for number in numbers:
        counts[number] += 1
    ascending = array("I", sorted(range(len(numbers)), key=numbers.__getitem__))  # stable: by ordinal within a lane
    return LaneIndex(ascending[counts[0] :], array("I", accumulate(counts[1:], initial=0)), shared)
