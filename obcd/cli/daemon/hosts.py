"""`obcd hosts`: the hosts that have registered, and removing the record of a dead one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from obcd.cli.common import config_option, find_layout, find_view, is_running, read_settings, root_option, say
from obcd.cli.tables import print_rows
from obcd.config.settings import Settings
from obcd.coordinator.view import HostView
from obcd.diagnostics.hosts_folder import LIMIT_SECONDS, daemon_uid
from obcd.errors import ConfigurationError, ExitCode, InputError, UsageError
from obcd.hosts.record import MAX_RECORD_BYTES, NAME, SUFFIX, WRITE_SECONDS, CardReading, HostState, parse_record
from obcd.hosts.roster import DEAD_SECONDS
from obcd.hosts.scan import Scan, scan_within
from obcd.hosts.trust import find_trusted
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.text import duration, printable
from obcd.users import user_name

EPILOG = """\b
Examples:
  obcd hosts
  obcd hosts --json | jq '.hosts[] | {name, state, endpoints}'
  obcd hosts remove gpu7

\b
States of a host:
  serving   its endpoints get requests
  draining  they finish what is in flight
  gone      its servers have ended
  silent    its record does not change: no requests for now
  dead      its record has not changed for two minutes: its endpoints are removed
  refused   its record does not count
"""
GIB = 2**30
#: Why no host is used while the coordinator starts.
UNREAD = "the coordinator has not read its record yet"
#: Seconds for which a record is watched, where no coordinator says whether it changes.
WATCH_SECONDS = WRITE_SECONDS + 2.0


@dataclass(frozen=True, slots=True)
class _Place:
    """The hosts folder of a configuration, and the coordinator's status."""

    settings: Settings
    layout: Layout
    folder: Path

    @classmethod
    def find(cls, config: str | None, root: str | None) -> _Place:
        settings = read_settings(config)
        folder = settings.cluster.folder
        if folder is None:
            help_page = "obcd help registering-hosts"
            raise ConfigurationError(f"no hosts folder is configured: set hosts in [cluster] ({help_page})")
        return cls(settings, find_layout(root, settings), folder)

    def scan(self) -> Scan:
        trusted, _ = find_trusted(self.settings.cluster.users, daemon_uid(self.layout))
        return scan_within(LIMIT_SECONDS, self.folder, trusted)

    def views(self) -> tuple[HostView, ...] | None:
        """Return the hosts as the coordinator sees them; None if none runs, or if its status cannot be read."""
        view = find_view(self.layout) if is_running(self.layout) else None
        return None if view is None else view.hosts


@click.group(invoke_without_command=True, epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
@config_option
@root_option
@click.pass_context
def hosts(ctx: click.Context, as_json: bool, config: str | None, root: str | None) -> None:
    """list the hosts that have registered, and why one is not used.

    Hosts register in the folder `hosts` of `[cluster]`. Ages are those on the coordinator's clock.
    """
    if ctx.invoked_subcommand is not None:
        if any((as_json, config, root)):
            raise click.UsageError(f"options belong after {ctx.invoked_subcommand}")
        return
    place = _Place.find(config, root)
    views, reason = place.views(), ""
    try:
        scan = place.scan()
    except OSError as error:
        reason = f"the hosts folder {printable(str(place.folder))} cannot be read: {error.strerror}"
        if views is None:
            raise InputError(reason) from None
        scan = Scan()
    cards = {name: item.record.cards for name, item in scan.found.items()}
    shown = views or _unwatched(scan, "" if views is None else UNREAD)
    if as_json:
        items = [{**item.to_json(), "cards": [card.to_json() for card in cards.get(item.name, ())]} for item in shown]
        click.echo(json.dumps({"folder": str(place.folder), "hosts": items}))
        return
    if reason:
        say(reason)
    if views is None:
        say("no coordinator says which of these hosts are alive: the ages of their records are not known")
    if not shown:
        say(f"no host has registered in {printable(str(place.folder))}")
    print_rows(
        ("host", "owner", "by", "state", ">age", ">endpoints", "cards", ">ends in", "why it is not used"),
        [_row(item, cards.get(item.name, ())) for item in sorted(shown, key=lambda item: item.name)],
    )


@hosts.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@config_option
@root_option
def remove(names: tuple[str, ...], config: str | None, root: str | None) -> int:
    """remove the records of dead hosts.

    A host that is alive keeps its record: end the host first. Where no coordinator says whether a record still changes,
    the command watches it for 12 seconds.
    """
    place = _Place.find(config, root)
    ages = {item.name: item.age_seconds for item in place.views() or ()}
    for name in names:
        if not NAME.fullmatch(name):
            raise UsageError(f"{printable(name)!r} is not the name of a host: obcd hosts lists them")
    paths = {name: place.folder / f"{name}{SUFFIX}" for name in names}
    before = {name: _read(path) for name, path in paths.items()}
    ended = {name for name, raw in before.items() if _is_over(raw)}
    for name in names:
        age = ages.get(name)
        if age is not None and age < DEAD_SECONDS and name not in ended:
            raise InputError(f"the host {name} is alive, its record changed {duration(age)} ago: end the host first")
    if doubtful := [name for name in names if ages.get(name) is None and name not in ended]:
        say(f"watching {', '.join(doubtful)} for {WATCH_SECONDS:.0f} s")
        time.sleep(WATCH_SECONDS)
    for name in doubtful:
        if _read(paths[name]) != before[name]:
            raise InputError(f"the host {name} is alive, its record has just changed: end the host first")
    for name, path in paths.items():
        _remove(name, path)
    return ExitCode.DONE


def _unwatched(scan: Scan, why: str) -> tuple[HostView, ...]:
    """Return what the records themselves say, and why they are not used."""
    found = [
        HostView(name=name, owner=user_name(item.uid), by=item.record.by, state=item.record.state, why=why)
        for name, item in scan.found.items()
    ]
    found += [
        HostView(name=name, owner=user_name(item.uid) if item.uid >= 0 else "", state="refused", why=item.why)
        for name, item in scan.refused.items()
    ]
    return tuple(found)


def _row(item: HostView, cards: Sequence[CardReading]) -> list[str]:
    return [
        item.name,
        item.owner,
        item.by or "-",
        item.state,
        duration(item.age_seconds),
        str(len(item.endpoints)),
        _describe(cards),
        duration(item.seconds_left),
        item.why,
    ]


def _describe(cards: Sequence[CardReading]) -> str:
    """Return e.g. `8 × 93 % 71/80 GiB`: the number of cards, and the means of what they report."""
    if not cards:
        return "-"
    busy = [card.utilization for card in cards if card.utilization is not None]
    memory = [
        (card.memory_used_bytes, card.memory_total_bytes)
        for card in cards
        if card.memory_used_bytes is not None and card.memory_total_bytes
    ]
    parts = [f"{len(cards)} ×"]
    if busy:
        parts.append(f"{100 * sum(busy) / len(busy):.0f} %")
    if memory:
        used, total = (sum(column) / len(memory) / GIB for column in zip(*memory, strict=True))
        parts.append(f"{used:.0f}/{total:.0f} GiB")
    lost = sum(card.is_lost for card in cards)
    return " ".join([*parts, *([f"{lost} LOST"] if lost else [])])


def _read(path: Path) -> bytes:
    """Return the content of a record, b"" for what is not a regular file."""
    try:
        with disk.open_regular(path) as file:
            return file.read(MAX_RECORD_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"there is no record {path.stem} in {printable(str(path.parent))}: obcd hosts") from None
    except (OSError, ValueError):
        return b""


def _is_over(raw: bytes) -> bool:
    try:
        return parse_record(raw).state == HostState.GONE
    except ValueError:
        return False


def _remove(name: str, path: Path) -> None:
    try:
        owner = user_name(path.lstat().st_uid)
        try:
            path.unlink()
        except PermissionError:
            raise InputError(
                f"the record {name} belongs to {owner}: sudo -u {owner} obcd hosts remove {name}"
            ) from None
    except OSError as error:
        raise InputError(f"the record {name} cannot be removed: {error.strerror}") from None
    click.echo(f"removed {name}")
