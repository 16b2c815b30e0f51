"""`real`: the demo's notes with real inference: two embedded servers of one thread against one of two."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from obcd.standins.embedded.toy_model import find_weights
from tests.bench.clients import run_batch
from tests.bench.figures import Figure
from tests.bench.servers import configuration
from tests.bench.spool import fresh_spool

MODEL, CONCURRENCY = "smollm2:135m", (1, 2, 4, 8)


def measure() -> list[Figure]:
    """Answer the example's notes by obcd on both, the single server at each concurrency."""
    notes = Path("etc/examples/clinical-visits.jsonl").read_bytes().splitlines(keepends=True)
    single = {count: _seconds(notes, servers=1, threads=2, parallel=count) for count in CONCURRENCY}
    best = min(single, key=lambda count: single[count])
    pair = _seconds(notes, servers=2, threads=1, parallel=4)
    return [
        Figure("two servers of one thread over one of two at its best", pair / single[best], "", most=1.15),
        Figure("its best concurrency", best),
        Figure("two servers", pair, "s"),
        Figure("one server", single[best], "s"),
    ]


def _seconds(lines: list[bytes], *, servers: int, threads: int, parallel: int) -> float:
    with fresh_spool() as spool, ExitStack() as stack:
        urls = [
            stack.enter_context(_Embedded(spool.folder / f"{n}.log", threads, parallel)).url for n in range(servers)
        ]
        text = configuration({url.removeprefix("http://"): parallel for url in urls}).replace("llama3.2", MODEL)
        return run_batch(spool.folder, text + "[requests]\nnum_ctx = 1024\nnum_predict = 128\n", lines)


class _Embedded:
    def __init__(self, log: Path, threads: int, parallel: int) -> None:
        command = [sys.executable, "-m", "obcd", "embedded", "--model", find_weights(), "--name", MODEL, "--port", 0]
        command += ["--threads", threads, "--parallel", parallel, "--preload", "--context", 1024]
        environment = {**os.environ, "OBCD_DIE_WITH_PARENT": "1"}
        with open(log, "wb") as errors:
            self._process = subprocess.Popen(
                [*map(str, command)], stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[0].decode()

    def __enter__(self) -> _Embedded:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
