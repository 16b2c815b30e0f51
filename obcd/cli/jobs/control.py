"""`obcd cancel`, `pause`, `resume`, `priority`: put a control file into the inbox and wait for its effect."""

from __future__ import annotations

import click

from obcd.cli.common import START, Command, config_option, find_layout_anyway, find_view, is_running, root_option, say
from obcd.client.orders.controlling import ControlledJob, control_job
from obcd.core.pending.fair_share import LEAST_PRIORITY, MOST_PRIORITY
from obcd.core.tables.file_format import SUFFIX, form_of
from obcd.errors import ExitCode, InputError, TimedOutError
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import ControlVerb
from obcd.spool.inbox.drops import Key
from obcd.text import printable

EPILOG = """\b
JOB is the id of a job, or the name it was dropped with: notes.jsonl, clinical/notes.jsonl
(this means the newest unfinished job of that name). obcd status lists both.

\b
Only the submitter of a job (the owner of the dropped file), the daemon's user and
root may control it. Without this command, for example over NFS, SFTP or Samba, put a
file into the folder in which notes.jsonl was dropped; the file may be empty:
  notes.jsonl.cancel        the lines without a result become failures, in retry.jsonl
  notes.jsonl.pause         the job is paused as long as this file is there
  notes.jsonl.resume        ends the pause
  notes.jsonl.priority-10   from -100 to 100, higher first, among your own jobs;
                            the daemon's user sets it among the jobs of all users
  notes.jsonl.show          the results so far are in outbox/notes.partial/ as long as
                            this file is there (obcd print --follow)
If a file is not obeyed, notes.jsonl.cancel.waiting/why.txt in the outbox says why.

\b
Exit codes: 0 done, 2 wrong command line, 5 there is no such job, or it belongs to
another user, 8 no outcome within --timeout (the control file stays and takes effect later).
"""


def _control_options(command: Command) -> Command:
    text = "seconds to wait for the outcome"
    command = click.option("--timeout", type=click.FloatRange(0), default=30.0, show_default=True, help=text)(command)
    return root_option(config_option(command))


_jobs_argument = click.argument("jobs", nargs=-1, required=True, metavar="JOB…")


@click.command(epilog=EPILOG)
@_jobs_argument
@_control_options
def cancel(jobs: tuple[str, ...], timeout: float, config: str | None, root: str | None) -> int:
    """end jobs now: publish their results; the rest can be retried."""
    return _control_all(jobs, ControlVerb.CANCEL, 0, timeout, config, root)


@click.command(epilog=EPILOG)
@_jobs_argument
@_control_options
def pause(jobs: tuple[str, ...], timeout: float, config: str | None, root: str | None) -> int:
    """pause jobs; their requests in flight finish."""
    return _control_all(jobs, ControlVerb.PAUSE, 0, timeout, config, root)


@click.command(epilog=EPILOG)
@_jobs_argument
@_control_options
def resume(jobs: tuple[str, ...], timeout: float, config: str | None, root: str | None) -> int:
    """continue paused jobs."""
    return _control_all(jobs, ControlVerb.RESUME, 0, timeout, config, root)


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": True})
@click.argument("job")
@click.argument("number", type=click.IntRange(LEAST_PRIORITY, MOST_PRIORITY))
@_control_options
def priority(job: str, number: int, timeout: float, config: str | None, root: str | None) -> int:
    """serve a job before (10) or after (-10) others."""
    return _control_all((job,), ControlVerb.PRIORITY, number, timeout, config, root)


def _control_all(
    words: tuple[str, ...], verb: ControlVerb, value: int, timeout: float, config: str | None, root: str | None
) -> int:
    layout, fault = find_layout_anyway(config, root)
    if not layout.inbox.is_dir():
        raise fault or InputError(f"there is no inbox at {printable(str(layout.inbox))}: give the coordinator's --root")
    code = ExitCode.DONE
    for word in words:
        try:
            _control(layout, _find(layout, word), verb, value, timeout)
        except (InputError, TimedOutError) as error:
            say(f"obcd: {error}")
            code = error.exit_code
    return code


def _find(layout: Layout, word: str) -> ControlledJob:
    """Return the job that a word of the command line names.

    Raises:
        InputError: If this user can see that there is no unfinished job of that name.
    """
    status = find_view(layout) if is_running(layout) else None
    name = word if form_of(word) is not None else word + SUFFIX
    profile, _, plain = name.rpartition("/")
    if status is None:  # the status is not readable, or no coordinator runs: a coordinator will find the job
        return ControlledJob(Key(profile, plain))
    jobs = status.all_jobs
    for job in jobs:
        if job.job == word:
            return ControlledJob(Key(job.profile, job.name), word)
    keys = [Key(job.profile, job.name) for job in jobs]
    if Key(profile, plain) in keys or (layout.inbox / profile / plain).exists():
        return ControlledJob(Key(profile, plain))
    finished = [item for item in status.published if word in (item.job, item.name) or name == item.name]
    if finished:
        raise InputError(f"{printable(word)} is finished: its answers are in {finished[-1].folder}")
    raise InputError(f"there is no unfinished job '{printable(word)}': obcd status lists them")


def _control(layout: Layout, job: ControlledJob, verb: ControlVerb, value: int, timeout: float) -> None:
    left = control_job(layout, job, verb, value, timeout)
    if not left:
        say(f"{job.label} {OUTCOMES[verb]}")
    elif left.endswith(ControlVerb.PAUSE) and verb is ControlVerb.RESUME:
        say(f"{job.label} continues when a coordinator runs ({START})")
    else:
        say(f"no coordinator runs on {layout.root}: {left} stays in the inbox until one does ({START})")


#: {verb: the message when it has taken effect}
OUTCOMES = {
    ControlVerb.CANCEL: "is cancelled: the lines without a result will be in its retry.jsonl",
    ControlVerb.PAUSE: "is paused: obcd resume continues it",
    ControlVerb.RESUME: "continues",
    ControlVerb.PRIORITY: "has its new priority",
}
