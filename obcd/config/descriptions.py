"""The descriptions of the configuration's keys: the comments of the sample `etc/obcd.toml`, which is their one source.

The manual shows them, and the JSON Schema of every table carries them (`values.Table`). Keys that follow each other
without a comment between them share the comment above the first.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from obcd.package_data import shared

SECTION = re.compile(r"^# --- .+ -+$")
TABLE = re.compile(r"^(?:# )?\[(?P<table>\w+)(?:\.\w+)?\]$")
KEY = re.compile(r"^(?:# )?(?P<line>(?P<key>[a-z_]+) = .*?(?:\s# (?P<comment>[^\"]+))?)$")
#: The table whose keys are described where they stand first; the sample only shows some of them there.
PROFILES = "profiles"

#: {model of the configuration: its table; "" is the top level}
TABLE_NAMES = {
    "Settings": "",
    "Instance": "ollama_instances",
    "Requests": "requests",
    "Host": "host",
    "Cluster": "cluster",
    "Notifications": "notify",
    "ProfileNotifications": "notify",
    "Spool": "spool",
    "Api": "api",
    "Page": "page",
    "Profile": PROFILES,
}


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What the sample says about keys that belong together.

    Attributes:
        table: Name of the table, e.g. `requests`; "" for the top level.
        keys: In the order of the sample; empty for what is said about the table itself.
        text: Sentences in one line; a command that is shown stands in a separate line, indented by four spaces.
    """

    table: str
    keys: tuple[str, ...]
    text: str


@cache
def key_descriptions() -> tuple[KeyDescription, ...]:
    """Return what the sample says, in its order."""
    return tuple(parse_sample(shared("obcd.toml").read_text("utf-8")))


def describe_key(table: str, key: str) -> str:
    """Return the description of a key as one line, "" where the sample has none.

    Args:
        table: Name of the table, "" for the top level; a key of a profile is described where it stands first.
    """
    tables = ("", "requests") if table == PROFILES else (table,)
    found = (item.text for item in key_descriptions() if item.table in tables and key in item.keys)
    return " ".join(next(found, "").split())


def add_descriptions(schema: dict[str, Any], model: type) -> None:
    """Give the properties of a table's JSON Schema their descriptions, where they have none: a `json_schema_extra`."""
    table = TABLE_NAMES.get(model.__name__)
    for key, item in schema.get("properties", {}).items():
        text = "" if table is None else describe_key(table, key)
        if text:
            item.setdefault("description", text)


def parse_sample(text: str) -> Iterator[KeyDescription]:
    """Yield the descriptions of a sample; its keys may be switched off, as in `# think = false`."""
    table, introduction = "", list[str]()
    comment, keys = list[str](), list[str]()
    for line in [*text.splitlines(), ""]:
        key, header = KEY.match(line), TABLE.match(line)
        if key and _is_toml(key["line"]):
            if key["comment"] is None or table == PROFILES:
                keys.append(key["key"])
            else:
                yield KeyDescription(table, (key["key"],), key["comment"])
            continue
        if keys:
            yield from _described(table, keys, comment)
            comment, keys = [], []
        if header:
            table = header["table"]
            yield from _described(table, [], comment or introduction)
        if header or SECTION.match(line):
            comment, introduction = [], []
        elif not line:
            comment, introduction = [], comment or introduction
        elif line.startswith("#"):
            comment.append(line[1:].removeprefix(" "))


def _described(table: str, keys: list[str], comment: list[str]) -> Iterator[KeyDescription]:
    if comment:
        yield KeyDescription(table, tuple(keys), "".join(map(_joined, comment)).strip())


def _joined(line: str) -> str:
    """Return a line of a comment as part of one long line; what is indented stands alone."""
    return f"\n    {line.strip()}\n" if line.startswith("  ") else f"{line} "


def _is_toml(line: str) -> bool:
    """Return whether a line is a key with a value, and not prose that begins like one."""
    try:
        tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return False
    return True
