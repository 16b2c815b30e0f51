"""The lists of commands that `--help` shows, on a terminal of 80 columns."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from obcd.cli.host.run import host
from obcd.cli.main import COMMANDS, cli


@pytest.mark.parametrize("group", [cli, host], ids=["obcd", "obcd host"])
def test_every_command_is_told_in_one_whole_line(group: click.Group) -> None:
    context = click.Context(group)
    shown = [name for name in group.list_commands(context) if not group.get_command(context, name).hidden]  # type: ignore[union-attr]

    listed = CliRunner().invoke(group, ["--help"], terminal_width=80).output.partition("Commands:\n")[2]
    rows = listed.partition("\n\n")[0].splitlines()

    assert [row.split()[0] for row in rows] == shown
    assert [row for row in rows if not row.endswith(".") or row.endswith("...")] == []


def test_list_of_commands_says_of_each_what_it_says_of_itself() -> None:
    context = click.Context(cli)
    commands = {name: cli.get_command(context, name) for name in COMMANDS}

    said = {name: "" if found.hidden else found.get_short_help_str(200) for name, found in commands.items() if found}

    assert said == {name: place.short_help for name, place in COMMANDS.items()}
