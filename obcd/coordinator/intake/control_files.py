"""Control files of the inbox: which job each one addresses, whether its owner may control it, and why it has no effect.

inbox ─scan─► control files ─pause─► jobs
                    ├──show─► previews
                    └──bind (clerk)─► jobs/<id>/ ─► jobs
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from obcd.coordinator.clerk.calls import Bind, CallFailed
from obcd.coordinator.clerk.clerk_pair import ClerkPair
from obcd.coordinator.jobs.job_lifecycle import Jobs
from obcd.coordinator.view import JobState
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import WHILE_THERE, Control, ControlVerb, JobControls, read_control, take_back
from obcd.spool.inbox.drops import Key
from obcd.spool.inbox.markers import ORPHAN_SECONDS
from obcd.spool.job.job_folder import JobHeader
from obcd.text import printable

logger = logging.getLogger(__name__)

#: The number of control files that are read; a flood of them must not block the loop.
MOST_CONTROLS = 200
#: Seconds after which the control file of another user is removed: in a sticky folder it keeps the submitter from
#: making one.
REFUSED_SECONDS = 60.0


class ControlFiles:
    """Applies control files to jobs. Main thread only; `now` is in monotonic seconds.

    Args:
        clerks: The clerks that publish: the clerk that will publish a job applies its control files, so that they take
            effect before publication or not at all.
        show: Takes the ids of exactly the jobs whose results so far are to be shown.
    """

    def __init__(self, layout: Layout, jobs: Jobs, clerks: ClerkPair, show: Callable[[frozenset[str]], None]) -> None:
        self._layout = layout
        self._jobs = jobs
        self._clerks = clerks
        self._show = show
        #: {control file: why it has no effect, or none yet}
        self.waiting: dict[Key, str] = {}
        self._binding: set[Control] = set()
        #: {control file that addresses no job, or is another user's: when it was first seen in this state}
        self._idle: dict[Key, float] = {}
        #: Files that were in force at the last check (`WHILE_THERE`): they go with the job, or they would apply to the
        #: next one of its name.
        self._in_force: set[Key] = set()
        self._files: Sequence[Key] | None = None
        #: Revision of the jobs at the last check; None: check again.
        self._revision: int | None = None

    def tick(self, files: Sequence[Key], is_coming: Callable[[Key], bool], now: float) -> None:
        """Apply the control files if the inbox was scanned or jobs have changed after the last tick.

        Args:
            files: The control files of the last scan; a new object after each scan.
            is_coming: Returns whether a drop is about to become a job.
        """
        if files is self._files and self._revision == self._jobs.revision:
            return
        self._files, self._revision = files, self._jobs.revision
        self.waiting = {}
        limits: dict[Key, float] = {}
        chosen = self._choose(files)
        controls = self._read(chosen, limits)
        pauses = {control.key: control for control in controls if control.verb is ControlVerb.PAUSE}
        in_force: dict[Key, tuple[ControlVerb, str]] = {}
        for control in controls:
            job = self._find(control, is_coming)
            if isinstance(job, str):
                limits[control.file] = self._limit(control)
                if limits[control.file]:  # otherwise it was in force, and goes with its job now
                    self.waiting[control.file] = job
            elif job is not None and control.verb in WHILE_THERE:
                in_force[control.file] = control.verb, job.id
            elif job is not None:
                self._bind(control, job, pauses.get(control.key))
        for file in sorted(set(files) - set(chosen)):
            self.waiting[file] = f"the inbox holds more than {MOST_CONTROLS} control files: this one is read later"
        self._jobs.pause(frozenset(job for verb, job in in_force.values() if verb is ControlVerb.PAUSE))
        self._show(frozenset(job for verb, job in in_force.values() if verb is ControlVerb.SHOW))
        self._clear(limits, now)
        self._in_force = set(in_force)

    def _choose(self, files: Sequence[Key]) -> list[Key]:
        """Choose the files that are read now: files in force, then one file of each owner in turn.

        Otherwise a thousand files of one user would keep those of others from taking effect.
        """
        if len(files) <= MOST_CONTROLS:
            return sorted(files)
        of_owners: dict[int, list[Key]] = {}
        for file in sorted(set(files) - self._in_force):
            with contextlib.suppress(OSError):
                owner = (self._layout.inbox / file.profile / file.name).lstat().st_uid
                of_owners.setdefault(owner, []).append(file)
        in_turn = (file for some in itertools.zip_longest(*of_owners.values()) for file in some if file is not None)
        return list(itertools.islice(itertools.chain(sorted(self._in_force & set(files)), in_turn), MOST_CONTROLS))

    def _read(self, files: Sequence[Key], limits: dict[Key, float]) -> list[Control]:
        """Read the files, oldest first: of two priorities the newer one counts. An invalid file is removed later."""
        controls = []
        for file in files:
            try:
                controls.append(read_control(self._layout, file))
            except FileNotFoundError:  # removed after the scan
                continue
            except OSError as error:
                self.waiting[file], limits[file] = f"the daemon cannot read it: {error.strerror}", ORPHAN_SECONDS
            except ValueError as error:
                self.waiting[file], limits[file] = str(error), ORPHAN_SECONDS
        return sorted(controls, key=lambda control: control.identity.ctime_ns)

    def _candidates(self, control: Control) -> list[JobHeader]:
        """Return the unfinished jobs that a control file may address, whatever its owner."""
        return [
            header
            for header in self._jobs.addressable()
            if (header.profile, header.name) == control.key and control.job in ("", header.id)
        ]

    def _find(self, control: Control, is_coming: Callable[[Key], bool]) -> JobHeader | str | None:
        """Return the job that is addressed, or why there is none; None: the job is about to be accepted."""
        if not control.job and is_coming(control.key):
            return None
        name, found = printable(control.key.name), self._candidates(control)
        if not found:
            which = f"job {printable(control.job)}" if control.job else f"unfinished job of {name}"
            kept = "it applies to the next one" if control.verb is ControlVerb.PAUSE else "it is removed after an hour"
            return f"there is no {which}: {kept}; delete it if you do not want that"
        mine = [header for header in found if control.uid in (header.uid, header.dropped_by, os.geteuid())]
        if not mine:
            return f"{name} is the job of another user: only its submitter or the daemon's own user may control it"
        return max(mine, key=lambda header: (header.accepted_at, header.id))

    def _bind(self, control: Control, job: JobHeader, pause: Control | None) -> None:
        if control in self._binding:
            return
        if self._jobs.state(job.id) is JobState.COMPLETE:
            self.waiting[control.file] = "the job is complete: its results are being published"
            return
        if control.verb is ControlVerb.RESUME and pause is not None and control.uid not in (pause.uid, os.geteuid()):
            self.waiting[control.file] = f"another user paused it: only the owner of {pause.file.name} may delete that"
            return
        self._binding.add(control)
        call = Bind(job, control, by_daemon=control.uid == os.geteuid())
        self._clerks.submit(call, partial(self._on_bound, control, job))

    def _on_bound(self, control: Control, job: JobHeader, outcome: JobControls | CallFailed | None) -> None:
        self._binding.discard(control)
        self._revision = None
        if isinstance(outcome, CallFailed):
            extra = {"action": "control_failed", "job": job.id}
            logger.error("%s cannot take effect: %s", printable(control.file.name), outcome.reason, extra=extra)
            return
        if outcome is not None:
            self._jobs.bind(job.id, outcome)
        if control.verb is ControlVerb.RESUME:
            self._jobs.resume(job.id)

    def _limit(self, control: Control) -> float:
        """Return the seconds after which a control file without effect is removed.

        The file of another user is removed soon. A file that was in force goes with its job, or it would apply to the
        next one of its name; a pause that never held a job is meant for one to come.
        """
        if self._candidates(control):
            return REFUSED_SECONDS
        if control.file in self._in_force:
            return 0.0
        return math.inf if control.verb is ControlVerb.PAUSE else ORPHAN_SECONDS

    def _clear(self, limits: Mapping[Key, float], now: float) -> None:
        """Remove files that had no effect for long enough."""
        self._idle = {file: self._idle.get(file, now) for file in limits}
        for file, limit in limits.items():
            if now - self._idle[file] >= limit:
                try:
                    take_back(self._layout, file)
                except OSError as error:
                    logger.debug("%s not removed: %s", printable(file.name), error.strerror)
