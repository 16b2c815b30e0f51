"""Where in the inbox a drop goes: the folder of its profile, a valid name, and the settings with which it is read."""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from obcd.core.request.rows import PLAIN, Reading
from obcd.core.tables.file_format import JSON, JSONL, form_of, why_not_taken
from obcd.errors import InputError
from obcd.spool.inbox.names import MAX_NAME_BYTES
from obcd.text import printable


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a drop.

    Attributes:
        path: The path in the inbox.
        profile: The profile of that folder; "" for the inbox itself.
        reading: The settings with which its lines are read there.
        parent: The job that it retries, "" for none.
        accepts: The kinds of files that are accepted there beside JSONL.
        trial: `keep` or `remove` if a few lines are tried: what becomes of the published folder. "" otherwise.
        submitter: The user for whom it is dropped by the API, "" for the user of this process.
        is_checked: Whether its lines are checked before it is dropped; the coordinator checks them in any case.
        by: When its lines should be answered, as ISO 8601 with an offset; "" for no deadline.
    """

    path: Path
    profile: str = ""
    reading: Reading = PLAIN
    parent: str = ""
    trial: str = ""
    accepts: Set[str] = frozenset()
    submitter: str = ""
    is_checked: bool = True
    by: str = ""


def find_target(
    inbox: Path, profile: str, name: str, reading: Reading = PLAIN, accepts: Set[str] = frozenset()
) -> Target:
    """Return the target of a drop of this name.

    Args:
        reading: The settings with which its lines are read there.
        accepts: The kinds of files that are accepted there beside JSONL.

    Raises:
        InputError: If the name is not plain, its kind is not accepted, or the inbox has no such profile.
    """
    folder = inbox / profile if profile else inbox
    if profile and not folder.is_dir():
        raise InputError(
            f"no folder {printable(str(folder))}: '{printable(profile)}' is not a profile of the running daemon: "
            "add [profiles.…] to its configuration, then obcd reload"
        )
    form = form_of(name)
    if form is not None and form.kind == JSON and JSON not in accepts:
        name += f".{JSONL}"  # it is taken if it holds lines
    path = folder / drop_name(name)
    if why := why_not_taken(path.name, accepts):
        raise InputError(f"{printable(path.name)}: {why}")
    return Target(path, profile, reading, accepts=accepts)


def drop_name(name: str) -> str:
    """Return the name in the inbox of a file that the user calls `name`.

    Raises:
        InputError: If it is not a valid name.
    """
    if form_of(name) is None:
        name += f".{JSONL}"
    if not name.isprintable() or name.startswith(".") or "/" in name or len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise InputError(f"'{printable(name)}' cannot be a job's name: give a plain one with --name")
    return name
