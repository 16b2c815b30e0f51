"""Which requests are equal: a key of everything on which an answer depends. Pure.

Only requests with the same answer each time have a key: at temperature 0, with a seed, or for vectors. Values that
Ollama takes from the model itself (e.g. its own temperature) are not known here, so they have to be set.
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

#: Changes whenever the same request would get another record, e.g. by another repair prompt.
VERSION = 2
#: Bytes of a digest that distinguish the requests of one job.
KEPT_BYTES = 16
#: Places of the first table; a power of two.
FIRST_PLACES = 1024


class DuplicateFinder:
    """Finds for each request of a job the first equal one, while they are read.

    Memory: 16 bytes a request, and 6 to 12 more for each that is not equal to another one.
    """

    def __init__(self) -> None:
        #: The digests of all requests, one after the other.
        self._digests = bytearray()
        #: Hash table with linear probing: ordinal plus one, 0 if a place is free.
        self._table = array("I", bytes(4 * FIRST_PLACES))
        self._distinct = 0
        #: How many requests were equal to an earlier one.
        self.repeated = 0

    def take(self, digest: bytes | None) -> int:
        """Add the next request; return the ordinal of the first equal one, or its own if there is none.

        Args:
            digest: Equal for equal requests; None for a request that is equal to no other.
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
        """Return the place of a digest in the table, or the place where it belongs."""
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
    """Return how many requests have the result of each: itself and its equals; 0 if it is equal to an earlier one.

    Args:
        firsts: By ordinal, the first equal one.
    """
    times = array("I", bytes(4 * len(firsts)))
    for first in firsts:
        times[first] += 1
    return times


def is_repeatable(request: Request, settings: JobSettings) -> bool:
    """Return whether the same weights give a request the same answer each time, as far as servers ensure that."""
    if request.kind is Kind.EMBED:
        return True
    options = request_options(request, settings)
    seed = whole_option(options, "seed", -1)  # for -1 Ollama draws one
    return options.get("temperature") == 0 or seed >= 0


def key_of(request: Request, settings: JobSettings, digest: str) -> bytes | None:
    """Return a key that is equal for equal questions to equal weights, 32 bytes; None if the answer is not repeatable.

    The order of the options does not matter; any other order does (a grammar follows the order of its schema's keys).

    Args:
        digest: Of the weights that answer.
    """
    return digest_of(request, settings, digest) if is_repeatable(request, settings) else None


def digest_of(request: Request, settings: JobSettings, apart: str = "") -> bytes:
    """Return a digest that is equal for requests with the same content, 32 bytes, repeatable or not.

    Args:
        apart: Anything else that distinguishes them.
    """
    body = request_body(request, settings)
    body["model"] = canonical_model(body["model"])
    body["options"] = dict(sorted(body["options"].items()))
    wanted = format_of(request, settings)
    is_held = wanted is not None or strict_parameters(request.tools or ())
    held_to = [wanted, settings.send_schema, settings.repairs] if is_held else None
    document = [VERSION, apart, PATHS[request.kind], body, held_to]
    if not is_held and settings.thoughts == "keep":
        document.append("thoughts")  # the text of such an answer is another
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode("ascii")).digest()
