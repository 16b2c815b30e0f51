"""`client`: a table of 100,000 rows to a table with answers, against `obcd submit --wait`; a million rows in step.

The job of both is the same, byte for byte, on a fresh root each, in interleaved pairs: a machine becomes slower and
faster by more than the client costs. Memory is that of the program that submits: what it
grows beyond the table with its answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import Spool, fresh_spool, wait_until

ROWS = int(os.environ.get("OBCD_BENCH_ROWS", "100000"))
ENDPOINTS, SLOTS, SECONDS, PAIRS = 4, 32, 0.02, 5
MANY = 10 * ROWS
NOTE = "Seen on ward {number}: BP 150/95, headache for two days, no fever. Advised rest and a control in one week."

#: The user's lines, and what is read of the process before and after.
TABLE = """
import time
import pandas as pd
import obcd
from tests.bench.procfs import growth

visits = pd.DataFrame({{"note": [{note!r}.format(number=number) for number in range({rows})]}})
obcd.ask
grown = growth()
began = time.monotonic()
visits["summary"] = obcd.ask(visits, "Summarise: {{note}}", key="visits")
spent = time.monotonic() - began
assert visits["summary"].notna().all()
own = visits["summary"].memory_usage(index=False, deep=True) / 2**20
print(spent, grown() - own)
"""
MILLION = """
import obcd
from tests.bench.procfs import growth

obcd.submit
grown = growth()
obcd.submit(({{"note": {note!r}.format(number=number)}} for number in range({rows})), "Summarise: {{note}}", key="many")
print(grown())
"""
IMPORT = "import time\nbegan = time.process_time()\nimport obcd\nprint(1000 * (time.process_time() - began))"


def measure() -> list[Figure]:
    """Answer the same rows by the command and by the client, and submit a million rows."""
    commands: list[float] = []
    clients: list[tuple[float, float]] = []
    for number in range(PAIRS):
        if number % 2:
            commands.append(_by_command())
        clients.append(_by_client())
        if not number % 2:
            commands.append(_by_command())
    ratio = median(client / command for (client, _), command in zip(clients, commands, strict=True))
    return [
        Figure(f"{ROWS} rows, table to table, times obcd submit --wait", ratio, "", most=1.1),
        Figure("the same", median(seconds for seconds, _ in clients), "s"),
        Figure("obcd submit --wait", median(commands), "s"),
        Figure("memory beyond the table with answers", max(memory for _, memory in clients), "MiB", most=150),
        Figure(f"growth with {MANY} rows of a generator", _million(), "MiB", most=60),
        Figure("import obcd", min(float(_python(IMPORT, {})) for _ in range(5)), "ms of CPU", most=60),
    ]


def _by_command() -> float:
    with fresh_spool() as spool, _servers(spool):
        file = spool.folder / "visits.jsonl"
        with file.open("w", encoding="ascii") as writer:
            for number in range(ROWS):
                line = {"prompt": f"Summarise: {NOTE.format(number=number)}"}
                writer.write(json.dumps(line, separators=(",", ":")) + "\n")
        began = time.monotonic()
        command = [sys.executable, "-m", "obcd", "submit", "--quiet", "--wait", "--root", str(spool.root), str(file)]
        subprocess.run(command, check=True, env=_environment(spool))
        return time.monotonic() - began


def _by_client() -> tuple[float, float]:
    with fresh_spool() as spool, _servers(spool):
        seconds, memory = _python(TABLE.format(rows=ROWS, note=NOTE), _environment(spool)).split()
    return float(seconds), float(memory)


def _million() -> float:
    with fresh_spool() as spool:
        for folder in ("inbox", "outbox", "jobs"):
            (spool.root / folder).mkdir(parents=True)
        return float(_python(MILLION.format(rows=MANY, note=NOTE), _environment(spool)))


@contextmanager
def _servers(spool: Spool) -> Iterator[None]:
    """Yield with servers, and a coordinator that is ready."""
    with Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        wait_until(lambda: spool.status().get("state") == "READY", 300, "the coordinator is not ready", look=0.1)
        yield


def _environment(spool: Spool) -> dict[str, str]:
    own = {"XDG_RUNTIME_DIR": str(spool.runtime), "XDG_STATE_HOME": str(spool.folder / "state"), "TMPDIR": "/var/tmp"}
    return {**os.environ, **own, "OBCD_ROOT": str(spool.root), "XDG_CONFIG_HOME": str(spool.folder)}


def _python(script: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, check=True, capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return done.stdout
