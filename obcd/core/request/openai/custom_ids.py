"""Refuse a custom_id that occurs a second time in a file: results are joined by it, and one would be lost."""

from __future__ import annotations

import hashlib
import json
import secrets

from obcd.errors import LineError

#: Ids that are remembered, twice as many as OpenAI accepts in a file; 8 MiB at most. Later ones are not checked.
MOST_IDS = 100_000


class CustomIds:
    """Remembers the ids of a file, eight bytes of each; one chance in a thousand million that two look the same."""

    def __init__(self, most: int = MOST_IDS) -> None:
        self._most = most
        self._key = secrets.token_bytes(16)  # so that nobody can make two ids that look the same
        self._seen: set[int] = set()

    def take(self, custom_id: object) -> None:
        """Record an id.

        Raises:
            LineError: If it occurred in the file before.
        """
        if len(self._seen) >= self._most:
            return
        text = json.dumps(custom_id).encode("ascii")
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest())
        if digest in self._seen:
            raise LineError(
                "its `custom_id` is that of an earlier line: give each line its own, to find its response by it"
            )
        self._seen.add(digest)
