"""The `obcd` command: finds the subcommand, runs it, and turns errors into sentences and exit codes.

Every command is a click command in a module of its own, named in `COMMANDS` and imported only when it is asked for.
Nothing below this floor prints or exits.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from typing import NamedTuple, cast

import click

from obcd import __version__
from obcd.errors import ExitCode, ObcdError


class CommandPlace(NamedTuple):
    """Where a command is found: `module:attribute`, and what `obcd --help` says of it; "" hides it."""

    attribute: str
    short_help: str


#: {command name: its place}, in the order `obcd --help` lists them; that list is shown without importing any
COMMANDS = {
    "batch": CommandPlace("obcd.cli.jobs.batch:batch", "answer one prompt file in the foreground."),
    "submit": CommandPlace(
        "obcd.cli.jobs.submit:submit", "drop prompt files into the inbox; FILE - is standard input."
    ),
    "status": CommandPlace("obcd.cli.jobs.status:status", "show jobs, endpoints, and what waits and why."),
    "cancel": CommandPlace(
        "obcd.cli.jobs.control:cancel", "end jobs now: answers are published, the rest can be retried."
    ),
    "pause": CommandPlace("obcd.cli.jobs.control:pause", "let jobs stand still; what is in flight finishes."),
    "resume": CommandPlace("obcd.cli.jobs.control:resume", "let paused jobs go on."),
    "priority": CommandPlace("obcd.cli.jobs.control:priority", "serve a job before (10) or after (-10) others."),
    "retry": CommandPlace("obcd.cli.jobs.retry:retry", "drop the failed lines of published jobs again."),
    "up": CommandPlace("obcd.cli.daemon.up:up", "run servers and coordinator under one supervisord."),
    "coordinator": CommandPlace("obcd.cli.daemon.coordinator:coordinator", "run the daemon in the foreground."),
    "reload": CommandPlace("obcd.cli.daemon.reload:reload", "have the coordinator read its configuration again."),
    "host": CommandPlace("obcd.cli.host.run:host", "run one Ollama per GPU under supervisord."),
    "serve-gpu": CommandPlace("obcd.cli.host.serve_gpu:serve_gpu", "become the Ollama server of GPU N."),
    "host-watch": CommandPlace("obcd.cli.host.watch:host_watch", ""),
    "check": CommandPlace("obcd.cli.daemon.check:check", "check configuration, installation, [host] and endpoints."),
    "bench": CommandPlace("obcd.cli.measure.bench:bench", "measure how many requests in flight are best."),
    "burn-in": CommandPlace("obcd.cli.measure.burn_in:burn_in", "load all cards fully and name the odd one."),
    "prepare": CommandPlace("obcd.cli.files.prepare:prepare", "make a prompt file from texts."),
    "convert": CommandPlace(
        "obcd.cli.files.convert:convert_lines", "convert prompt files between the forms people have."
    ),
    "verify": CommandPlace(
        "obcd.cli.files.verify:verify_folders", "prove that a published job is complete, or say what is wrong."
    ),
    "print": CommandPlace("obcd.cli.files.print:print_answers", "print prompts and answers."),
    "merge": CommandPlace("obcd.cli.files.merge:merge", "merge the JSON in the answers into one document."),
    "schema": CommandPlace("obcd.cli.files.schema:schema", "draft a JSON schema from examples."),
    "cache": CommandPlace("obcd.cli.jobs.cache:cache", "show or clear the answers that are remembered."),
    "vectors": CommandPlace(
        "obcd.cli.files.vectors:vectors", "write the vectors of `embed` lines as JSONL or Parquet."
    ),
    "embedded": CommandPlace("obcd.cli.measure.standins:embedded", "run a server with real inference on the CPU."),
    "simulate": CommandPlace("obcd.cli.measure.standins:simulate", "run simulated Ollama servers."),
    "demo": CommandPlace("obcd.cli.daemon.demo:demo", "run two example jobs on this machine and show their answers."),
    "install": CommandPlace(
        "obcd.cli.daemon.install:install", "put units, folders and configuration in place for systemd."
    ),
    "uninstall": CommandPlace(
        "obcd.cli.daemon.install:uninstall", "stop obcd and take it away; data and your changes stay."
    ),
}

EPILOG = """\b
Exit codes: 0 done, 1 a bug, 2 usage, 3 some lines failed or were left out,
4 configuration, 5 input, 6 no endpoint, 7 already running, 8 timed out,
130 interrupted.
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
        module, attribute = place.attribute.split(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what `COMMANDS` says of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.short_help) for name, place in COMMANDS.items() if place.short_help])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="obcd")
def cli() -> None:
    """Batch any number of prompts over any number of GPUs that run Ollama.

    Drop a JSONL file into a folder, find the answers in another.
    """


#: What the caller can mend: a name that is too long, no room where the output goes.
NOT_OURS = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
        return ExitCode.INPUT if error.errno in NOT_OURS else ExitCode.BUG
    return outcome if isinstance(outcome, int) else ExitCode.DONE
