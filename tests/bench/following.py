"""`following`: what it costs a job that somebody reads its answers with `obcd print --follow`, in interleaved pairs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median

from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import Spool, fresh_spool, prompts

#: 256 answers a second: a machine of two cores is a third busy then, so that the readers' CPU takes nothing away.
COUNT, ENDPOINTS, SLOTS, SECONDS, PAIRS = 3840, 4, 16, 0.25, 5


def measure() -> list[Figure]:
    """Answer the same prompts with and without a reader, and compare the medians."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        for number in range(PAIRS):
            for is_read in (False, True) if number % 2 else (True, False):
                seconds[is_read].append(_run(spool, f"{number}-{is_read}.jsonl", is_read=is_read))
    alone, read = median(seconds[False]), median(seconds[True])
    return [
        Figure("answers a second with print --follow over those without", alone / read, "", least=0.98),
        Figure("without", COUNT / alone, "/s"),
        Figure("with print --follow", COUNT / read, "/s"),
    ]


def _run(spool: Spool, name: str, *, is_read: bool) -> float:
    began = spool.drop(name, prompts(COUNT))
    if is_read:
        spool.wait_running(name)
        command = [sys.executable, "-m", "obcd", "print", "--follow", "--root", str(spool.root), name]
        reader = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "XDG_RUNTIME_DIR": str(spool.runtime)}
        )
        printed = reader.communicate(timeout=120)[0]
        assert printed.count(b"\n") >= COUNT
        assert reader.returncode == 0
    ended, folder = spool.wait_published(name, 120)
    assert json.loads((folder / "manifest.json").read_bytes())["counts"]["responses"] == COUNT
    return ended - began
