"""The hosts folder on a simulated clock: scans that hang, endpoints that come and go. No process is started."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.endpoints.changes import compare
from obcd.coordinator.endpoints.endpoint_set import Endpoints
from obcd.coordinator.endpoints.receiving import AttemptFailed, RequestEvent
from obcd.coordinator.hosts.host_registry import HostRegistry
from obcd.coordinator.hosts.host_scanner import LIMIT_SECONDS, SCAN_SECONDS, HostScanner, ScanFailed
from obcd.core.endpoint.health import EndpointState
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature
from obcd.core.scheduling.holder import FINISH_SECONDS
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler
from obcd.hosts.record import HostRecord, HostState, RegisteredEndpoint
from obcd.hosts.roster import MARGIN_SECONDS
from obcd.hosts.scan import OwnedRecord, Scan
from obcd.secret import Secret
from obcd.workers.channel import ClosedError

MODEL = Signature("m:latest", ())
NAME = "10.0.0.1:11432"
OTHER = "10.0.0.2:11432"


class Child:
    """Stands for the process that scans: answers from a value, hangs, or is dead."""

    def __init__(self, outcome: Scan | ScanFailed) -> None:
        self.channel = self
        self.pid = 7
        self.outcome = outcome
        self.hangs = self.is_dead = self.is_stopped = False
        self.kills = 0
        self._answers: deque[Scan | ScanFailed] = deque()
        self._asked = 0

    def fileno(self) -> int:
        return 3

    def send(self, wanted: object) -> None:
        if self.is_dead:
            raise ClosedError
        self._asked += 1

    def receive(self) -> list[Scan | ScanFailed]:
        if self.is_dead:
            raise ClosedError
        if self.hangs or not self._asked:
            return []
        self._asked -= 1
        return [self.outcome]

    def kill(self) -> None:
        self.kills += 1
        self.hangs = self.is_dead = self.is_stopped = False
        self._asked = 0


class Site:
    """The coordinator's side of a hosts folder, a scheduler and a job of a hundred requests."""

    def __init__(self, **tables: Any) -> None:
        self.settings = self.configuration(**tables)
        self.scheduler = Scheduler()
        self.endpoints = Endpoints(self.settings, Path("jobs"), self.scheduler, 0.0)
        self.child = Child(Scan(place=(1, 1)))
        self.registry = HostRegistry(self.settings, HostScanner(lambda: self.child))
        self.backlog = Backlog("j", bytes(100), (MODEL,), limit=4, submitter=1000)
        self.scheduler.add_job(self.backlog, 0.0)
        self.now = 0.0
        self.records: dict[str, HostRecord] = {}
        #: {host: its owner}
        self.owners: dict[str, int] = {}
        self.is_writing = True
        #: When the allocations of the hosts end.
        self.ends_at: float | None = None
        self.events: list[RequestEvent] = []
        self.advance(3)

    @staticmethod
    def configuration(**tables: Any) -> Settings:
        return Settings.model_validate({"cluster": {"hosts": "/hosts"}, **tables})

    def reload(self, **tables: Any) -> None:
        new = self.configuration(**tables)
        change = compare(self.settings, new, self.endpoints.leaving)
        if new.cluster.folder != self.settings.cluster.folder:
            self.endpoints.drain_hosted(self.now)
        self.registry.configure(new)
        self.endpoints.apply(change, new, self.now)
        self.settings = new

    def register(self, name: str = "gpu1", endpoint: str = NAME, **changes: Any) -> None:
        url = endpoint if "://" in endpoint else f"http://{endpoint}"
        named = RegisteredEndpoint(url=url, slots=2)
        record = HostRecord(id=name, boot="b", sequence=1, state=HostState.SERVING, endpoints=(named,))
        self.records[name] = replace(record, **changes)

    def advance(self, seconds: float, *, uid: int = 0) -> None:
        """Let time pass in steps of a second, in which hosts write and new endpoints answer their probes."""
        for _ in range(int(seconds)):
            self.now += 1
            if self.is_writing and self.now % 10 == 0:
                left = None if self.ends_at is None else self.ends_at - self.now
                self.records = {
                    name: replace(item, sequence=item.sequence + 1, seconds_left=left)
                    for name, item in self.records.items()
                }
            if isinstance(self.child.outcome, Scan):
                found = {name: OwnedRecord(item, self.owners.get(name, uid)) for name, item in self.records.items()}
                self.child.outcome = replace(self.child.outcome, found=found)
            offered = self.registry.tick(self.endpoints, self.now)
            if offered is not None:
                self.events += self.endpoints.offer(offered, self.now)
            self.events += self.endpoints.receive(self.now)
            for item in self.endpoints.members:
                if self.scheduler.endpoint(item.name).health.state is EndpointState.STARTING:
                    self.scheduler.on_probe(item.name, {MODEL.model: "d"}, None, self.now)

    def assign(self) -> list[Lease]:
        return self.scheduler.assign(self.now)

    def answer(self, leases: Collection[Lease]) -> None:
        for lease in leases:
            assert self.scheduler.answered(lease.ticket, lease.endpoint, self.now) == lease
        self.endpoints.receive(self.now)

    @property
    def states(self) -> dict[str, str]:
        return {item.name: item.state for item in self.endpoints.views(self.now)}


@pytest.fixture
def site() -> Site:
    return Site()


def test_registered_host_gets_its_first_requests_within_ten_seconds_and_their_slots_hold(site: Site) -> None:
    site.register()
    site.advance(8)

    assert {lease.endpoint for lease in site.assign()} == {NAME}
    assert site.scheduler.endpoint(NAME).in_flight == 2
    assert not site.endpoints.waits_for_host


def test_host_whose_servers_people_use_too_gets_requests_that_yield(site: Site) -> None:
    site.register(endpoints=(RegisteredEndpoint(url=f"http://{NAME}", slots=2, yields=True),))
    site.advance(8)

    (view,) = site.endpoints.views(site.now)
    assert view.yields == ""  # None: it never does

    site.register(endpoints=(RegisteredEndpoint(url=f"http://{NAME}", slots=2),), sequence=100)
    site.advance(8)

    (view,) = site.endpoints.views(site.now)
    assert view.yields is None


def test_no_endpoint_is_a_state(site: Site) -> None:
    assert site.endpoints.waits_for_host
    assert "/hosts" in site.endpoints.outage
    assert site.registry.troubles == []


def test_silent_host_gets_no_requests_and_what_is_in_flight_is_sent_elsewhere_in_the_end(site: Site) -> None:
    site.register()
    site.advance(8)
    held = site.assign()
    site.is_writing = False

    site.advance(29)
    assert site.states == {NAME: "DRAINING"}
    assert site.assign() == []
    site.answer(held[:1])  # it may still finish
    assert site.events == []
    site.advance(91)

    assert site.states == {}
    (event,) = site.events
    assert isinstance(event, AttemptFailed)
    assert (event.lease, event.is_final, event.fault.costs_attempt) == (held[1], False, False)
    assert site.endpoints.facts().keys() == {NAME}
    assert site.backlog.unfinished == 99


def test_silent_host_that_writes_again_goes_on(site: Site) -> None:
    site.register()
    site.advance(8)
    held = site.assign()
    site.is_writing = False
    site.advance(60)
    site.is_writing = True
    site.advance(13)

    assert site.states == {NAME: "UP"}
    site.answer(held)
    assert len(site.assign()) == 2
    assert site.events == []


def test_draining_host_leaves_when_its_requests_are_finished(site: Site) -> None:
    site.register()
    site.advance(8)
    held = site.assign()
    site.register(state=HostState.DRAINING, sequence=5)
    site.advance(60)

    assert site.states == {NAME: "DRAINING"}
    assert site.assign() == []
    site.answer(held)
    assert site.states == {}
    site.advance(60)
    assert (site.states, site.events) == ({}, [])


def test_host_that_is_gone_is_removed_at_once(site: Site) -> None:
    site.register()
    site.advance(8)
    site.assign()
    site.register(state=HostState.GONE, sequence=5)
    site.advance(3)

    assert (site.states, len(site.events)) == ({}, 2)


@pytest.mark.parametrize("fault", ["hangs", "fails", "is another folder"])
def test_folder_that_cannot_be_read_for_ten_minutes_costs_no_endpoint(site: Site, fault: str) -> None:
    site.register("gpu1", NAME)
    site.register("gpu2", OTHER)
    site.advance(8)
    before = site.child.outcome

    site.child.hangs = fault == "hangs"
    if fault == "fails":
        site.child.outcome = ScanFailed("Input/output error")
    records = site.records
    if fault == "is another folder":
        site.records, site.child.outcome = {}, Scan(place=(2, 2))
    site.advance(600)

    assert site.states == {NAME: "UP", OTHER: "UP"}
    assert len(site.assign()) == 4
    (trouble,) = site.registry.troubles
    assert trouble.startswith("hosts folder unreadable since 20")

    site.child.hangs, site.child.outcome, site.records = False, before, records
    site.advance(20)
    assert site.registry.troubles == []
    assert site.states == {NAME: "UP", OTHER: "UP"}
    assert site.events == []


def test_host_that_ended_while_the_folder_could_not_be_read_is_noticed_afterwards(site: Site) -> None:
    site.register()
    site.advance(8)
    site.is_writing, site.child.hangs = False, True
    site.advance(600)
    site.child.hangs = False

    site.advance(20)
    assert site.states == {NAME: "UP"}
    site.advance(15)
    assert site.states == {NAME: "DRAINING"}


def test_answer_that_comes_after_a_hang_is_old_and_does_not_count(site: Site) -> None:
    site.child.hangs = True
    site.advance(SCAN_SECONDS + LIMIT_SECONDS + 1)
    site.register()
    site.child.hangs = False
    site.now += 1

    assert site.registry.tick(site.endpoints, site.now) is None
    assert site.registry.troubles
    site.advance(2)  # asked again at once
    assert site.registry.troubles == []


def test_child_that_died_or_was_stopped_is_replaced(site: Site) -> None:
    site.register()
    site.child.is_dead = True
    site.advance(3)
    assert site.registry.troubles
    site.advance(5)
    assert site.registry.troubles == []

    site.child.hangs = site.child.is_stopped = True
    site.advance(30)
    assert site.child.kills == 2
    assert site.registry.troubles == []


def test_child_that_cannot_be_started_is_a_folder_that_cannot_be_read(site: Site) -> None:
    registry = HostRegistry(site.settings, HostScanner(lambda: None))

    registry.tick(site.endpoints, 1.0)

    assert registry.troubles


def test_child_that_only_hangs_is_not_killed(site: Site) -> None:
    site.child.hangs = True
    site.advance(600)

    assert site.child.kills == 0


# --- with a configuration --------------------------------------------------------------------------------------------


def test_hosts_and_the_endpoints_of_the_configuration_are_used_together() -> None:
    site = Site(ollama_instances={"10.0.0.1:11432": 0, "10.0.0.9:11432": 0})
    site.register("gpu1", NAME)
    site.register("gpu2", OTHER)
    site.advance(8)

    assert list(site.states) == [NAME, "10.0.0.9:11432", OTHER]
    (own,) = [view for view in site.registry.views if view.name == "gpu1"]
    assert (own.endpoints, NAME in own.why) == ((), True)


def test_endpoint_that_the_configuration_takes_over_keeps_what_it_holds_and_goes_back_to_its_host(site: Site) -> None:
    site.register()
    site.advance(8)
    held = site.assign()

    site.reload(ollama_instances={NAME: {"slots": 3}})
    site.advance(8)
    assert site.states == {NAME: "UP"}
    assert len(site.assign()) == 1
    site.records.clear()
    site.advance(300)
    assert site.states == {NAME: "UP"}

    site.register()
    site.reload()
    site.advance(8)
    site.answer(held)
    assert site.states == {NAME: "UP"}
    assert site.events == []


@pytest.mark.parametrize("folder", [None, "/elsewhere"])
def test_endpoints_of_a_folder_that_is_configured_no_more_drain(site: Site, folder: str | None) -> None:
    site.register()
    site.advance(8)
    held = site.assign()

    site.reload(**({"cluster": {"hosts": folder}} if folder else {"cluster": {}, "ollama_instances": {"h:1": 0}}))
    site.records.clear()
    site.advance(300)
    assert site.states[NAME] == "DRAINING"
    site.answer(held)

    assert NAME not in site.states
    assert site.events == []


def test_more_endpoints_than_allowed_are_a_trouble() -> None:
    site = Site(cluster={"hosts": "/hosts", "max_endpoints": 2}, ollama_instances={"h:1": 0})
    site.register("gpu1", NAME)
    site.register("gpu2", OTHER)
    site.advance(8)

    assert list(site.states) == ["h:1", NAME]
    assert len(site.registry.troubles) == 1


def test_users_that_are_not_listed_any_more_lose_their_endpoints_at_once(site: Site) -> None:
    site.register()
    site.advance(8)
    site.reload(cluster={"hosts": "/hosts", "users": ["1"]})
    site.records.clear()
    site.advance(5)

    assert site.states == {}


def test_user_that_this_machine_does_not_know_is_a_trouble() -> None:
    site = Site(cluster={"hosts": "/hosts", "users": ["no-such-user"]})

    assert "no-such-user" in site.registry.troubles[0]


# --- whose requests, and until when ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "is_served"), [(0, True), (1000, True), (1001, False)])
def test_with_per_user_a_host_serves_the_jobs_of_its_user(owner: int, is_served: bool) -> None:
    site = Site(spool={"per_user": True})
    site.register()
    site.advance(8, uid=owner)

    assert bool(site.assign()) is is_served
    assert bool(site.scheduler.unserved()) is not is_served
    for _ in range(2):  # it waits for a host, and does not fail
        assert site.scheduler.take_unservable(100, site.now) == []
        site.advance(400, uid=owner)


def test_model_that_no_host_has_is_waited_for() -> None:
    site = Site()
    site.scheduler.add_job(Backlog("other", bytes(1), (replace(MODEL, model="other:latest"),), limit=4), 0.0)
    site.register()
    for _ in range(2):
        site.advance(400)
        assert site.scheduler.take_unservable(100, site.now) == []

    assert [item.model for item in site.scheduler.missing()] == ["other:latest"]


def test_job_that_has_started_on_its_own_host_gets_none_of_another_users() -> None:
    site = Site(spool={"per_user": True})
    site.register("gpu1", NAME)
    site.owners["gpu2"] = 1001
    site.advance(8)
    assert {lease.endpoint for lease in site.assign()} == {NAME}

    site.register("gpu2", OTHER)
    site.advance(8)

    assert site.states == {NAME: "UP", OTHER: "UP"}
    assert site.assign() == []


def test_without_per_user_a_listed_users_host_serves_everybody(site: Site) -> None:
    site.register()
    site.advance(8, uid=1001)

    assert len(site.assign()) == 2


def test_what_cannot_finish_before_the_end_of_the_allocation_is_not_sent(site: Site) -> None:
    site.ends_at = 200.0
    site.register(until=0.0, seconds_left=site.ends_at - site.now)
    site.advance(6)
    first = site.assign()
    site.advance(10)
    site.answer(first)  # each took ten seconds, and is expected to take twenty at most
    site.advance(200 - MARGIN_SECONDS - 2 * 10 - 5 - site.now)

    (lease, other) = site.assign()
    site.advance(10)
    site.answer([lease, other])

    assert site.assign() == []
    assert site.endpoints.views(site.now)[0].left_out
    assert site.states == {NAME: "UP"}


@pytest.mark.parametrize(("left", "is_sent"), [(FINISH_SECONDS, False), (FINISH_SECONDS + 30, True)])
def test_pace_that_is_not_known_yet_is_taken_as_a_minute(site: Site, left: float, is_sent: bool) -> None:
    site.ends_at = site.now + left
    site.register(until=0.0, seconds_left=left)
    site.advance(8)

    assert bool(site.assign()) is is_sent


def test_token_of_the_configuration_never_goes_to_the_endpoint_of_a_host() -> None:
    endpoint = "https://10.0.0.1:443"
    site = Site(ollama_instances={endpoint: 0, "h:1": 0})
    tokens = site.settings.model_copy(update={"tokens": {endpoint: Secret("secret")}})
    site.endpoints.apply(compare(site.settings, tokens, ()), tokens, site.now)
    assert site.endpoints.pool._workers[endpoint].spec.token == Secret("secret")
    site.advance(3)
    site.assign()

    site.register("gpu1", endpoint)
    site.reload(ollama_instances={"h:1": 0})  # while its requests are in flight
    site.advance(3)

    assert site.states[endpoint] == "UP"
    assert site.endpoints.pool._workers[endpoint].spec.token is None
