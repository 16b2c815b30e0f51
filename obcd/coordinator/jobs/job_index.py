"""The unpublished jobs, by name and by submitter: each of thousands of drops is compared with them."""

from __future__ import annotations

from collections import defaultdict

from obcd.core.user_limits import NOTHING, UserUsage
from obcd.spool.job.job_folder import JobHeader


class JobIndex:
    """The index of unpublished jobs. Main thread only."""

    def __init__(self) -> None:
        self._headers: dict[str, JobHeader] = {}
        #: {name of the dropped file: {job: its header}}
        self._named: dict[str, dict[str, JobHeader]] = defaultdict(dict)
        #: {uid: the usage of that submitter}
        self._held: dict[int, UserUsage] = {}

    def add(self, header: JobHeader) -> None:
        """Add a job; a known job stays as it is."""
        if header.id in self._headers:
            return
        self._headers[header.id] = self._named[header.name][header.id] = header
        self._held[header.uid] = self.held(header.uid).plus(UserUsage(1, header.size))

    def remove(self, job: str) -> None:
        """Remove a job; an unknown job is ignored."""
        header = self._headers.pop(job, None)
        if header is None:
            return
        del self._named[header.name][job]
        if not self._named[header.name]:
            del self._named[header.name]
        self._held[header.uid] = self.held(header.uid).plus(UserUsage(-1, -header.size))
        if not self._held[header.uid].jobs:
            del self._held[header.uid]

    def named(self, name: str) -> tuple[JobHeader, ...]:
        """Return the jobs from a file of this name, which a drop of the same name may repeat."""
        return tuple(self._named.get(name, {}).values())

    def held(self, uid: int) -> UserUsage:
        """Return a submitter's usage."""
        return self._held.get(uid, NOTHING)
