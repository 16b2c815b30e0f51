"""What the commands of `obcd host` share: their options, the cards a person names, and the host that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from obcd.errors import InputError, NoEndpointError, UsageError
from obcd.host.plan import FILE_NAME, Plan, Server, find_runtime, read_plan

Command = TypeVar("Command", bound=Callable[..., Any])
#: What `[host] gpus` may be.
Gpus = Literal["all", 0] | list[int | str]

GPUS_HELP = (
    "all; a number N for the first N cards (0: one server on the CPU); a list such as 0,2 or GPU-UUIDs; "
    "a single card as gpu2  [default: [host] gpus, or all]"
)


def runtime_option(command: Command) -> Command:
    """Add `--runtime`."""
    text = "the host's runtime folder  [default: /run/obcd-host, or your own runtime directory]"
    return click.option("--runtime", metavar="DIR", help=text)(command)


def plan_options(command: Command) -> Command:
    """Add `--gpus` and `--base-port`."""
    text = "port of the first card  [default: [host] base_port, or 11432]"
    port = click.option("--base-port", metavar="PORT", type=click.IntRange(1, 65535), help=text)
    return click.option("--gpus", metavar="WHICH", help=GPUS_HELP)(port(command))


def parse_gpus(text: str) -> Gpus:
    """Read `--gpus`: `all`, `cpu`, `4` (cards 0 to 3), `0,2`, `GPU-uuid,…`, `gpu2`.

    Raises:
        UsageError: If it is none of these.
    """
    if text == "all":
        return "all"
    if text in ("cpu", "0"):
        return 0
    if text.isascii() and text.isdigit():
        return list(range(_number(text, 256)))
    words = [word.strip() for word in text.split(",") if word.strip()]
    cards = [_card(word) for word in words]
    if not cards or len(set(cards)) != len(cards):
        raise UsageError(f"--gpus {text!r} names {'a card twice' if cards else 'no card'}: {GPUS_HELP}")
    return cards


def _card(word: str) -> int | str:
    index = word.removeprefix("gpu")
    if index.isascii() and index.isdigit():
        return _number(index, 1024)
    if word.upper().startswith(("GPU-", "MIG-")):
        return word
    raise UsageError(f"--gpus: {word!r} is no card: {GPUS_HELP}")


def _number(text: str, limit: int) -> int:
    number = int(text[:5])
    if number > limit:
        raise UsageError(f"--gpus {text[:20]} cannot be meant: no machine has so many")
    return number


def running_host(runtime: str | None) -> tuple[Path, Plan]:
    """Return the runtime folder and the plan of the host that runs.

    Raises:
        NoEndpointError: If there is none.
        InputError: If it is another user's.
    """
    folder = find_runtime(runtime)
    try:
        has_plan = (folder / FILE_NAME).exists()
    except PermissionError:
        raise InputError(f"{folder} is not yours to read: ask as the user who runs obcd host, or with sudo") from None
    if not has_plan:
        raise NoEndpointError(f"no obcd host runs here (nothing in {folder}): start one with obcd host")
    return folder, read_plan(folder)


def choose_servers(plan: Plan, target: str) -> list[Server]:
    """Return the servers that a person names: `2`, `gpu2`, a UUID, or `all`.

    Raises:
        UsageError: If there is no such server.
    """
    if target == "all":
        return list(plan.servers)
    server = plan.find(target)
    if server is None:
        raise UsageError(f"this host has no server {target!r}; it has {', '.join(s.program for s in plan.servers)}")
    return [server]
