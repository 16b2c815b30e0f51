"""A server of vectors of 384 numbers that computes nothing: what a client does for them can be measured beside it.

python -m tests.bench.vector_server CALL_SECONDS TEXT_SECONDS     prints its port
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import sys

MODEL, NUMBERS, VECTORS = "nomic-embed-text", 384, 200
_NAME = {"name": f"{MODEL}:latest", "model": f"{MODEL}:latest", "digest": "a" * 64, "size": 10**8}
_REPLIES = {
    "/api/version": {"version": "0.33.0"},
    "/api/tags": {"models": [_NAME]},
    "/api/ps": {"models": [{**_NAME, "size_vram": 10**8, "context_length": 8192}]},
    "/api/show": {"capabilities": ["embedding"], "model_info": {}},
}


def make_vector(drawn: random.Random) -> bytes:
    """Return a vector as Ollama writes it: float32, as few digits as that takes."""
    numbers = (struct.unpack("f", struct.pack("f", drawn.gauss(0, 0.05)))[0] for _ in range(NUMBERS))
    return b"[%b]" % ",".join(f"{number:.8g}" for number in numbers).encode()


class VectorServer:
    """One slot; a call takes its own time and that of each text."""

    def __init__(self, call_seconds: float, text_seconds: float) -> None:
        drawn = random.Random(1)
        self._vectors = [make_vector(drawn) for _ in range(VECTORS)]
        self._call_seconds, self._text_seconds = call_seconds, text_seconds
        self._slot = asyncio.Lock()

    async def serve(self) -> None:
        """Listen until the process ends."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, limit=2**24)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                path = head.split(" ")[1]
                raw = await self._embed(body) if path == "/api/embed" else json.dumps(_REPLIES.get(path, {})).encode()
                start = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
                writer.write(start.encode() + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _embed(self, body: bytes) -> bytes:
        texts = json.loads(body)["input"]
        seconds = self._call_seconds + self._text_seconds * len(texts) if texts else 0.0
        async with self._slot:
            await asyncio.sleep(seconds)
        vectors = b",".join(self._vectors[hash(text) % VECTORS] for text in texts)
        counters = b'"total_duration":%d,"prompt_eval_count":%d' % (seconds * 1e9, 5 * len(texts))
        return b'{"model":"%b","embeddings":[%b],%b}' % (MODEL.encode(), vectors, counters)


if __name__ == "__main__":
    asyncio.run(VectorServer(float(sys.argv[1]), float(sys.argv[2])).serve())
