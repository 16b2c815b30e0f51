"""`recording`: how many results a second are durable, through the ledger's own calls, on the disk of TMPDIR."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from obcd.core.answer.record_codec import to_ascii
from obcd.spool.job.ledger import LedgerWriter
from tests.bench.figures import Figure

RESULTS, GROUP = 50_000, 64


def measure() -> list[Figure]:
    """Write 50,000 records in groups of 64, each group synced: what 64 slots give back at once."""
    record = {"ordinal": 0, "line": 1, "outcome": "response", "response": "word " * 60, "model": "llama3.2:latest"}
    times = {"done_reason": "stop", "seconds": 1.25, "eval_seconds": 1.0, "prompt_tokens": 80, "eval_tokens": 64}
    with tempfile.TemporaryDirectory(prefix="obcd-bench-") as folder:
        writer = LedgerWriter(Path(folder), 0)
        began = time.monotonic()
        for start in range(0, RESULTS, GROUP):
            numbers = range(start, min(start + GROUP, RESULTS))
            writer.write([to_ascii({**record, **times, "ordinal": number, "line": number + 1}) for number in numbers])
            writer.sync()
        seconds = time.monotonic() - began
        writer.close()
    return [Figure("results recorded durably a second", RESULTS / seconds, "/s", least=20_000)]
