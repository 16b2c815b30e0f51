"""Which custom_id stood in a file before: whoever joins the answers by it would lose one."""

from __future__ import annotations

import hashlib
import json
import secrets

from obcd.errors import LineError

#: Ids that are remembered, twice as many as OpenAI takes in a file; 8 MiB at most. Later ones are not looked at.
MOST_IDS = 100_000


class CustomIds:
    """Remembers the ids of a file, eight bytes of each; one chance in a thousand million that two are taken for one."""

    def __init__(self, most: int = MOST_IDS) -> None:
        self._most = most
        self._key = secrets.token_bytes(16)  # so that nobody can make two that are taken for one
        self._seen: set[int] = set()

    def take(self, custom_id: object) -> None:
        """Note an id.

        Raises:
            LineError: If it stood in the file before.
        """
        if len(self._seen) >= self._most:
            return
        text = json.dumps(custom_id).encode("ascii")
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=self._key).digest())
        if digest in self._seen:
            raise LineError(
                "its `custom_id` stood in an earlier line: give each line its own, or its answer cannot be found by it"
            )
        self._seen.add(digest)
