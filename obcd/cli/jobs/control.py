"""`obcd cancel`, `pause`, `resume`, `priority`: put a control file into the inbox and wait for its effect."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click

from obcd.cli.common import START, Command, config_option, find_layout_anyway, find_view, is_running, root_option, say
from obcd.clock import monotonic
from obcd.coordinator.view import JobState, View
from obcd.core.scheduling.fair_share import LEAST_PRIORITY, MOST_PRIORITY
from obcd.core.tables.file_format import SUFFIX, form_of
from obcd.errors import ExitCode, InputError, TimedOutError
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Key
from obcd.spool.inbox.control import ControlVerb, control_name, put_control, take_back
from obcd.text import printable

#: Seconds between checks for the outcome.
LOOK_SECONDS = 0.1

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


@dataclass(frozen=True, slots=True)
class _Job:
    """The job that a command names."""

    key: Key
    id: str = ""  # "": the newest job of that path

    @property
    def label(self) -> str:
        return printable(f"{self.key.profile}/{self.key.name}" if self.key.profile else self.key.name)


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


def _find(layout: Layout, word: str) -> _Job:
    """Return the job that a word of the command line names.

    Raises:
        InputError: If this user can see that there is no unfinished job of that name.
    """
    status = find_view(layout) if is_running(layout) else None
    name = word if form_of(word) is not None else word + SUFFIX
    profile, _, plain = name.rpartition("/")
    if status is None:  # the status is not readable, or no coordinator runs: a coordinator will find the job
        return _Job(Key(profile, plain))
    jobs = status.all_jobs
    for job in jobs:
        if job.job == word:
            return _Job(Key(job.profile, job.name), word)
    keys = [Key(job.profile, job.name) for job in jobs]
    if Key(profile, plain) in keys or (layout.inbox / profile / plain).exists():
        return _Job(Key(profile, plain))
    finished = [item for item in status.published if word in (item.job, item.name) or name == item.name]
    if finished:
        raise InputError(f"{printable(word)} is finished: its answers are in {finished[-1].folder}")
    raise InputError(f"there is no unfinished job '{printable(word)}': obcd status lists them")


def _control(layout: Layout, job: _Job, verb: ControlVerb, value: int, timeout: float) -> None:
    file = Key(job.key.profile, control_name(job.key.name, verb, value))
    pause_file = Key(job.key.profile, control_name(job.key.name, ControlVerb.PAUSE))
    try:
        if verb is ControlVerb.RESUME and _lies(layout, pause_file) and not is_running(layout):
            take_back(layout, pause_file)
            say(f"{job.label} continues when a coordinator runs ({START})")
            return
        put_control(layout, file, job.id)
    except OSError as error:
        raise InputError(f"{layout.inbox / file.profile / file.name} cannot be made: {error.strerror}") from None
    if not is_running(layout):
        say(f"no coordinator runs on {layout.root}: {file.name} stays in the inbox until one does ({START})")
        return
    _wait(layout, job, verb, file, monotonic() + timeout)


def _wait(layout: Layout, job: _Job, verb: ControlVerb, file: Key, deadline: float) -> None:
    began = time.time()
    label = printable(f"{file.profile}/{file.name}" if file.profile else file.name)
    while True:
        status = find_view(layout) if is_running(layout) else None
        why = _refusal(status, label, began)
        if why:
            take_back(layout, file)
            raise InputError(f"{job.label}: {why}")
        if _is_obeyed(layout, status, job, verb, file):
            say(f"{job.label} {OUTCOMES[verb]}")
            return
        if monotonic() >= deadline:
            raise TimedOutError(f"{job.label}: {file.name} is in the inbox and has no effect yet: see obcd status")
        time.sleep(LOOK_SECONDS)


#: {verb: the message when it has taken effect}
OUTCOMES = {
    ControlVerb.CANCEL: "is cancelled: the lines without a result will be in its retry.jsonl",
    ControlVerb.PAUSE: "is paused: obcd resume continues it",
    ControlVerb.RESUME: "continues",
    ControlVerb.PRIORITY: "has its new priority",
}


def _refusal(status: View | None, label: str, began: float) -> str:
    if status is None or status.updated <= began:
        return ""
    return next((item.why for item in status.waiting if item.file == label), "")


def _is_obeyed(layout: Layout, status: View | None, job: _Job, verb: ControlVerb, file: Key) -> bool:
    if verb is not ControlVerb.PAUSE:  # the coordinator removes it from the inbox once it has taken effect
        return not _lies(layout, file)
    if status is None:  # the status is not readable: that the file exists is all that is known
        return _lies(layout, file)
    return any(
        item.state == JobState.PAUSED and (item.job == job.id if job.id else Key(item.profile, item.name) == job.key)
        for item in status.all_jobs
    )


def _lies(layout: Layout, file: Key) -> bool:
    try:
        (layout.inbox / file.profile / file.name).lstat()
    except FileNotFoundError:
        return False
    return True
