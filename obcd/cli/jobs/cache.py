"""`obcd cache`: show or clear the cache of responses (`cache = true`)."""

from __future__ import annotations

import contextlib
import json
import pwd
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from obcd.cli.common import config_option, find_layout_anyway, root_option, say
from obcd.core.request.records import plain_model
from obcd.errors import InputError
from obcd.spool.job import cache as answers
from obcd.spool.job.cache import Size
from obcd.text import plural, printable

EPILOG = """\b
Examples:
  obcd cache stats
  sudo -u obcd obcd cache clear
"""


@click.group(epilog=EPILOG)
def cache() -> None:
    """show or clear the cache of responses.

    The cache (`cache = true`) serves all jobs. It is cache.sqlite in the spool's root and keeps a response for
    `[spool] keep_days`.
    """


@cache.command()
@config_option
@root_option
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def stats(config: str | None, root: str | None, *, as_json: bool) -> None:
    """show the number of cached responses, their models and their age."""
    path = _find(config, root)
    with _readable_errors(path):
        size = answers.measure(path)
    if as_json:
        click.echo(json.dumps({"path": str(path), **asdict(size)}))
        return
    click.echo(_described(size, path))
    for model, count in size.models.items():
        click.echo(f"  {printable(plain_model(model))}: {plural(count, 'answer')}")


@cache.command()
@config_option
@root_option
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def clear(config: str | None, root: str | None, *, as_json: bool) -> None:
    """remove all cached responses; the coordinator may be running. Published folders keep theirs."""
    path = _find(config, root)
    with _readable_errors(path):
        gone = answers.clear(path)
    if as_json:
        click.echo(json.dumps({"path": str(path), "cleared": gone}))
    elif gone is None:
        say(f"{printable(str(path))} was damaged and has been removed")
    else:
        say(f"{plural(gone, 'answer')} removed")


def _find(config: str | None, root: str | None) -> Path:
    layout, _ = find_layout_anyway(config, root)
    return layout.cache


def _described(size: Size, path: Path) -> str:
    shown = printable(str(path))
    if size.oldest is None or size.newest is None:
        return f"no answers in {shown}"
    ages = (time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) for at in (size.oldest, size.newest))
    return f"{plural(size.answers, 'answer')} in {shown} ({size.bytes / 2**20:.1f} MiB), from " + " to ".join(ages)


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn an error of the system into a message."""
    try:
        yield
    except PermissionError:
        raise InputError(f"{printable(str(path))} belongs to another user: {_as_owner(path)}") from None
    except OSError as error:
        raise InputError(f"the cache {printable(str(path))} cannot be used: {answers.reason_of(error)}") from None


def _as_owner(path: Path) -> str:
    try:
        return f"sudo -u {pwd.getpwuid(path.parent.stat().st_uid).pw_name} obcd cache …"
    except (OSError, KeyError):
        return "run this as the user of the coordinator"
