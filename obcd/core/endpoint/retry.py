"""How long to wait before the next attempt: growing pauses with jitter, the same for requests and endpoints."""

from __future__ import annotations

import zlib

#: First and longest pause of a request, in seconds.
REQUEST_BASE, REQUEST_LIMIT = 0.5, 30.0
#: First and longest pause of an endpoint that does not serve, in seconds.
ENDPOINT_BASE, ENDPOINT_LIMIT = 1.0, 60.0


def pause(count: int, base: float, limit: float, key: str = "") -> float:
    """Return the seconds to wait after the `count`-th failure in a row (from 1).

    It doubles from `base` up to `limit`, then loses up to a quarter, by a hash of `key`: what failed together must not
    come back together, and the same inputs always wait the same time.
    """
    grown = min(limit, base * 2.0 ** min(max(count, 1) - 1, 30))
    return grown * (1 - zlib.crc32(f"{key}/{count}".encode()) / 2**34)
