"""Prefix lanes: requests of one job that share a long beginning of their prompts. Pure."""

from __future__ import annotations

from array import array
from typing import NamedTuple


class LaneIndex(NamedTuple):
    """The requests of each lane of a job.

    Attributes:
        members: Ordinals, sorted by lane, then by ordinal.
        starts: By lane, the place in `members` of its first request; one more at the end.
        shared: By lane, the bytes that its requests share beyond what all requests of their signature share.
    """

    members: array[int]
    starts: array[int]
    shared: array[int]
