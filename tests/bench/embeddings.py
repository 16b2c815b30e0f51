"""`embeddings`: short texts in groups against the same texts in single calls, as OpenAI's lines are sent."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench import procfs
from tests.bench.figures import Figure
from tests.bench.servers import configuration
from tests.bench.spool import Spool, fresh_spool
from tests.bench.vector_server import MODEL

COUNT = 10_000
#: Seconds of a call and of a text, as measured at v0.33 and v0.24 (see the contract of a server, 9.2).
FASTER, SAME = (0.0013, 0.0027), (0.0001, 0.0039)


def measure() -> list[Figure]:
    """Embed 10,000 short texts four times: in groups and alone, at a server where groups are faster, and at another."""
    (in_groups, cpu), (alone, cpu_alone) = _run(*FASTER, is_grouped=True), _run(*FASTER, is_grouped=False)
    (same_in_groups, _), (same_alone, _) = _run(*SAME, is_grouped=True), _run(*SAME, is_grouped=False)
    return [
        Figure("texts a second where groups are faster, times those of single calls", in_groups / alone, "x"),
        Figure("the same where they are not", same_in_groups / same_alone, "x"),
        Figure("CPU of all obcd processes a text of 384 numbers", cpu, "ms"),
        Figure("the same in single calls", cpu_alone, "ms"),
    ]


def _run(call_seconds: float, text_seconds: float, *, is_grouped: bool) -> tuple[float, float]:
    """Return the texts a second, and the CPU of a text in milliseconds."""
    with _serving(call_seconds, text_seconds) as port, fresh_spool() as spool:
        spool.start(configuration({f"127.0.0.1:{port}": "auto"}).replace('model = "llama3.2"', f'model = "{MODEL}"'))
        spool.wait_ready()
        before = procfs.tree_cpu(spool.pid)
        seconds = _embed(spool, is_grouped=is_grouped)
        return COUNT / seconds, 1000 * (procfs.tree_cpu(spool.pid) - before) / COUNT


def _embed(spool: Spool, *, is_grouped: bool) -> float:
    dropped = spool.drop("texts.jsonl", _lines(is_grouped=is_grouped))
    published, _ = spool.wait_published("texts.jsonl", 600)
    return published - dropped


def _lines(*, is_grouped: bool) -> Iterator[bytes]:
    for number in range(COUNT):
        text = f"Short text number {number} about the weather"
        ours: dict[str, object] = {"id": number, "embed": text}
        openai = {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": {"input": text}}
        yield json.dumps(ours if is_grouped else openai).encode() + b"\n"


@contextmanager
def _serving(call_seconds: float, text_seconds: float) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.bench.vector_server", str(call_seconds), str(text_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
