"""The picture of a running coordinator, drawn from its status snapshot: jobs, endpoints, what waits."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from obcd.clock import duration

#: {what a stand-in's version ends in: what it is}
STAND_INS = {"embedded": "real inference on the CPU", "simulated": "simulated, made-up words"}
#: {endpoint state: colour}
COLOURS = {"UP": "green", "SUSPECT": "yellow", "DOWN": "red", "STARTING": "cyan", "DRAINING": "yellow"}


def draw(status: dict[str, Any]) -> RenderableType:
    """Return tables of jobs and endpoints, and lines for what waits or is in trouble."""
    parts: list[RenderableType] = [_jobs(status["jobs"], status["published"][-5:]), _endpoints(status["endpoints"])]
    parts += [Text(f"settling: {name}, taken when it has not changed for a while") for name in status["settling"][:3]]
    waiting = sorted(status["waiting"], key=lambda item: str(item["file"]))
    parts += [_one_line(f"waits: {item['file']}: {item['why']}", "yellow") for item in waiting[:6]]
    if len(waiting) > 6:
        parts.append(Text(f"and {len(waiting) - 6} more wait: obcd status --json", style="yellow"))
    parts += [Text(f"trouble: {text}", style="red") for text in status["troubles"]]
    return Group(*parts)


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


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
        label = STAND_INS.get(item["version"].rpartition("-")[2], item["version"])
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
