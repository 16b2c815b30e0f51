"""Which requests are the same question: a key of all that an answer depends on. Pure.

Only what is answered alike each time has one: at temperature 0, with a seed, or vectors. What Ollama takes from the
model itself (its own temperature, say) is not known here, so it has to be asked for.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence

from obcd.core.request.records import (
    PATHS,
    JobSettings,
    Kind,
    Request,
    canonical_model,
    format_of,
    request_body,
    request_options,
    whole_option,
)
from obcd.core.request.tools import strict_parameters

#: Changes whenever the same request would get another record: how repairs are asked, say.
VERSION = 2
#: Bytes of a digest by which requests of one job are told apart.
KEPT_BYTES = 16
#: Places of the first table; a power of two.
FIRST_PLACES = 1024


class DuplicateFinder:
    """Finds the first equal one of each request of a job, as they are read.

    Memory: 16 bytes a request, and from 6 to 12 for each that is not the same as another one.
    """

    def __init__(self) -> None:
        #: The digests of all requests, one behind the other.
        self._digests = bytearray()
        #: Hash table with linear probing: ordinal plus one, 0 where a place is free.
        self._table = array("I", bytes(4 * FIRST_PLACES))
        self._distinct = 0
        #: How many were the same as one before them.
        self.repeated = 0

    def take(self, digest: bytes | None) -> int:
        """Take in the next request; returns the ordinal of the first equal one, its own where it is that.

        Args:
            digest: Equal for equal requests; None for what is like no other.
        """
        ordinal = len(self._digests) // KEPT_BYTES
        kept = digest[:KEPT_BYTES] if digest is not None else bytes(KEPT_BYTES)
        self._digests += kept
        if digest is None:
            return ordinal
        place = self._find(kept)
        if self._table[place]:
            self.repeated += 1
            return self._table[place] - 1
        self._table[place] = ordinal + 1
        self._distinct += 1
        if 3 * self._distinct > 2 * len(self._table):
            self._grow()
        return ordinal

    def _find(self, digest: bytes) -> int:
        """Return the place where a digest is in the table, or belongs."""
        table, digests, mask = self._table, self._digests, len(self._table) - 1
        place = int.from_bytes(digest[:8], "little") & mask
        while (found := table[place]) and digests[(found - 1) * KEPT_BYTES : found * KEPT_BYTES] != digest:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = self._table
        self._table = array("I", bytes(8 * len(old)))
        for found in old:
            if found:
                self._table[self._find(bytes(self._digests[(found - 1) * KEPT_BYTES : found * KEPT_BYTES]))] = found


def times_of(firsts: Sequence[int]) -> array[int]:
    """Return how many requests have the result of each: itself and those like it; 0 for those that are like another.

    Args:
        firsts: By ordinal, the first equal one.
    """
    times = array("I", bytes(4 * len(firsts)))
    for first in firsts:
        times[first] += 1
    return times


def is_repeatable(request: Request, settings: JobSettings) -> bool:
    """Tell whether the same weights give a request the same answer each time, as far as servers keep that."""
    if request.kind is Kind.EMBED:
        return True
    options = request_options(request, settings)
    seed = whole_option(options, "seed", -1)  # by -1 Ollama draws one
    return options.get("temperature") == 0 or seed >= 0


def key_of(request: Request, settings: JobSettings, digest: str) -> bytes | None:
    """Return what is equal for equal questions to equal weights, 32 bytes; None where the answer is not repeatable.

    The order of the options is of no meaning; that of all else is (a grammar follows the order of its schema's keys).

    Args:
        digest: Of the weights that answer.
    """
    return digest_of(request, settings, digest) if is_repeatable(request, settings) else None


def digest_of(request: Request, settings: JobSettings, apart: str = "") -> bytes:
    """Return what is equal for requests that ask the same in the same way, 32 bytes, repeatable or not.

    Args:
        apart: What else tells them apart.
    """
    body = request_body(request, settings)
    body["model"] = canonical_model(body["model"])
    body["options"] = dict(sorted(body["options"].items()))
    wanted = format_of(request, settings)
    is_held = wanted is not None or strict_parameters(request.tools or ())
    held_to = [wanted, settings.send_schema, settings.repairs] if is_held else None
    document = [VERSION, apart, PATHS[request.kind], body, held_to]
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode("ascii")).digest()
