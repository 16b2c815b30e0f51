"""The models that simulated servers of one folder have, and POST /api/pull, which adds one (contract 2, 5.4)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from obcd.standins.wire.engine import EngineError, JsonObject
from obcd.standins.wire.http import NDJSON_TYPE, Exchange
from obcd.standins.wire.reply_shapes import encode
from obcd.standins.wire.request_values import canonical_name, parse_body, typed

#: a model whose name contains this is in no registry
UNKNOWN = "no-such"

#: bytes of a simulated pull
PULLED_BYTES = 2_019_377_376

#: lines of progress of one pull
STEPS = 40


class Library:
    """The models pulled after the start; the servers of one process share it, like a folder of models."""

    def __init__(self) -> None:
        self.pulled: list[str] = []

    def has(self, name: str) -> bool:
        """Return whether a model was pulled."""
        return canonical_name(name) in map(canonical_name, self.pulled)

    async def pull(self, exchange: Exchange, seconds: float) -> None:
        """Answer POST /api/pull as Ollama does: a failure after the first line has status 200.

        Raises:
            EngineError: For a request that is refused before the first line.
        """
        body = parse_body(exchange.body)
        name = str(body.get("model") or body.get("name") or "")
        if not name:
            raise EngineError(400, "invalid model name")
        typed(body, "stream", bool, "PullRequest.stream of type bool", True)
        exchange.start_stream(NDJSON_TYPE)
        async for line in self._lines(name, seconds):
            await exchange.send_chunk(encode(line) + b"\n")
        exchange.end_stream()

    async def _lines(self, name: str, seconds: float) -> AsyncIterator[JsonObject]:
        yield {"status": "pulling manifest"}
        if UNKNOWN in name:
            yield {"error": "pull model manifest: file does not exist"}
            return
        layer = {"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a0746a1ec1a", "total": PULLED_BYTES}
        for step in range(STEPS):
            yield {**layer, "completed": PULLED_BYTES * step // STEPS}
            await asyncio.sleep(seconds / STEPS)
        yield {**layer, "completed": PULLED_BYTES}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        if not self.has(name):
            self.pulled.append(name)
        yield {"status": "success"}
