from __future__ import annotations

import click

from obcd.manual.command_page import command_page, walk


@click.group(epilog="\b\nExit codes: 0 done,\n1 not.\n")
def tool() -> None:
    """make things."""


@tool.command(epilog="\b\nExamples:\n  tool part -x 3   why\n  tool part\n\n\b\nEnds at 5 *.\n")
@click.option("-x", "--extent", metavar="N", default=1, show_default=True, help="how far it goes")
@click.option("--secret", hidden=True)
@click.argument("name")
def part(extent: int, secret: str, name: str) -> None:
    """make one thing.

    It is small.
    """


@tool.command(hidden=True)
def inner() -> None:
    """not for people."""


PAGE = r"""
## tool

```text
tool [OPTIONS] COMMAND [ARGS]...
```

Make things.

Commands:

- `tool part`: make one thing.

Exit codes: 0 done, 1 not.

## tool part

```text
tool part [OPTIONS] NAME
```

Make one thing.

It is small.

Options:

- `-x, --extent N`: how far it goes [default: 1]

Examples:

```text
tool part -x 3   why
tool part
```

Ends at 5 \*.
"""


def test_page_shows_usage_help_options_and_examples_and_nothing_hidden() -> None:
    assert command_page(tool, "tool").partition("\n\n## ")[2] == PAGE.partition("## ")[2]


def test_walk_comes_to_every_command_that_is_not_hidden() -> None:
    assert [context.command_path for context in walk(tool, "tool")] == ["tool", "tool part"]
