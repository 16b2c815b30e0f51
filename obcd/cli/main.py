"""The `obcd` command: finds the subcommand, runs it, and turns errors into sentences and exit codes.

Every command is a click command in a module of its own, named in `COMMANDS` and imported only when it is asked for.
Nothing below this floor prints or exits.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import cast

import click

from obcd import __version__
from obcd.errors import ExitCode, ObcdError

#: {command name: "module:attribute" of its click command}, in the order `obcd --help` lists them
COMMANDS = {
    "batch": "obcd.cli.batch:batch",
    "submit": "obcd.cli.submit:submit",
    "status": "obcd.cli.status:status",
    "cancel": "obcd.cli.control:cancel",
    "pause": "obcd.cli.control:pause",
    "resume": "obcd.cli.control:resume",
    "priority": "obcd.cli.control:priority",
    "retry": "obcd.cli.retry:retry",
    "up": "obcd.cli.up:up",
    "coordinator": "obcd.cli.coordinator:coordinator",
    "reload": "obcd.cli.reload:reload",
    "host": "obcd.cli.host:host",
    "serve-gpu": "obcd.cli.serve_gpu:serve_gpu",
    "host-watch": "obcd.cli.host_watch:host_watch",
    "check": "obcd.cli.check:check",
    "bench": "obcd.cli.bench:bench",
    "burn-in": "obcd.cli.burn_in:burn_in",
    "prepare": "obcd.cli.reports:prepare",
    "verify": "obcd.cli.verify:verify_folders",
    "print": "obcd.cli.reports:print_answers",
    "merge": "obcd.cli.reports:merge",
    "schema": "obcd.cli.schema:schema",
    "vectors": "obcd.cli.vectors:vectors",
    "embedded": "obcd.cli.standins:embedded",
    "simulate": "obcd.cli.standins:simulate",
    "demo": "obcd.cli.demo:demo",
    "install": "obcd.cli.install:install",
    "uninstall": "obcd.cli.install:uninstall",
}

EPILOG = """\b
Exit codes: 0 done, 1 a bug, 2 usage, 3 some lines failed or were left out,
4 configuration, 5 input, 6 no endpoint, 7 already running, 8 timed out.
"""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None when there is none of that name."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, attribute = place.split(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="obcd")
def cli() -> None:
    """Batch any number of prompts over any number of GPUs that run Ollama.

    Drop a JSONL file into a folder, find the answers in another.
    """


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; the only place where errors become codes."""
    try:
        outcome = cli.main(args=arguments, prog_name="obcd", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except ObcdError as error:
        click.echo(f"obcd: {error}", err=True)
        return error.exit_code
    except (BrokenPipeError, SystemExit):  # `obcd print | head`: the reader has enough; click turns that into an exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except OSError as error:  # what no command expected: no descriptors left, standard output on a full disk
        with contextlib.suppress(OSError):
            click.echo(f"obcd: {error.strerror or error} ({error.filename or 'standard output'})", err=True)
        return ExitCode.BUG
    return outcome if isinstance(outcome, int) else ExitCode.DONE
