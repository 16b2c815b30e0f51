"""`python -m tests.bench [names…] [--runs N] [--json FILE]`: run measurements one after the other, print one table.

The exit code says only whether every measurement came to its end: a missed goal is a line in the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.bench import (
    accept,
    busy,
    cpu,
    embeddings,
    finding,
    finding_prefixes,
    flood,
    following,
    host,
    hosts,
    kill,
    lanes,
    longest,
    makespan,
    mixed,
    prefixes,
    procfs,
    python_client,
    real,
    recording,
    sharing,
    slots,
    slurm,
    speed,
    stragglers,
    streaming,
    whose_fault,
    workers,
)
from tests.bench.figures import Measurement, Row, combine, render

MEASUREMENTS: dict[str, Measurement] = {
    "speed": speed.measure,
    "finding": finding.measure,
    "slots": slots.measure,
    "busy": busy.measure,
    "makespan": makespan.measure,
    "stragglers": stragglers.measure,
    "longest": longest.measure,
    "lanes": lanes.measure,
    "mixed": mixed.measure,
    "finding_prefixes": finding_prefixes.measure,
    "recording": recording.measure,
    "workers": workers.measure,
    "real": real.measure,
    "accept": accept.measure,
    "prefixes": prefixes.measure,
    "kill": kill.measure,
    "cpu": cpu.measure,
    "embeddings": embeddings.measure,
    "streaming": streaming.measure,
    "client": python_client.measure,
    "following": following.measure,
    "flood": flood.measure,
    "sharing": sharing.measure,
    "sharing_real": sharing.measure_real,
    "host": host.measure,
    "hosts": hosts.measure,
    "slurm": slurm.measure,
    "refused": whose_fault.measure_refused,
    "ending": whose_fault.measure_ending,
}


def main() -> int:
    """Measure and print."""
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - MEASUREMENTS.keys():
        parser.error(f"no measurement is called {min(unknown)}: there are {', '.join(MEASUREMENTS)}")
    rows: list[Row] = []
    for name in arguments.names or MEASUREMENTS:
        rows += _repeat(name, arguments.runs)
    print(render(rows, procfs.machine()))
    if arguments.json is not None:
        document = {"machine": procfs.machine(), "runs": arguments.runs, "rows": [row.as_json() for row in rows]}
        arguments.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


def _repeat(name: str, runs: int) -> list[Row]:
    figures, load = [], 0.0
    for number in range(1, runs + 1):
        print(f"{name}: run {number} of {runs} (load {procfs.load():.1f}) …", file=sys.stderr, flush=True)
        figures.append(MEASUREMENTS[name]())
        load = max(load, procfs.load())
    return combine(name, figures, load)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure obcd with real processes and simulated servers on loopback; each run on a fresh root.",
        epilog="The simulated servers share the machine and count in its load: stop other work, or repeat with --runs.",
    )
    listed = ", ".join(MEASUREMENTS)
    parser.add_argument("names", nargs="*", metavar="name", help=f"{listed}  [all]")
    parser.add_argument(
        "--runs",
        type=int,
        default=1,
        help="runs of each; the table shows the median  [1: a quick look; 5 for a record]",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
