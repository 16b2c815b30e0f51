"""The hosts folder as the coordinator sees it: scans go in, the endpoints that hosts offer come out.

    folder ─► HostScanner (child) ─► Roster ─► Endpoints.offer
                                       └─────► HostView (status.json)

While the folder cannot be read nothing changes: known endpoints stay, and their HTTP health decides.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

from obcd.clock import timestamp, wall
from obcd.config.settings import Settings
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.hosts.host_scanner import HostScanner, ScanFailed, ScanHosts
from obcd.coordinator.view import HostView
from obcd.hosts.machine import machine_id
from obcd.hosts.record import HostState
from obcd.hosts.roster import HostedEndpoint, HostStanding, Roster, Rules
from obcd.hosts.scan import MOST_ENTRIES, MOST_RECORDS, Scan
from obcd.hosts.trust import find_trusted
from obcd.text import plural, printable
from obcd.users import user_name

logger = logging.getLogger(__name__)

#: Most records in a view; those of hosts whose endpoints are used come first.
MOST_SHOWN = 500
#: Most changes of records that are logged after one scan: everybody who may write into the folder can make some.
MOST_LOGGED = 20


class HostRegistry:
    """The registered hosts. Main thread only; `now` is in monotonic seconds."""

    def __init__(self, settings: Settings, scanner: HostScanner | None = None) -> None:
        self._scanner = scanner or HostScanner()
        self._machine_id = machine_id()
        self._wanted: ScanHosts | None = None
        self._unreadable = self._reason = ""
        self._is_cut = False
        #: {record: its state}, as logged last.
        self._logged: dict[str, str] = {}
        self._names: dict[int, str] = {}
        self.views: tuple[HostView, ...] = ()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Use another configuration; with another folder, or none, the hosts so far are forgotten."""
        folder, own = settings.cluster.folder, os.geteuid()
        trusted, self._unknown = find_trusted(settings.cluster.users, own)
        if self._wanted is None or folder != self._wanted.folder:
            self._roster, self._unreadable, self.views = Roster(), "", ()
        self._wanted = ScanHosts(folder, trusted) if folder is not None else None
        self._owners = frozenset((own, 0)) if settings.spool.per_user else None
        self._slots = None if settings.requests.slots == "auto" else settings.requests.slots
        self._most = settings.cluster.max_endpoints
        self._roster.keep_only(trusted)
        if self._wanted is None:
            self._scanner.stop()

    @property
    def is_used(self) -> bool:
        """Whether there is a hosts folder."""
        return self._wanted is not None

    @property
    def troubles(self) -> list[str]:
        """The sentences for people on what is wrong with the hosts folder and its records."""
        found = [f"at [cluster] users: this machine has no user {printable(name)!r}" for name in self._unknown]
        if self._wanted is None:
            return []
        if self._unreadable:
            where = printable(str(self._wanted.folder))
            text = f"hosts folder unreadable since {self._unreadable}: {where}: {self._reason}"
            found.append(f"{text}; known endpoints stay in use")
        if self._is_cut:
            found.append(
                f"the hosts folder has more than {plural(MOST_RECORDS, 'record')}, or {MOST_ENTRIES} other files: "
                "not all are looked at, so remove those that no living host has written"
            )
        if self._roster.excess:
            found.append(
                f"hosts register {plural(self._roster.excess, 'endpoint')} more than max_endpoints of [cluster] allows "
                f"({self._most}, with those of [ollama_instances])"
            )
        return found

    def lost(self) -> dict[str, str]:
        """Return `{host that was alive and ended without saying so: why, for people}`."""
        gone = [item for item in self.views if item.state in ("silent", "dead") and item.age_seconds is not None]
        return {f"host {item.name}": item.why or item.state for item in gone}

    @property
    def pids(self) -> dict[str, int | None]:
        """`{name of the child: its process id}`; empty without a hosts folder."""
        return {"host scanner": self._scanner.pid} if self._wanted is not None else {}

    def filenos(self) -> list[int]:
        """Return the descriptors to wait on."""
        return self._scanner.filenos()

    def next_due(self) -> float | None:
        """Return when the next `tick` is due, None if there is no hosts folder."""
        return self._scanner.next_due() if self._wanted is not None else None

    def tick(
        self, endpoints: Endpoints, now: float, readable: Collection[int] | None = None
    ) -> list[HostedEndpoint] | None:
        """Receive a scan, and start one that is due.

        Args:
            endpoints: Those of the configuration have precedence.
            readable: Descriptors that can be read; None: not known.

        Returns:
            All endpoints that hosts offer, for `endpoints.offer`; None if nothing is known to have changed.
        """
        if self._wanted is None:
            return None
        found = self._scanner.tick(self._wanted, now, readable)
        if isinstance(found, Scan) and self._roster.is_elsewhere(found):
            found = ScanFailed("it has none of the records that it had: is its file system mounted?")
        if isinstance(found, ScanFailed):
            self._on_failed(found.reason)
            return None
        if found is None:
            return None
        if self._unreadable:
            self._unreadable = ""
            logger.info("the hosts folder can be read again", extra={"action": "hosts_readable"})
        self._is_cut = found.is_cut
        rules = Rules(
            machine_id=self._machine_id,
            owners=self._owners,
            most=max(0, self._most - len(endpoints.configured)),
            slots=self._slots,
            taken=endpoints.taken(),
        )
        self._roster.observe(found, now)
        offered = self._roster.endpoints(rules)
        self._show(self._roster.standings(now))
        return offered

    def stop(self) -> None:
        """End the child."""
        self._scanner.stop()

    def _on_failed(self, reason: str) -> None:
        self._roster.pause()
        self._reason = reason
        if not self._unreadable:
            self._unreadable = timestamp(wall())
            text = "the hosts folder cannot be read: %s; known endpoints stay in use"
            logger.warning(text, reason, extra={"action": "hosts_unreadable"})

    def _show(self, standings: list[HostStanding]) -> None:
        standings.sort(key=lambda item: (not item.endpoints, item.name))
        self.views = tuple(map(self._view, standings[:MOST_SHOWN]))
        news = [item for item in standings if self._logged.get(item.name) != item.state]
        for item in news[:MOST_LOGGED]:
            level = logging.INFO if item.state in set(HostState) else logging.WARNING
            text = f"host {item.name} is {item.state}" + (f": {item.why}" if item.why else "")
            logger.log(level, "%s", text, extra={"action": "host_state", "host": item.name})
        self._logged = {item.name: item.state for item in standings}

    def _view(self, item: HostStanding) -> HostView:
        if item.uid not in self._names:
            self._names[item.uid] = user_name(item.uid) if item.uid >= 0 else ""
        return HostView(
            name=item.name,
            owner=self._names[item.uid],
            by=item.by,
            state=item.state,
            age_seconds=None if item.age is None else round(item.age, 1),
            endpoints=item.endpoints,
            seconds_left=None if item.seconds_left is None else round(item.seconds_left, 1),
            why=item.why,
            cards=item.cards,
        )
