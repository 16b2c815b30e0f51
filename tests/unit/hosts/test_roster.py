"""Records come and go on a simulated clock: which endpoints are offered, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from obcd.coordinator.hosts.host_scanner import LIMIT_SECONDS, SCAN_SECONDS
from obcd.hosts.record import WRITE_SECONDS, CardReading, HostRecord, HostState, RegisteredEndpoint
from obcd.hosts.roster import MARGIN_SECONDS, HostedEndpoint, HostStanding, Roster, Rules, Standing, Taken
from obcd.hosts.scan import OwnedRecord, RefusedRecord, Scan

URL = "http://10.0.0.1:11432"
NAME = "10.0.0.1:11432"


class Folder:
    """A hosts folder on a simulated clock, which is scanned every two seconds."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.roster = Roster()
        self.rules = rules or Rules()
        self.now = 1000.0
        self.place = (1, 1)
        self.records: dict[str, OwnedRecord] = {}
        self.refused: dict[str, RefusedRecord] = {}
        self.offered: list[HostedEndpoint] = []
        self.scan()

    def write(self, name: str = "gpu1", *urls: str, uid: int = 0, slots: int | None = None, **changes: Any) -> None:
        """Write a record with the next sequence."""
        before = self.records.get(name)
        record = HostRecord(
            **{
                "id": name,
                "boot": "b1",
                "sequence": before.record.sequence + 1 if before else 1,
                "state": HostState.SERVING,
                "endpoints": tuple(RegisteredEndpoint(url=url, slots=slots) for url in urls or (URL,)),
                **changes,
            }
        )
        self.records[name] = OwnedRecord(record, uid)

    def scan(self, seconds: float = SCAN_SECONDS) -> dict[str, Standing]:
        """Let time pass, then scan; return `{endpoint that is offered: what it gets}`."""
        self.now += seconds
        self.roster.observe(Scan(place=self.place, found=dict(self.records), refused=dict(self.refused)), self.now)
        self.offered = self.roster.endpoints(self.rules)
        return {item.endpoint.name: item.standing for item in self.offered}

    def pass_until(self, wanted: dict[str, Standing]) -> float:
        """Scan until exactly this is offered; return the seconds since the present moment."""
        began = self.now
        while self.now - began < 1000:
            if self.scan() == wanted:
                return self.now - began
        raise AssertionError(self.offered)

    def standing(self, name: str = "gpu1") -> HostStanding:
        return next(item for item in self.roster.standings(self.now) if item.name == name)


OPEN = {NAME: Standing.OPEN}


@pytest.fixture
def folder() -> Folder:
    return Folder()


def test_record_that_appears_is_used_at_once(folder: Folder) -> None:
    folder.write(slots=16)

    assert folder.scan() == OPEN
    assert folder.offered[0].endpoint.slots == 16
    assert (folder.standing().state, folder.standing().endpoints, folder.standing().why) == ("serving", (NAME,), "")


def test_endpoint_of_a_host_that_people_use_too_yields(folder: Folder) -> None:
    folder.write(endpoints=(RegisteredEndpoint(url=URL, yields=True),))
    folder.scan()
    first = folder.offered[0].endpoint.yields
    folder.write()
    folder.scan()

    assert (first, folder.offered[0].endpoint.yields) == (True, False)


def test_cards_are_shown_while_their_record_changes(folder: Folder) -> None:
    cards = (CardReading(uuid="GPU-1", power_watts=300.0),)
    folder.write(cards=cards)
    folder.scan()
    shown = folder.standing().cards
    folder.pass_until({NAME: Standing.HELD})

    assert (shown, folder.standing().cards) == (cards, ())


def test_record_from_before_the_start_is_used_when_it_changes() -> None:
    folder = Folder()
    folder.write()
    folder.roster = Roster()

    assert folder.scan() == folder.scan() == {}
    assert folder.standing().age is None
    folder.write()
    assert folder.scan() == OPEN


def test_record_that_stops_changing_gets_no_requests_within_30_seconds_and_is_removed_within_120(
    folder: Folder,
) -> None:
    folder.write()
    folder.scan()

    held = folder.pass_until({NAME: Standing.HELD})
    removed = held + folder.pass_until({})

    assert WRITE_SECONDS * 2 < held <= 30 - SCAN_SECONDS  # it may have been written right after the scan before
    assert removed <= 120 - SCAN_SECONDS - LIMIT_SECONDS
    assert folder.standing().state == "dead"


def test_record_that_changes_again_is_used_again_before_and_after_its_removal(folder: Folder) -> None:
    folder.write()
    folder.scan()

    folder.pass_until({NAME: Standing.HELD})
    folder.write()
    assert folder.scan() == OPEN
    folder.pass_until({})
    folder.write()
    assert folder.scan() == OPEN


def test_host_that_writes_every_ten_seconds_stays_open(folder: Folder) -> None:
    for second in range(0, 600, 2):
        if second % 10 == 0 and second % 70:  # and misses one writing now and then
            folder.write()
        assert folder.scan() == (OPEN if second >= 10 else {})


def test_clock_stands_still_while_the_folder_cannot_be_read(folder: Folder) -> None:
    folder.write()
    folder.scan()

    for _ in range(60):  # ten minutes
        folder.now += 10
        folder.roster.pause()
        assert {item.endpoint.name: item.standing for item in folder.roster.endpoints(folder.rules)} == OPEN
    assert folder.scan() == OPEN
    assert folder.pass_until({NAME: Standing.HELD}) > 20


def test_coordinator_that_stood_still_itself_blames_no_host(folder: Folder) -> None:
    folder.write()
    folder.scan()

    assert folder.scan(seconds=600) == OPEN


def test_record_that_appears_while_the_folder_cannot_be_read_is_used_when_it_changes(folder: Folder) -> None:
    folder.write()
    folder.roster.pause()

    assert folder.scan() == {}
    folder.write()
    assert folder.scan() == OPEN


def test_other_folder_without_the_records_is_noticed(folder: Folder) -> None:
    folder.write()
    folder.scan()
    empty = Scan(place=(2, 2))

    assert folder.roster.is_elsewhere(empty)
    assert not folder.roster.is_elsewhere(Scan(place=folder.place))
    assert not folder.roster.is_elsewhere(Scan(place=(2, 2), found=folder.records))
    assert not Folder().roster.is_elsewhere(empty)


def test_folder_made_anew_is_used_when_no_host_is_left(folder: Folder) -> None:
    folder.write()
    folder.scan()
    folder.write(state=HostState.GONE)
    folder.scan()

    assert not folder.roster.is_elsewhere(Scan(place=(2, 2)))


@pytest.mark.parametrize("is_cut", [False, True])
def test_record_that_a_cut_scan_did_not_show_before_may_be_old(folder: Folder, is_cut: bool) -> None:
    folder.write()
    for after in (2.0, 4.0):
        folder.roster.observe(Scan(place=folder.place, is_cut=is_cut), folder.now + after)
    folder.roster.observe(Scan(place=folder.place, found=dict(folder.records)), folder.now + 6.0)

    assert bool(folder.roster.endpoints(folder.rules)) is not is_cut
    folder.now += 6.0
    folder.write()
    assert folder.scan() == OPEN


def test_draining_host_ends_and_a_host_that_is_gone_is_removed_at_once(folder: Folder) -> None:
    folder.write()
    folder.scan()

    folder.write(state=HostState.DRAINING)
    assert folder.scan() == {NAME: Standing.ENDING}
    folder.write(state=HostState.GONE)
    assert folder.scan() == {}
    folder.write(boot="b2", sequence=1)  # requeued
    assert folder.scan() == OPEN


def test_draining_host_that_falls_silent_is_not_taken_back(folder: Folder) -> None:
    folder.write(state=HostState.DRAINING)
    folder.scan()

    assert {next(iter(folder.scan().values()), None) for _ in range(100)} == {Standing.ENDING, None}


def test_endpoint_that_is_not_named_any_more_ends(folder: Folder) -> None:
    other = "http://10.0.0.1:11433"
    folder.write("gpu1", URL, other)
    folder.scan()

    folder.write("gpu1", other)
    assert folder.scan() == {NAME: Standing.ENDING, "10.0.0.1:11433": Standing.OPEN}
    folder.write("gpu1", URL, other)
    assert folder.scan() == {NAME: Standing.OPEN, "10.0.0.1:11433": Standing.OPEN}


def test_older_content_from_a_cache_is_no_sign_of_life(folder: Folder) -> None:
    folder.write(sequence=100)
    folder.scan()

    def rewinds() -> Iterator[Standing | None]:
        for number in range(20):
            folder.write(sequence=90 - number)
            yield next(iter(folder.scan().values()), None)

    assert list(rewinds())[-1] is Standing.HELD


def test_content_that_is_refused_is_no_sign_of_life(folder: Folder) -> None:
    folder.write()
    folder.scan()
    del folder.records["gpu1"]
    folder.refused["gpu1"] = RefusedRecord("it is not JSON", 0)

    assert folder.scan() == OPEN
    assert folder.standing().why == "it is not JSON"
    folder.pass_until({NAME: Standing.HELD})


def test_refused_records_are_shown(folder: Folder) -> None:
    folder.refused["evil"] = RefusedRecord("it is not a regular file", 7)
    folder.scan()

    assert folder.standing("evil") == HostStanding(name="evil", uid=7, state="refused", why="it is not a regular file")


def test_record_that_vanishes_counts_as_silent(folder: Folder) -> None:
    folder.write()
    folder.scan()
    folder.records.clear()

    assert folder.scan() == OPEN
    folder.pass_until({})
    assert folder.roster.standings(folder.now) == []


# --- trust -----------------------------------------------------------------------------------------------------------


def test_endpoint_of_the_configuration_is_not_taken_from_it() -> None:
    folder = Folder(Rules(taken=Taken(urls=frozenset((URL,)))))
    folder.write("gpu1", URL, "http://10.0.0.1:11433")

    assert folder.scan() == {"10.0.0.1:11433": Standing.OPEN}
    assert NAME in folder.standing().why


@pytest.mark.parametrize(
    ("taken", "machine", "is_used"),
    [
        (Taken(places=frozenset((("10.0.0.1", 11432),))), "other", False),  # configured by its name
        (Taken(places=frozenset((("10.0.0.1", 11433),))), "other", True),
        (Taken(local_ports=frozenset((11432,))), "own", False),  # configured as 127.0.0.1
        (Taken(local_ports=frozenset((11432,))), "other", True),
    ],
)
def test_endpoint_that_the_configuration_names_in_another_way_is_not_taken_twice(
    taken: Taken, machine: str, is_used: bool
) -> None:
    folder = Folder(Rules(taken=taken, machine_id="own"))
    folder.write(machine_id=machine)

    assert bool(folder.scan()) is is_used


def test_endpoint_of_another_owner_is_not_taken_from_it(folder: Folder) -> None:
    folder.write("zeta", uid=1)
    folder.scan()
    folder.write("alpha", uid=2)
    folder.scan()

    assert [item.host for item in folder.offered] == ["zeta"]
    assert "zeta" in folder.standing("alpha").why

    folder.write("zeta", uid=1, state=HostState.GONE)  # then it is free
    folder.scan()
    assert [item.host for item in folder.offered] == ["alpha"]
    folder.write("zeta", uid=1)
    folder.scan()
    assert [item.host for item in folder.offered] == ["alpha"]


def test_later_host_of_the_same_owner_takes_an_endpoint_over(folder: Folder) -> None:
    folder.write("slurm-1", uid=1)
    folder.scan()
    folder.write("slurm-2", uid=1)
    folder.scan()

    assert [item.host for item in folder.offered] == ["slurm-2"]


def test_loopback_counts_only_on_the_same_machine() -> None:
    for machine, own, is_used in (("m", "m", True), ("m", "n", False), ("", "", False)):
        folder = Folder(Rules(machine_id=own))
        folder.write("gpu1", "http://127.0.0.1:11432", machine_id=machine)
        assert bool(folder.scan()) is is_used


def test_loopback_that_is_refused_claims_nothing() -> None:
    folder = Folder(Rules(machine_id="m"))
    folder.write("evil", "http://127.0.0.1:11432", uid=2, machine_id="other")
    folder.scan()
    folder.write("good", "http://127.0.0.1:11432", uid=1, machine_id="m")

    assert folder.scan() == {"127.0.0.1:11432": Standing.OPEN}


def test_with_per_user_the_endpoint_of_another_user_is_for_that_user() -> None:
    folder = Folder(Rules(owners=frozenset((0, 100))))
    for number, uid in enumerate((0, 100, 1000)):
        folder.write(f"h{number}", f"http://10.0.0.{number + 1}:80", uid=uid)
    folder.scan()

    assert [item.only_for for item in folder.offered] == [None, None, 1000]


def test_records_of_a_user_who_is_not_listed_any_more_are_forgotten_at_once(folder: Folder) -> None:
    folder.write(uid=1000)
    folder.scan()

    folder.roster.keep_only((0, 1))
    folder.records.clear()

    assert folder.scan() == {}


def test_most_endpoints_are_those_that_came_first(folder: Folder) -> None:
    folder.rules = Rules(most=2)
    for number in (3, 2, 1):
        folder.write(f"h{number}", f"http://10.0.0.{number}:80")
        folder.scan()

    assert {item.host for item in folder.offered} == {"h3", "h2"}
    assert folder.roster.excess == 1
    folder.write("h3", "http://10.0.0.3:80", state=HostState.GONE)
    folder.scan()
    assert {item.host for item in folder.offered} == {"h2", "h1"}
    assert folder.roster.excess == 0


# --- the end of an allocation ----------------------------------------------------------------------------------------


def test_end_of_an_allocation_is_counted_on_the_coordinators_clock(folder: Folder) -> None:
    folder.write(until=5.0, seconds_left=600.0)
    folder.scan()
    first = folder.offered[0].ends_at
    folder.now += 8
    folder.write(until=5.0, seconds_left=590.5)
    folder.scan()

    assert first == folder.now - 10 + 600 - MARGIN_SECONDS
    assert folder.offered[0].ends_at == first  # the same end, in spite of a late scan
    folder.write(seconds_left=3600.0)  # the allocation was extended
    folder.scan()
    assert folder.offered[0].ends_at == folder.now + 3600 - MARGIN_SECONDS
    folder.write(boot="b2")
    folder.scan()
    assert folder.offered[0].ends_at is None


def test_slots_that_a_record_does_not_name_are_those_of_the_configuration() -> None:
    folder = Folder(Rules(slots=4))
    folder.write("gpu1", URL)
    folder.scan()

    assert folder.offered[0].endpoint.slots == 4
