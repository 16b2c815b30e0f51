"""`obcd host status`: every server with its card, in a table for people or as JSON."""

from __future__ import annotations

import json
import shutil
from typing import Any

import click

from obcd.cli.common import is_terminal
from obcd.cli.host_common import running_host, runtime_option
from obcd.clock import duration
from obcd.errors import ExitCode
from obcd.host.remote import Remote
from obcd.host.snapshot import take_snapshot

EPILOG = """\b
Examples:
  obcd host status
  obcd host status --json | jq '.servers[] | select(.trouble != "") | {gpu, trouble}'
"""
COLUMNS = (
    "gpu", "port", "state", "pid", "up", "answers", "version", "models", "busy", "memory", "temp", "power", "ECC",
    "restarts", "card",
)  # fmt: skip
#: With fewer characters a line the table would fold: then every server has a paragraph.
TABLE_WIDTH = 150
GIB = 2**30


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="the snapshot itself, for machines")
@runtime_option
def status(as_json: bool, runtime: str | None) -> int:
    """show the servers of this host and their cards."""
    folder, plan = running_host(runtime)
    with Remote(folder) as remote:
        document = take_snapshot(plan, folder, remote)
    if as_json:
        click.echo(json.dumps(document))
        return ExitCode.DONE
    head = f"{document['status'] or 'host runs'}  pid {document['pid']}  {document['runtime']}"
    click.echo(head)
    rows = [row(server) for server in document["servers"]]
    if not is_terminal():
        click.echo(_plain(rows))
    elif shutil.get_terminal_size().columns < TABLE_WIDTH:
        click.echo(_paragraphs(rows))
    else:
        _print_table(rows)
    for line in remarks(document):
        click.echo(line)
    return ExitCode.DONE


def row(server: dict[str, Any]) -> dict[str, str]:
    """Return the texts of one server, `{column: text}`; `-` for what is not known."""
    reading = server["reading"] or {}
    used, total = reading.get("memory_used_bytes"), reading.get("memory_total_bytes")
    models = ", ".join(_model(model) for model in server["models"])
    values = {
        "gpu": server["gpu"],
        "port": str(server["port"]),
        "state": server["state"],
        "pid": str(server["pid"] or ""),
        "up": duration(server["uptime_seconds"]) if server["pid"] else "",
        "answers": {"answers": "yes", "": ""}.get(server["answer"], f"no: {server['answer']}"),
        "version": server["version"],
        "models": models or ("none" if server["answer"] == "answers" else ""),
        "busy": _unit(reading.get("utilisation_percent"), "%"),
        "memory": f"{used / GIB:.1f}/{total / GIB:.0f} GiB" if used is not None and total else "",
        "temp": _unit(reading.get("temperature_celsius"), "°C"),
        "power": _unit(reading.get("power_watts"), "W"),
        "ECC": _unit(reading.get("ecc_uncorrected"), ""),
        "restarts": str(server["restarts"]),
        "card": "LOST" if reading.get("is_lost") else server["card"],
    }
    return {key: value or "-" for key, value in values.items()}


def _unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f} {unit}".rstrip()


def _model(model: dict[str, Any]) -> str:
    """Return e.g. `llama3.2:latest 8192 100 % GPU`."""
    size = model["size_bytes"]
    share = f" {100 * model['vram_bytes'] // size} % GPU" if size else ""
    context = f" {model['context_length']}" if model["context_length"] else ""
    return f"{model['name']}{context}{share}"


def remarks(document: dict[str, Any]) -> list[str]:
    """Return what is not a figure: troubles, throttling, Xid events, restarts; a line each."""
    lines = [document["watch"]["trouble"]] if document["watch"]["trouble"] else []
    for server in document["servers"]:
        throttle = (server["reading"] or {}).get("throttle") or ()
        said = [server["trouble"], server["remark"], f"slowed down by {', '.join(throttle)}" if throttle else ""]
        if server["xids"]:
            said.append(f"Xid {', '.join(map(str, server['xids']))} reported by the driver")
        if server["trouble"] and server["alone_seconds"]:
            said.append(f"left alone for another {duration(server['alone_seconds'])}")
        if server["restart_log"]:
            last = server["restart_log"][-1]
            ago = duration(last["seconds_ago"])
            said.append(f"last restart {ago} ago, by {_by(last['by'])}: {last['reason']}")
        lines += [f"{server['gpu']}: {text}" for text in said if text]
    named = {server["uuid"] for server in document["servers"]}
    lines += [
        f"Xid {item['code']} of card {item['uuid'] or 'unknown'} at {item['at']}"
        for item in document["xids"]
        if item["uuid"] not in named
    ]
    return lines


def _by(whom: str) -> str:
    return {"person": "a person", "watch": "the watch"}.get(whom, whom)


def _plain(rows: list[dict[str, str]]) -> str:
    """Return a table of aligned columns, never folded."""
    texts = [{name: name for name in COLUMNS}, *rows]
    widths = {name: max(len(text[name]) for text in texts) for name in COLUMNS}
    return "\n".join("  ".join(text[name].ljust(widths[name]) for name in COLUMNS).rstrip() for text in texts)


def _paragraphs(rows: list[dict[str, str]]) -> str:
    """Return three short lines a server, for narrow terminals."""
    return "\n".join(
        f"{text['gpu']}  port {text['port']}  {text['state']}  pid {text['pid']}  up {text['up']}\n"
        f"  answers {text['answers']}  models {text['models']}  restarts {text['restarts']}\n"
        f"  {text['card']}  busy {text['busy']}  {text['memory']}  {text['temp']}  {text['power']}  ECC {text['ECC']}"
        for text in rows
    )


def _print_table(rows: list[dict[str, str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - only where a person watches
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for text in rows:
        is_well = text["answers"] == "yes"
        table.add_row(*(Text(text[name], style="" if is_well else "yellow") for name in COLUMNS))
    Console().print(table)
