"""`obcd submit`: drop files safely, by hand or from cron, and with --wait wait for their answers."""

from __future__ import annotations

import contextlib
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO

import click

from obcd.cli.common import (
    START,
    check_profile,
    config_option,
    ending_cleanly,
    find_layout,
    is_running,
    is_watched,
    read_settings,
    read_status,
    root_option,
    say,
)
from obcd.clock import monotonic, wall
from obcd.config.settings import Settings
from obcd.core.forecasting.local_times import describe_moment, parse_moment
from obcd.core.request.keys.ignored_keys import describe_ignored, note_schema
from obcd.core.tables.file_format import form_of, stem_of
from obcd.errors import AlreadyRunningError, ExitCode, InputError, ObcdError, UsageError
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import home_names
from obcd.spool.submit import exactly_once as record
from obcd.spool.submit.dropping import Submitted, drop, open_source
from obcd.spool.submit.staging import Left, Staging
from obcd.spool.submit.target import find_target
from obcd.text import one_line, plural, printable

#: The conversions of strftime(3), without flags; Python passes others through, so a typing error would go unseen.
CONVERSIONS = frozenset("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%")
STDIN = Path("-")
#: Seconds for which a pipe is read whose prompts are not needed.
DRAIN_SECONDS = 300.0

EPILOG = """\b
Examples:
  obcd submit notes.jsonl
  obcd submit --profile clinical --wait notes.jsonl
  obcd submit --by "tomorrow 06:00" notes.jsonl
  make-prompts | obcd submit --name weekly-%G-W%V -
  obcd submit --from /var/spool/obcd/staging/clinical --profile clinical

\b
In a crontab write every % as \\%, or cron ends the command there:
  15 2 * * *  obcd submit --once --name nightly-\\%F /srv/prompts/nightly.jsonl
  0 4 * * 0   make-prompts | obcd submit --lock --once --name weekly-\\%G-W\\%V -

\b
Without a terminal it prints nothing if all goes well, and one line for each
fault, so that cron sends mail only then.

\b
Exit codes: 0 dropped, or (--once) submitted before; 2 wrong command line;
4 wrong configuration; 5 a file could not be dropped, or was rejected;
7 another --lock or --from, or an --once of that name, runs. With --wait: 0 every
line was answered, 3 some lines failed, 8 --timeout was reached (the jobs continue).
"""


class OneLineCommand(click.Command):
    """A command that prints each error on one line if no terminal is there, for cron's mail and the journal."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ObcdError as error:
            if is_watched() or "\n" not in str(error):
                raise
            lines = [line.strip() for line in str(error).splitlines()]
            raise type(error)(" ".join([lines[0], "; ".join(lines[1:])])) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """The files that one call drops, and the options."""

    files: tuple[Path, ...]
    staging: Path | None
    profile: str
    name: str
    once: bool
    lock: bool
    quiet: bool
    by: float | None
    settings: Settings
    layout: Layout

    @property
    def deadline(self) -> str:
        """The deadline as ISO 8601 with an offset; "" for none."""
        moment = datetime.fromtimestamp(self.by).astimezone() if self.by is not None else None
        return moment.isoformat(timespec="seconds") if moment is not None else ""

    def remark(self, text: str) -> None:
        """Print a remark that only a person at a terminal needs."""
        if is_watched() and not self.quiet:
            say(one_line(text))


@click.command(cls=OneLineCommand, epilog=EPILOG)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, allow_dash=True), metavar="[FILE…]")
@click.option(
    "--from", "staging", metavar="DIR", type=click.Path(path_type=Path),
    help="drop every settled file of a folder once, if the profile accepts its kind; move it into DIR/submitted/",
)  # fmt: skip
@click.option("--profile", default="", help="the profile to use: a folder of the inbox  [default: the inbox itself]")
@click.option(
    "--name", default="",
    help="the name in the inbox (one file only); %F and other conversions of strftime(3) give the date  "
    "[default: the file's name]",
)  # fmt: skip
@click.option(
    "--by", "deadline", metavar="TIME",
    help="when the answers should be there, e.g. \"tomorrow 06:00\", \"fri 18:00\", \"in 8 hours\" or ISO 8601: the "
    "job then goes before your others as far as it must, and obcd reports as soon as it will be late",
)  # fmt: skip
@click.option("--once", is_flag=True, help="do nothing if a job of this name was submitted before")
@click.option("--lock", is_flag=True, help="exit with 7 if another submit --lock of yours runs for the same profile")
@click.option("--wait", is_flag=True, help="wait for the answers")
@click.option("--timeout", type=click.FloatRange(0), help="seconds to wait  [default: no limit]")
@click.option("-q", "--quiet", is_flag=True, help="print only errors")
@config_option
@root_option
def submit(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    files: tuple[Path, ...], staging: Path | None, profile: str, name: str, deadline: str | None, once: bool,
    lock: bool, wait: bool, timeout: float | None, quiet: bool, config: str | None, root: str | None,
) -> int:  # fmt: skip
    """drop prompt files into the inbox; FILE - is standard input.

    A file appears there complete or not at all, with a checksum, so that the coordinator accepts it at once.
    """
    _check_combination(files, staging, name, once=once)
    by = parse_deadline(deadline, wall()) if deadline is not None else None
    settings = read_settings(config)
    layout = find_layout(root, settings)
    if not (profile and (layout.inbox / profile).is_dir()):  # the daemon's profiles are the inbox's folders
        check_profile(settings, profile)
    if not layout.inbox.is_dir():
        raise InputError(
            f"there is no inbox at {printable(str(layout.inbox))}: start a coordinator first, or give its --root"
        )
    load = _Load(
        files=files, staging=staging, profile=profile, name=expand_name(name, wall()), once=once, lock=lock,
        quiet=quiet, by=by, settings=settings, layout=layout,
    )  # fmt: skip
    with ending_cleanly():
        return _run(load, timeout, wait=wait)


def _run(load: _Load, timeout: float | None, *, wait: bool) -> int:
    with contextlib.ExitStack() as locks:
        if load.lock:
            locks.enter_context(record.exclusive(record.find_state_folder(), load.layout.inbox, load.profile))
        drops, code = _drop_all(load, reports_bad=not wait or is_watched())
        if is_watched() and drops and not load.quiet and not is_running(load.layout):
            say(f"no coordinator runs on {load.layout.root}: the dropped files wait for one ({START})")
        if load.by is not None and drops:
            _warn_of_deadline(load.layout, drops, load.by)
        if not wait or not drops:
            return code
        from obcd.cli.jobs.wait import wait_for_all  # noqa: PLC0415 - imported only for --wait

        try:
            waited = wait_for_all(drops, load.layout, timeout, quiet=load.quiet)
        except KeyboardInterrupt:
            say("no longer waiting; the jobs continue: see obcd status")
            return ExitCode.INTERRUPTED
        return code or waited


def _check_combination(files: tuple[Path, ...], staging: Path | None, name: str, *, once: bool) -> None:
    if staging is not None and (files or name or once):
        raise click.UsageError("--from takes neither FILE nor --name nor --once: it drops each file once anyway")
    if staging is None and not files:
        raise click.UsageError("nothing to drop: give FILE…, - for standard input, or --from DIR")
    if name and len(files) > 1:
        raise click.UsageError("--name is for one file")
    if STDIN in files and not name:
        raise click.UsageError("standard input needs a name in the inbox: give --name")


def parse_deadline(text: str, now: float) -> float:
    """Return the moment that --by means, in Unix seconds.

    Raises:
        UsageError: If it is not understood, or past.
    """
    try:
        by = parse_moment(text, now)
    except ValueError as error:
        raise UsageError(f"--by: {error}") from None
    if by <= now:
        raise UsageError(f"--by {printable(text)}: {describe_moment(by, now)} is past; nothing was dropped")
    return by


def _warn_of_deadline(layout: Layout, drops: list[Submitted], by: float) -> None:
    """Say at once which files will not be answered in time, if a coordinator's status shows it."""
    from obcd.cli.jobs.admission_forecast import foresee_late  # noqa: PLC0415 - imported only for --by
    from obcd.coordinator.view import View  # noqa: PLC0415

    if not is_running(layout):
        return
    try:
        view = View.from_json(read_status(layout))
    except (OSError, ValueError):  # another version, or this user may not read it: the coordinator reports it later
        return
    for text in foresee_late(view, drops, os.geteuid(), by, wall()):
        say(one_line(text))


def expand_name(name: str, now: float) -> str:
    """Put the local date and time into a name, e.g. `nightly-%F`.

    Raises:
        UsageError: If it holds a conversion that strftime does not have.
    """
    for conversion in re.findall("%.?", name, re.DOTALL):
        if conversion[1:] not in CONVERSIONS or conversion == "%":
            raise UsageError(
                f"--name {printable(name)}: strftime has no '{printable(conversion)}'; %F is the date, %% a percent "
                "sign (in a crontab \\%F and \\%\\%)"
            )
    expanded = time.strftime(name, time.localtime(now)) if "%" in name else name
    if "%" in name and "/" in expanded:
        raise UsageError(
            f"--name {printable(name)} gives '{printable(expanded)}', which is no name: it holds a '/'; use %F"
        )
    return expanded


def _drop_all(load: _Load, *, reports_bad: bool) -> tuple[list[Submitted], ExitCode]:
    """Drop the files of one call; one bad file does not stop the others.

    Args:
        reports_bad: Whether to print bad lines now (with --wait they are reported at the end).

    Returns:
        The files dropped into the inbox, and the code of the last fault.
    """
    drops: list[Submitted] = []
    code = ExitCode.DONE
    for file, attempt in _attempts(load):
        try:
            outcome = attempt()
        except (InputError, AlreadyRunningError) as error:
            say(one_line(f"obcd: {error}"))
            code = error.exit_code
            continue
        match outcome:
            case Submitted():
                _report(load, file, outcome, reports_bad=reports_bad)
                drops.append(outcome)
            case Left(name, ""):
                load.remark(f"{printable(name)} has not settled yet: it stays for the next run")
            case Left(_, fault):
                say(one_line(f"obcd: {fault}"))
                code = ExitCode.INPUT
            case record.Already(name, evidence):
                load.remark(f"{printable(name)} was submitted already, nothing to do: {evidence}")
    return drops, code


_Outcome = Submitted | Left | record.Already


def _attempts(load: _Load) -> Iterator[tuple[str, Callable[[], _Outcome]]]:
    """Yield the name of each file, and the function that drops it."""
    limit = load.settings.spool.max_line_bytes
    if load.staging is None:
        _check_files(load.files)
        yield from ((str(file), lambda file=file: _drop(load, file, limit)) for file in load.files)
        return
    staging = Staging(
        folder=load.staging.absolute(),
        inbox=load.layout.inbox,
        profile=load.profile,
        settle_seconds=load.settings.spool.settle_seconds,
        max_line_bytes=limit,
        reading=load.settings.reading_of(load.profile),
        accepts=load.settings.accepts(load.profile),
        by=load.deadline,
    )
    for outcome in staging.submit(wall()):
        yield outcome.name, lambda outcome=outcome: outcome  # type: ignore[misc]


def _no_file(path: Path) -> str:
    if not path.exists():
        return "there is no such file"
    return "it is a folder" if path.is_dir() else "it is not a file (for a pipe: … | obcd submit - --name NAME)"


def _check_files(files: tuple[Path, ...]) -> None:
    """Refuse, before anything is dropped, files that cannot be dropped."""
    for number, file in enumerate(files):
        if file != STDIN and not file.is_file():
            raise InputError(f"cannot drop {printable(str(file))}: {_no_file(file)}; nothing was dropped")
        if any(other.name == file.name for other in files[:number]):
            raise InputError(
                f"two of the files are called {printable(file.name)}: drop them one by one, with --name; "
                "nothing was dropped"
            )


def _drop(load: _Load, file: Path, limit: int) -> Submitted | record.Already:
    label = "standard input" if file == STDIN else str(file)
    reading, accepts = load.settings.reading_of(load.profile), load.settings.accepts(load.profile)
    found = find_target(load.layout.inbox, load.profile, _drop_name(load, file), reading, accepts)
    target = replace(found, by=load.deadline)
    with _open(load, file) as reader:
        if not load.once:
            return drop(reader, label, target, limit)
        outcome = record.submit_once(load.layout, reader, target, label, limit, record.find_state_folder())
        if file == STDIN and isinstance(outcome, record.Already):
            drain(reader, DRAIN_SECONDS)
        return outcome


def _drop_name(load: _Load, file: Path) -> str:
    """Return the name of a file in the inbox; a given name without an ending gets the file's ending."""
    if not load.name or form_of(load.name) is not None or form_of(file.name) is None:
        return load.name or file.name
    return load.name + file.name.removeprefix(stem_of(file.name))


def drain(reader: IO[bytes], seconds: float) -> None:
    """Read a pipe to its end, or its writer would die of a broken pipe and cron would send mail.

    Args:
        seconds: For how long; a writer that hangs or does not end dies of a broken pipe after that.
    """
    if not stat.S_ISFIFO(os.fstat(reader.fileno()).st_mode):
        return
    deadline, poll = monotonic() + seconds, select.poll()
    poll.register(reader, select.POLLIN)
    while (left := deadline - monotonic()) > 0 and poll.poll(left * 1000):
        if not os.read(reader.fileno(), 2**20):
            return


def _open(load: _Load, file: Path) -> IO[bytes]:
    if file != STDIN:
        return open_source(file)
    if sys.stdin is None:
        raise InputError("standard input is closed: nothing was dropped")
    if sys.stdin.isatty():
        load.remark("type the prompts here, one JSON object on each line; Ctrl-D ends them")
    return os.fdopen(os.dup(sys.stdin.fileno()), "rb")


def _schema_notes(load: _Load) -> dict[str, int]:
    """Return the remarks about the schema of the profile, if this configuration has the profile."""
    found: dict[str, int] = {}
    if load.settings.has_profile(load.profile):
        note_schema(found, load.settings.job_settings(load.profile))
    return found


def _report(load: _Load, file: str, submitted: Submitted, *, reports_bad: bool) -> None:
    file = printable(file)
    if submitted.bad and reports_bad:
        if is_watched():
            for line, why in submitted.bad_lines:
                say(f"{file}, line {line}: {why}")
        line, why = submitted.bad_lines[0]
        first = "" if is_watched() else f"; line {line}: {why}"
        say(f"{file}: {plural(submitted.bad, 'line')} will be in errors.jsonl{first}")
    for sentence in describe_ignored({**_schema_notes(load), **submitted.unobeyed}):
        load.remark(f"{file}: {sentence}")
    if is_watched() and not load.quiet:
        home = home_names(os.geteuid())[0] if load.layout.per_user else ""
        where = load.layout.outbox / home / submitted.profile / stem_of(submitted.name)
        place = f"{where}.<job>/ (that name is taken)" if where.exists() else f"{where}/"
        load.remark(f"{submitted.name}: {plural(submitted.prompts, 'prompt')} dropped; the answers come to {place}")
