"""The picture of a running coordinator, drawn from its status snapshot: jobs, endpoints, what waits."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from obcd.clock import duration

#: {endpoint state: colour}
COLOURS = {"UP": "green", "SUSPECT": "yellow", "DOWN": "red", "STARTING": "cyan", "DRAINING": "yellow"}
STALE_SECONDS = 10.0


def is_stale(status: dict[str, Any]) -> bool:
    """Tell whether a snapshot is so old that its coordinator must be gone."""
    return time.time() - float(status.get("updated", 0)) > STALE_SECONDS


def draw(status: dict[str, Any]) -> RenderableType:
    """Return tables of jobs and endpoints, and lines for what waits or is in trouble."""
    parts: list[RenderableType] = [_jobs(status["jobs"], status["published"][-5:]), _endpoints(status["endpoints"])]
    parts += [Text(f"waits: {item['file']}: {item['why']}", style="yellow") for item in status["waiting"][:10]]
    parts += [Text(f"trouble: {text}", style="red") for text in status["troubles"]]
    return Group(*parts)


def _jobs(jobs: list[dict[str, Any]], published: list[dict[str, Any]]) -> RenderableType:
    if not jobs and not published:
        return Text("no job is running")
    table = _table("job", "state", ">done", ">failed", ">tokens/s", ">ETA")
    for item in published:
        done = item["responses"] + item["failures"]
        table.add_row(Text(item["name"]), "published", f"{done}/{done} (100 %)", str(item["failures"]), "", "")
    for job in jobs[:20]:
        name = f"{job['profile']}/{job['name']}" if job["profile"] else job["name"]
        table.add_row(
            Text(name),
            job["state"].lower(),
            f"{job['done']}/{job['total']} ({100 * job['done'] // max(1, job['total'])} %)",
            str(job["failed"]),
            f"{job['tokens_per_second']:.0f}",
            duration(job["eta_seconds"]),
        )
    if len(jobs) > 20:
        table.add_row(f"and {len(jobs) - 20} more", "", "", "", "", "")
    return table


def _endpoints(endpoints: list[dict[str, Any]]) -> RenderableType:
    table = _table("endpoint", ">GPU", "state", ">in flight", ">answered", ">tokens/s", "")
    for item in endpoints:
        label = "stand-in, " + item["version"].rpartition("-")[2] if "-obcd-" in item["version"] else item["version"]
        table.add_row(
            Text(item["name"]),
            str(item["gpu"]),
            Text(item["state"], style=COLOURS.get(item["state"], "")),
            f"{item['in_flight']}/{item['slots']}",
            str(item["answered"]),
            f"{item['tokens_per_second']:.0f}",
            Text(item["reason"] or label),
        )
    return table


def _table(*headings: str) -> Table:
    """Return a table; a heading that begins with `>` is a column of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left")
    return table
