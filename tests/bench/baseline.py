"""`python -m tests.bench.baseline FILE URL…`: what obcd is measured against.

One coroutine per endpoint takes the next prompt when it has its answer, over one reused client of the official
`ollama` package: what the seed does, without its waits between the rounds. The answers go into FILE.answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from typing import Any

from ollama import AsyncClient

from tests.bench.servers import MODEL


async def _ask(url: str, waiting: deque[str], answers: list[Any]) -> None:
    client = AsyncClient(host=url)
    while waiting:
        prompt = waiting.popleft()
        reply = await client.chat(model=MODEL, messages=[{"role": "user", "content": prompt}])
        answers.append({"prompt": prompt, "response": reply.message.content})


async def _run(path: str, urls: list[str]) -> None:
    with open(path, encoding="utf-8") as file:
        waiting = deque(json.loads(line)["prompt"] for line in file)
    answers: list[Any] = []
    await asyncio.gather(*(_ask(url, waiting, answers) for url in urls))
    with open(f"{path}.answers", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(answer) + "\n" for answer in answers)


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2:]))
