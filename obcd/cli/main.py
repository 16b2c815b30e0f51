"""The `obcd` command: finds the subcommand, runs it, and turns errors into sentences and exit codes.

Every command is a click command in its own module, named in `COMMANDS` and imported only when it runs.
No lower floor prints or exits.
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
from click.shell_completion import CompletionItem

from obcd import __version__
from obcd.errors import ExitCode, ObcdError, naming
from obcd.text import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class CommandPlace(NamedTuple):
    """Where a command is (`module:attribute`), and its line in `obcd --help`; "" hides it."""

    attribute: str
    short_help: str


#: Set by a shell's completion script, e.g. `bash_complete`; click derives the name from the program's.
COMPLETE_VARIABLE = "_OBCD_COMPLETE"

#: {command name: its place}, in the order of `obcd --help`, which imports none of them
COMMANDS = {
    "batch": CommandPlace("obcd.cli.jobs.batch:batch", "answer prompt files in the foreground."),
    "submit": CommandPlace(
        "obcd.cli.jobs.submit:submit", "drop prompt files into the inbox; FILE - is standard input."
    ),
    "try": CommandPlace("obcd.cli.seeing.try_:try_lines", "answer a few lines of a file, and forecast the whole file."),
    "status": CommandPlace("obcd.cli.jobs.status:status", "show jobs, endpoints, and waiting files with the reason."),
    "cancel": CommandPlace(
        "obcd.cli.jobs.control:cancel", "end jobs now: publish their results; the rest can be retried."
    ),
    "pause": CommandPlace("obcd.cli.jobs.control:pause", "pause jobs; their requests in flight finish."),
    "resume": CommandPlace("obcd.cli.jobs.control:resume", "continue paused jobs."),
    "priority": CommandPlace("obcd.cli.jobs.control:priority", "serve a job before (10) or after (-10) others."),
    "retry": CommandPlace("obcd.cli.jobs.retry:retry", "drop the failed lines of published jobs again."),
    "up": CommandPlace("obcd.cli.daemon.up:up", "run servers and coordinator under one supervisord."),
    "coordinator": CommandPlace("obcd.cli.daemon.coordinator:coordinator", "run the daemon in the foreground."),
    "page": CommandPlace("obcd.cli.seeing.page:page", "serve a page that shows jobs, endpoints and cards."),
    "api": CommandPlace("obcd.cli.daemon.api:api", "serve OpenAI's Files and Batches over HTTP."),
    "reload": CommandPlace("obcd.cli.daemon.reload:reload", "make the coordinator read its configuration again."),
    "host": CommandPlace("obcd.cli.host.run:host", "run one Ollama per GPU under supervisord."),
    "hosts": CommandPlace(
        "obcd.cli.daemon.hosts:hosts", "list the hosts that have registered, and why one is not used."
    ),
    "slurm": CommandPlace("obcd.cli.host.slurm:slurm", "print an sbatch script that runs GPU hosts in Slurm."),
    "ray": CommandPlace("obcd.cli.host.ray:ray_group", "run servers on the GPUs of a Ray cluster."),
    "serve-gpu": CommandPlace("obcd.cli.host.serve_gpu:serve_gpu", "run the Ollama server of GPU N."),
    "host-watch": CommandPlace("obcd.cli.host.watch:host_watch", ""),
    "host-register": CommandPlace("obcd.cli.host.register:host_register", ""),
    "report": CommandPlace(
        "obcd.cli.seeing.report:report", "write a report on a job, or on all jobs of some days, as HTML."
    ),
    "metrics": CommandPlace("obcd.cli.seeing.metrics:metrics", "print metrics for Prometheus or node_exporter."),
    "check": CommandPlace("obcd.cli.daemon.check:check", "check configuration, installation, [host] and endpoints."),
    "notify": CommandPlace("obcd.cli.daemon.notify:notify", "try the notifications of [notify]."),
    "bench": CommandPlace("obcd.cli.measure.bench:bench", "measure how many requests in flight are best."),
    "burn-in": CommandPlace("obcd.cli.measure.burn_in:burn_in", "load all cards fully and find the one that differs."),
    "prepare": CommandPlace("obcd.cli.files.prepare:prepare", "make a prompt file from texts."),
    "convert": CommandPlace("obcd.cli.files.convert:convert_lines", "convert prompt files between formats."),
    "verify": CommandPlace(
        "obcd.cli.files.verify:verify_folders", "check that a published job is complete, line by line."
    ),
    "print": CommandPlace("obcd.cli.files.print:print_answers", "print prompts and answers."),
    "merge": CommandPlace("obcd.cli.files.merge:merge", "merge the JSON in the answers into one document."),
    "schema": CommandPlace("obcd.cli.files.schema:schema", "draft a JSON schema from examples."),
    "cache": CommandPlace("obcd.cli.jobs.cache:cache", "show or clear the cache of responses."),
    "vectors": CommandPlace(
        "obcd.cli.files.vectors:vectors", "write the vectors of `embed` lines as JSONL or Parquet."
    ),
    "embedded": CommandPlace("obcd.cli.measure.standins:embedded", "run a server with real inference on the CPU."),
    "simulate": CommandPlace("obcd.cli.measure.standins:simulate", "run simulated Ollama servers."),
    "demo": CommandPlace("obcd.cli.daemon.demo:demo", "run two example jobs on this machine and show their answers."),
    "install": CommandPlace("obcd.cli.daemon.install:install", "install units, folders and configuration for systemd."),
    "uninstall": CommandPlace(
        "obcd.cli.daemon.install:uninstall", "stop obcd and remove it; data and your changes stay."
    ),
    "help": CommandPlace("obcd.cli.help:help_command", "list the pages of the manual, or show one."),
    "completion": CommandPlace(
        "obcd.cli.daemon.completion:completion", "print the script that completes obcd's words in a shell."
    ),
}

EPILOG = """\b
Exit codes: 0 done, 1 a bug, 2 usage, 3 some lines failed or were left out,
4 configuration, 5 input, 6 no endpoint, 7 already running, 8 timed out,
130 interrupted.
"""


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if the name is unknown."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, attribute = place.attribute.split(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their lines in `COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.short_help) for name, place in COMMANDS.items() if place.short_help])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the names of commands and options that begin so, importing no command."""
        names = [
            CompletionItem(name, help=place.short_help)
            for name, place in COMMANDS.items()
            if place.short_help and name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="obcd")
def cli() -> None:
    """Batch any number of prompts over any number of GPUs that run Ollama.

    Drop a JSONL file into the inbox, and find the answers in the outbox.
    """


#: {error that the user can repair: how, "" where the error's own text says it}; every other one is a bug.
NOT_OURS = {
    errno.ENAMETOOLONG: "",
    errno.ENOSPC: "",
    errno.EDQUOT: "",
    errno.EFBIG: "",
    errno.EMFILE: ": let this process open more (ulimit -n 4096; LimitNOFILE=4096 in a unit)",
    errno.ENFILE: ": this machine has none left; end what opens so many, or: sudo sysctl fs.file-max=1000000",
    errno.ENOMEM: ": end the process that uses the memory",
}
STANDARD_OUTPUT = "standard output"


class _StandardOutput(io.FileIO):
    """Standard output whose errors name it, so that an error without a name comes from something else."""

    def write(self, data: ReadableBuffer) -> int:
        with naming(STANDARD_OUTPUT):
            return super().write(data)


def name_standard_output() -> None:
    """Make errors of writing to standard output name it, from now on."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):  # closed before obcd started
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
    """Return the message for an error that no command expected: what failed, on which file, and what to do."""
    names = " -> ".join(printable(os.fsdecode(name)) for name in (error.filename, error.filename2) if name)
    remedy = NOT_OURS.get(error.errno or 0, "")
    return f"{error.strerror or str(error) or type(error).__name__} ({names or _place(error)}){remedy}"


def _place(error: OSError) -> str:
    """Return which function of obcd failed: without a file name, this is the only hint for the reader."""
    ours = Path(__file__).parents[1]  # and not any folder called obcd: a checkout with .venv in it has that name too
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ours)]
    return f"in {Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else type(error).__name__


def _usage_text(error: click.ClickException) -> str:
    """Return the message for a wrong command line: one line, as other errors have; all help for `obcd` alone."""
    text = error.format_message()
    if text.startswith("Usage:"):
        return text
    context = getattr(error, "ctx", None)
    see = f" (see {context.command_path} --help)" if context is not None else ""
    return f"obcd: {' '.join(text.split()).removesuffix('.')}{see}"


def _name_page(error: ObcdError) -> None:
    """Name the page of the manual that explains an error, to a person: scripts get the sentence alone."""
    if error.page and sys.stderr is not None and sys.stderr.isatty():
        click.echo(f"see: obcd help {error.page}", err=True)


def _drop_output() -> None:
    """Discard the rest of standard output: Python writes it again when it exits, and would set its own exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _execute(arguments: list[str]) -> object:
    """Run the command, or answer the completion script of a shell, which wants the words that fit and nothing else."""
    wanted = os.environ.get(COMPLETE_VARIABLE)
    if not wanted:
        return cli.main(args=arguments, prog_name="obcd", standalone_mode=False)
    from obcd.cli.daemon.completion import answer_shell  # noqa: PLC0415 - for completion only

    return answer_shell(cli, wanted)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; the only place where errors become codes."""
    try:
        outcome = _execute(arguments)
        if sys.stdout is not None:  # closed before obcd started
            sys.stdout.flush()  # here, where a failure becomes a message
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        click.echo(_usage_text(error), err=True)
        return ExitCode.USAGE
    except ObcdError as error:
        click.echo(f"obcd: {error}", err=True)
        _name_page(error)
        return error.exit_code
    except (BrokenPipeError, SystemExit):  # `obcd print | head`: the reader closed the pipe; click raises SystemExit
        _drop_output()
        return ExitCode.DONE
    except OSError as error:  # unexpected: no descriptors left, standard output on a full disk
        with contextlib.suppress(OSError):
            click.echo(f"obcd: {describe(error)}", err=True)
        if error.filename == STANDARD_OUTPUT:
            _drop_output()
        return ExitCode.INPUT if error.errno in NOT_OURS else ExitCode.BUG
    return outcome if isinstance(outcome, int) else ExitCode.DONE
