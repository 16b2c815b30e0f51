"""`obcd help`: the pages of the manual, one page, or the help of a command."""

from __future__ import annotations

import difflib
import io
import sys

import click

from obcd.errors import ExitCode, UsageError
from obcd.manual.pages import first_sentence, page_names, read_page
from obcd.text import printable

EPILOG = """\b
Examples:
  obcd help
  obcd help configuration
  obcd help submit
  obcd help host endpoints
  obcd help commands | grep -n timeout
"""
#: Columns of a line of prose: longer ones are hard to read.
MOST_COLUMNS = 100


@click.command(name="help", epilog=EPILOG)
@click.argument("topic", nargs=-1)
@click.pass_context
def help_command(context: click.Context, topic: tuple[str, ...]) -> int:
    """list the pages of the manual, or show one.

    TOPIC is a page or a command. A terminal shows a page in a pager; a pipe or file gets its Markdown.
    """
    root = context.find_root()
    if not topic:
        _list_pages()
    elif len(topic) == 1 and topic[0] in page_names():
        _show_page(topic[0])
    elif (found := _find_command(root, topic)) is not None:
        click.echo(found.get_help())
    else:
        raise UsageError(_unknown(" ".join(topic), root))
    return ExitCode.DONE


def _list_pages() -> None:
    """List the pages, each with its first sentence, as click lists commands."""
    formatter = click.HelpFormatter(width=min(click.HelpFormatter().width, MOST_COLUMNS))
    rows = [(name, first_sentence(read_page(name))) for name in page_names()]
    with formatter.section("Pages"):
        formatter.write_dl(rows)
    formatter.write_paragraph()
    formatter.write_text("obcd help PAGE shows one, obcd help COMMAND the options of a command.")
    click.echo(formatter.getvalue(), nl=False)


def _show_page(name: str) -> None:
    text = read_page(name)
    if sys.stdout is not None and sys.stdout.isatty():
        click.echo_via_pager(_rendered(text))
    else:
        click.echo(text, nl=False)


def _rendered(text: str) -> str:
    """Return Markdown as a terminal shows it, with its colours."""
    from rich.console import Console  # noqa: PLC0415 - rich is for terminals only
    from rich.markdown import Markdown  # noqa: PLC0415

    file = io.StringIO()
    width = min(Console().width, MOST_COLUMNS)
    Console(file=file, force_terminal=True, width=width).print(Markdown(text, hyperlinks=False))
    return file.getvalue()


def _find_command(root: click.Context, words: tuple[str, ...]) -> click.Context | None:
    """Return the context of a command, e.g. of `host endpoints`; None where there is none."""
    context = root
    for word in words:
        group = context.command
        command = group.get_command(context, word) if isinstance(group, click.Group) else None
        if command is None:
            return None
        context = click.Context(command, context, info_name=word, **command.context_settings)
    return context


def _unknown(topic: str, root: click.Context) -> str:
    """Return the sentence about a topic that does not exist: the names most like it, and the pages that mention it."""
    commands = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    names = [*page_names(), *commands]
    near = [name for name in names if topic in name] or difflib.get_close_matches(topic, names)
    pages = [name for name in page_names() if topic.lower() in read_page(name).lower() and name not in near]
    advice = f"; nearest: {', '.join(near)}" if near else ""
    advice += f"; pages that mention it: {', '.join(pages)}" if pages else ""
    return f"there is no page or command {printable(topic)}{advice}; `obcd help` lists all pages"
