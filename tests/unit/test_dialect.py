"""What people read is plain technical English: the patterns of `tests/dialect.txt` occur nowhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import click
import pytest

from obcd.cli.main import cli
from tests.support import SOURCES

LINES = (SOURCES / "tests" / "dialect.txt").read_text("utf-8").splitlines()
#: {pattern: what to write instead}
PATTERNS = dict(line.split("\t") for line in LINES if not line.startswith("#"))
#: The page that lists the words.
EXEMPT = SOURCES / "etc" / "manual" / "glossary.md"
FOLDERS = ("obcd", "etc", "systemd")
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")


@functools.cache
def texts() -> tuple[tuple[str, str], ...]:
    """Return the name and the text of all that people read: files, and the help of every command."""
    files = [path for name in FOLDERS for path in sorted((SOURCES / name).rglob("*")) if path.is_file()]
    pages = [*files, *(SOURCES / name for name in PAGES)]
    read = [
        (str(path.relative_to(SOURCES)), path.read_text("utf-8", "replace"))
        for path in pages
        if path != EXEMPT and path.suffix != ".pyc"
    ]
    return (*read, *helps(cli, click.Context(cli, info_name="obcd")))


def helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield f"{context.command_path} --help", " ".join(command.get_help(context).split())
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from helps(inner, click.Context(inner, info_name=name, parent=context))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_word_of_the_dialect_occurs_nowhere(pattern: str) -> None:
    expression = re.compile(pattern, re.IGNORECASE)

    found = [
        f"{name}:{text[: match.start()].count(chr(10)) + 1}: {match[0]}"
        for name, text in texts()
        for match in expression.finditer(text)
    ]

    assert not found, f"write instead: {PATTERNS[pattern]}\n" + "\n".join(found)
