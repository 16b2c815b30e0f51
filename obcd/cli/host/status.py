"""`obcd host status`: show every server with its card, as a table or as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence

import click

from obcd.cli.common import is_terminal
from obcd.cli.host.common import running_host, runtime_option
from obcd.errors import ExitCode
from obcd.host.control.snapshot import ModelShown, ServerShown, Snapshot, take_snapshot
from obcd.host.supervisord.remote import Remote
from obcd.text import duration

EPILOG = """\b
Examples:
  obcd host status
  obcd host status --json | jq '.servers[] | select(.trouble != "") | {gpu, trouble}'
"""
COLUMNS = (
    "gpu", "port", "state", "pid", "up", "answers", "restarts", "version", "card", "models", "busy", "memory", "temp",
    "power", "ECC",
)  # fmt: skip
GAP = "  "
GIB = 2**30


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="print the snapshot as JSON, for machines")
@runtime_option
def status(as_json: bool, runtime: str | None) -> int:
    """show the servers of this host and their cards."""
    folder, plan = running_host(runtime)
    with Remote(folder) as remote:
        document = take_snapshot(plan, folder, remote)
    if as_json:
        click.echo(json.dumps(document))
        return ExitCode.DONE
    rows = [row(server) for server in document["servers"]]
    if is_terminal():
        _show(document, rows, shutil.get_terminal_size().columns)
    else:
        click.echo("\n".join([head(document), *table(rows, COLUMNS), *remarks(document)]))
    return ExitCode.DONE


def head(document: Snapshot) -> str:
    """Return the first line; the rest of STATUS is among the remarks."""
    answering = document["status"].partition(";")[0] or "host runs"
    return f"{answering}  pid {document['pid']}  {document['runtime']}"


def _show(document: Snapshot, rows: list[dict[str, str]], width: int) -> None:
    """Show the tables on a terminal."""
    columns, shared = telling_columns(rows)
    for line in filter(None, (head(document), shared)):
        click.echo(textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False))
    for chosen in blocks(rows, columns, width):
        title, *lines = table(rows, chosen)
        click.echo(title)
        for text, line in zip(rows, lines, strict=True):
            click.secho(line, fg=None if text["answers"] == "yes" else "yellow")
    for remark in remarks(document):
        click.echo(textwrap.fill(remark, width, subsequent_indent=GAP, break_long_words=False, break_on_hyphens=False))


def telling_columns(rows: list[dict[str, str]]) -> tuple[list[str], str]:
    """Return the columns that have values, and a text with the version and the card that all servers share."""
    values = {name: {text[name] for text in rows} for name in COLUMNS}
    shared = [name for name in ("version", "card") if len(values[name]) == 1]
    said = [f"{word}{min(values[name])}" for name, word in (("version", "ollama "), ("card", "")) if name in shared]
    columns = [name for name in COLUMNS if name not in shared and values[name] != {"-"}]
    return columns, GAP.join(item for item in said if not item.endswith("-"))


def blocks(rows: list[dict[str, str]], columns: Sequence[str], width: int) -> Iterator[list[str]]:
    """Divide columns among tables that fit a width, each with the first column; a column too wide has its own table."""
    first, *others = columns
    chosen = [first]
    for name in others:
        if len(chosen) > 1 and _table_width(rows, [*chosen, name]) > width:
            yield chosen
            chosen = [first]
        chosen.append(name)
    yield chosen


def table(rows: list[dict[str, str]], columns: Sequence[str]) -> list[str]:
    """Return the title and a line for each row, aligned and never wrapped."""
    texts = [{name: name for name in columns}, *rows]
    widths = _widths(rows, columns)
    return [GAP.join(text[name].ljust(widths[name]) for name in columns).rstrip() for text in texts]


def _widths(rows: list[dict[str, str]], columns: Sequence[str]) -> dict[str, int]:
    return {name: max(len(name), *(len(text[name]) for text in rows)) for name in columns}


def _table_width(rows: list[dict[str, str]], columns: Sequence[str]) -> int:
    return sum(_widths(rows, columns).values()) + len(GAP) * (len(columns) - 1)


def row(server: ServerShown) -> dict[str, str]:
    """Return the texts of one server, `{column: text}`; `-` for an unknown value."""
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


def _model(model: ModelShown) -> str:
    """Return e.g. `llama3.2:latest 8192 100 % GPU`."""
    size = model["size_bytes"]
    share = f" {100 * model['vram_bytes'] // size} % GPU" if size else ""
    context = f" {model['context_length']}" if model["context_length"] else ""
    return f"{model['name']}{context}{share}"


def remarks(document: Snapshot) -> list[str]:
    """Return the remarks, one a line: troubles, throttling, Xid events, restarts."""
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
