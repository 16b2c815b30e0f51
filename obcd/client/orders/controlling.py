"""Control a job by a file in the inbox, and wait for its effect: `obcd cancel`, `pause` …, and `jobs.Job.cancel`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from obcd.client.watching.job_view import find_view
from obcd.clock import monotonic
from obcd.coordinator.view import JobState, View
from obcd.errors import InputError, TimedOutError
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.status_file import is_running
from obcd.spool.inbox.control import ControlVerb, control_name, put_control, take_back
from obcd.spool.inbox.drops import Key
from obcd.text import printable

#: Seconds between checks for the outcome.
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ControlledJob:
    """The job that an order is for.

    Attributes:
        key: The path of its drop in the inbox.
        id: Its id; "" for the newest job of that path.
    """

    key: Key
    id: str = ""

    @property
    def label(self) -> str:
        """Its name for people."""
        return printable(f"{self.key.profile}/{self.key.name}" if self.key.profile else self.key.name)


def control_job(layout: Layout, job: ControlledJob, verb: ControlVerb, value: int, timeout: float) -> str:
    """Put a control file into the inbox, and wait for its effect.

    Args:
        value: The priority; 0 for the other verbs.
        timeout: Seconds to wait.

    Returns:
        "" if it has taken effect; otherwise what stands in the inbox until a coordinator runs, "" for nothing.

    Raises:
        InputError: If it cannot be put there, or is refused: the job belongs to another user.
        TimedOutError: If nothing came of it in time; the control file stays and takes effect later.
    """
    file = Key(job.key.profile, control_name(job.key.name, verb, value))
    pause_file = Key(job.key.profile, control_name(job.key.name, ControlVerb.PAUSE))
    try:
        if verb is ControlVerb.RESUME and _lies(layout, pause_file) and not is_running(layout):
            take_back(layout, pause_file)
            return pause_file.name
        put_control(layout, file, job.id)
    except OSError as error:
        raise InputError(f"{layout.inbox / file.profile / file.name} cannot be made: {error.strerror}") from None
    if not is_running(layout):
        return file.name
    _wait(layout, job, verb, file, monotonic() + timeout)
    return ""


def _wait(layout: Layout, job: ControlledJob, verb: ControlVerb, file: Key, deadline: float) -> None:
    began = time.time()
    label = printable(f"{file.profile}/{file.name}" if file.profile else file.name)
    while True:
        status = find_view(layout) if is_running(layout) else None
        why = _refusal(status, label, began)
        if why:
            take_back(layout, file)
            raise InputError(f"{job.label}: {why}")
        if _is_obeyed(layout, status, job, verb, file):
            return
        if monotonic() >= deadline:
            raise TimedOutError(f"{job.label}: {file.name} is in the inbox and has no effect yet: see obcd status")
        time.sleep(LOOK_SECONDS)


def _refusal(status: View | None, label: str, began: float) -> str:
    if status is None or status.updated <= began:
        return ""
    return next((item.why for item in status.waiting if item.file == label), "")


def _is_obeyed(layout: Layout, status: View | None, job: ControlledJob, verb: ControlVerb, file: Key) -> bool:
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
