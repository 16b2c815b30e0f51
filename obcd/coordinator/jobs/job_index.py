"""The jobs that are not published, by name and by submitter: thousands of drops are each held against them."""

from __future__ import annotations

from collections import defaultdict

from obcd.core.user_limits import NOTHING, UserUsage
from obcd.spool.job.job_folder import JobHeader


class JobIndex:
    """Main thread only."""

    def __init__(self) -> None:
        self._headers: dict[str, JobHeader] = {}
        #: {name of the dropped file: {job: its header}}
        self._named: dict[str, dict[str, JobHeader]] = defaultdict(dict)
        #: {uid: what that submitter has under way}
        self._held: dict[int, UserUsage] = {}

    def add(self, header: JobHeader) -> None:
        """Take a job in; one that is known stays."""
        if header.id in self._headers:
            return
        self._headers[header.id] = self._named[header.name][header.id] = header
        self._held[header.uid] = self.held(header.uid).plus(UserUsage(1, header.size))

    def remove(self, job: str) -> None:
        """Forget a job; one that is not known is passed over."""
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
        """Return the jobs of a dropped file's name, which a drop of that name may repeat."""
        return tuple(self._named.get(name, {}).values())

    def held(self, uid: int) -> UserUsage:
        """Return what a submitter has under way."""
        return self._held.get(uid, NOTHING)
