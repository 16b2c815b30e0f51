"""The page `commands.md`: every command with its usage, help, arguments, options and examples, as click has them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import groupby

import click

from obcd.manual.markdown import escape

INTRODUCTION = """\
# Commands

This page lists every command with its usage, its options and examples, as `obcd COMMAND --help` shows them.

Options that several commands share mean the same in each. Results go to standard output, remarks to standard error.
"""
#: Columns of a usage line: wide enough for every one, so that the page does not depend on a terminal.
WIDTH = 200
#: Options that every command has.
EVERYWHERE = frozenset(["--help"])


def command_page(root: click.Command, name: str) -> str:
    """Return the page of a program.

    Args:
        root: The group of all commands.
        name: What the program is called.
    """
    return "\n".join([INTRODUCTION, *(line for context in walk(root, name) for line in _section(context))])


def walk(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """Yield the context of a command and of all below it that are not hidden, each before its own."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, parent, info_name=name, **settings)
    yield context
    if isinstance(command, click.Group):
        for part in command.list_commands(context):
            below = command.get_command(context, part)
            if below is not None and not below.hidden:
                yield from walk(below, part, context)


def _section(context: click.Context) -> Iterator[str]:
    command = context.command
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield from (f"## {context.command_path}", "", "```text", usage, "```", "")
    yield from _text(command.help or "")
    yield from _options(context)
    if isinstance(command, click.Group):
        yield from _parts(command, context)
    yield from _text(command.epilog or "")


def _options(context: click.Context) -> Iterator[str]:
    records = [  # an argument has no help text; it stands in the usage alone
        record
        for item in context.command.params
        if EVERYWHERE.isdisjoint(item.opts) and (record := item.get_help_record(context)) is not None and record[1]
    ]
    if records:
        yield from ("Options:", "")
        yield from (f"- `{names}`: {escape(' '.join(text.split()))}" for names, text in records)
        yield ""


def _parts(group: click.Group, context: click.Context) -> Iterator[str]:
    """Yield the commands below a group, each with its summary."""
    yield from ("Commands:", "")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield f"- `{context.command_path} {name}`: {escape(command.get_short_help_str(WIDTH))}"
    yield ""


def _text(text: str) -> Iterator[str]:
    """Yield help or epilog as Markdown: what is indented is code, the rest is paragraphs.

    click marks paragraphs that it does not fill by a line that holds a backspace alone.
    """
    lines = [line for line in inspect.cleandoc(text).splitlines() if line != "\b"]
    for is_code, group in groupby(lines, key=lambda line: None if not line.strip() else line.startswith(" ")):
        if is_code is None:
            continue
        if is_code:
            yield from ("```text", *inspect.cleandoc("\n" + "\n".join(group)).splitlines(), "```", "")
        else:
            yield from (_capital(escape(" ".join(line.strip() for line in group))), "")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
