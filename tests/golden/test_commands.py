"""The command line: every command with its options and arguments, as click has them; no prose."""

from __future__ import annotations

import json
from typing import Any

import click

from obcd.cli.main import cli
from tests.golden.golden import assert_golden


def test_commands_and_their_parameters_are_what_they_were() -> None:
    assert_golden("commands.json", dict(_commands(cli, "obcd", None)))


def _commands(command: click.Command, name: str, parent: click.Context | None) -> list[tuple[str, Any]]:
    """Return `(whole name, what it takes)` of a command and of all below it."""
    context = click.Context(command, parent, info_name=name, **command.context_settings)
    normalize = context.token_normalize_func
    facts: dict[str, Any] = {
        "hidden": command.hidden,
        "deprecated": bool(command.deprecated),
        "takes_other_options": context.ignore_unknown_options,
        "takes_other_arguments": context.allow_extra_args,
        "--a_b_is_read_as": normalize("--a_b") if normalize is not None else "--a_b",
        "help_options": context.help_option_names,
        "parameters": [
            _parameter(item, context) for item in command.params
        ],  # click keeps the help option of old contexts
    }
    found = [(name, facts)]
    if isinstance(command, click.Group):
        facts["needs_a_command"] = not command.invoke_without_command
        for part in command.list_commands(context):
            below = command.get_command(context, part)
            assert below is not None
            found += _commands(below, f"{name} {part}", context)
    return found


def _parameter(item: click.Parameter, context: click.Context) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kind": item.param_type_name,
        "names": [*item.opts, *item.secondary_opts] if item.metavar is None or isinstance(item, click.Option) else None,
        "metavar": item.metavar,
        "type": _telling({key: _plain(value) for key, value in item.type.to_info_dict().items()}),
        "default": _plain(item.get_default(context, call=False)),
        "required": item.required,
        "multiple": item.multiple,
        "nargs": item.nargs,
        "envvar": item.envvar,
    }
    if isinstance(item, click.Option):
        facts |= {
            "is_flag": item.is_flag,
            "flag_value": None if item.flag_value is True else _plain(item.flag_value),
            "count": item.count,
            "hidden": item.hidden,
        }
    return _telling(facts)


def _telling(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that say something: what is null or false goes without saying."""
    return {key: value for key, value in facts.items() if value is not None and value is not False}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; what click marks as not set is None."""
    if type(value).__name__ == "Sentinel":
        return None
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return str(value)
