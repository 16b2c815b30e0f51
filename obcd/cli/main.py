"""The `obcd` command: finds the subcommand, runs it, and turns errors into sentences and exit codes.

Every command is a click command in a module of its own, named in `COMMANDS` and imported only when it is asked for.
Nothing below this floor prints or exits.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import click

from obcd import __version__
from obcd.errors import ExitCode, ObcdError, naming
from obcd.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


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


#: {what the caller can put right: how, "" where the error's own words say it}; all else is a bug.
NOT_OURS = {
    errno.ENAMETOOLONG: "",
    errno.ENOSPC: "",
    errno.EDQUOT: "",
    errno.EFBIG: "",
    errno.EMFILE: ": let this process open more (ulimit -n 4096; LimitNOFILE=4096 in a unit)",
    errno.ENFILE: ": this machine has none left; end what opens so many, or: sudo sysctl fs.file-max=1000000",
    errno.ENOMEM: ": end what takes the memory",
}
STANDARD_OUTPUT = "standard output"


class _StandardOutput(io.FileIO):
    """Standard output whose errors name it, so that one which names nothing is of something else."""

    def write(self, data: ReadableBuffer) -> int:
        with naming(STANDARD_OUTPUT):
            return super().write(data)


def name_standard_output() -> None:
    """Have what this process cannot write to standard output say so, from here on."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):  # closed before we started
        return
    raw = _StandardOutput(stream.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        cast("io.BufferedWriter", raw) if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def describe(error: OSError) -> str:
    """Return the sentence about an error that no command expected: what failed, of what, and what to do."""
    names = " -> ".join(printable(os.fsdecode(name)) for name in (error.filename, error.filename2) if name)
    remedy = NOT_OURS.get(error.errno or 0, "")
    return f"{error.strerror or str(error) or type(error).__name__} ({names or _place(error)}){remedy}"


def _place(error: OSError) -> str:
    """Return which of our functions failed: for want of a name, whoever reads it can look there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "obcd" in Path(frame.filename).parts]
    return f"in {Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else type(error).__name__


def _drop_output() -> None:
    """Let what standard output did not take go nowhere: Python tries again at its end, with an exit code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; the only place where errors become codes."""
    try:
        outcome = cli.main(args=arguments, prog_name="obcd", standalone_mode=False)
        if sys.stdout is not None:  # closed before we started
            sys.stdout.flush()  # here, where what fails becomes a sentence
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
        _drop_output()
        return ExitCode.DONE
    except OSError as error:  # what no command expected: no descriptors left, standard output on a full disk
        with contextlib.suppress(OSError):
            click.echo(f"obcd: {describe(error)}", err=True)
        if error.filename == STANDARD_OUTPUT:
            _drop_output()
        return ExitCode.INPUT if error.errno in NOT_OURS else ExitCode.BUG
    return outcome if isinstance(outcome, int) else ExitCode.DONE
