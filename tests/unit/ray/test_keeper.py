"""The keeper over a Ray that a table stands in for: records, leases, adoption, drains, other keepers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from obcd.errors import AlreadyRunningError
from obcd.host.control.registrar import Content
from obcd.hosts.record import HostState
from obcd.ray.cluster import Look, Silence
from obcd.ray.keeper import AGAIN_SECONDS, LIST_SECONDS, Keeper, KeeperPlan
from obcd.ray.messages import DrainCause, GuardState, ServerReport, ServerWish
from obcd.ray.scaling import Limits
from obcd.ray.server_records import GONE

WISH = ServerWish(host={}, load_timeout_seconds=900.0, context=8192, ports="0")
SERVING = ServerReport(state=GuardState.SERVING, slots=10, version="0.33.0", mark=WISH.mark, node="n1")


class TableRay:
    """Ray as a table: {number: what the actor answers next, None while it waits for a GPU}."""

    def __init__(self, there: int = 0, gpus: int = 8) -> None:
        self.actors: dict[int, ServerReport | Silence | None] = {
            number: self.serving(number) for number in range(there)
        }
        self.total = gpus
        self.asked: dict[int, str] = {}
        self.drained: list[tuple[int, float, str]] = []
        self.ended: list[int] = []
        self.wanted: list[int] = []
        self.other_keeper = ""

    @staticmethod
    def serving(number: int) -> ServerReport:
        return replace(SERVING, url=f"http://10.0.0.11:{11432 + number}", gpu=number, gpu_uuid=f"GPU-{number}")

    def numbers(self) -> set[int]:
        return set(self.actors)

    def start(self, number: int, wish: ServerWish) -> None:
        self.actors[number] = None

    def look(self, number: int, keeper: str, known: int) -> None:
        self.asked[number] = keeper

    def answers(self, seconds: float) -> Iterator[tuple[int, Look | Silence]]:
        for number in list(self.asked):
            report = self.actors.get(number)
            if isinstance(report, ServerReport):
                del self.asked[number]
                yield number, Look(known=1, held_by=self.other_keeper, report=report)
            elif report is not None:
                del self.asked[number]
                yield number, report

    def drain(self, number: int, seconds: float, cause: str) -> None:
        self.drained.append((number, seconds, cause))

    def end(self, number: int) -> None:
        self.ended.append(number)
        self.actors.pop(number, None)

    def forget(self, number: int) -> None:
        self.asked.pop(number, None)

    def gpus(self) -> tuple[int, int]:
        return self.total, self.total - len(self.actors)

    def want(self, count: int) -> None:
        self.wanted.append(count)


class TableRecords:
    """{number: what its record says}, and how often each was written."""

    def __init__(self, left: set[int] | None = None) -> None:
        self.shown: dict[int, Content] = {}
        self.writes = 0
        self._left = left or set()

    def put(self, number: int, content: Content) -> None:
        self.shown[number] = content
        self.writes += 1

    def bury(self, there: set[int]) -> None:
        self.shown |= dict.fromkeys(self._left - there, GONE)

    def finish(self) -> None:
        """There is no thread to wait for."""

    def urls(self, state: HostState = HostState.SERVING) -> list[str]:
        return [item.url for shown in self.shown.values() if shown[0] is state for item in shown[1]]


class World:
    """A keeper, with a clock that the test moves."""

    def __init__(self, ray: TableRay, *, least: int = 0, waiting: int = 0, left: set[int] | None = None) -> None:
        self.ray, self.records, self.waiting, self.now = ray, TableRecords(left), waiting, 100.0
        plan = KeeperPlan(
            name="m1/7", wish=WISH, limits=Limits(least=least, most=8, idle_seconds=60.0), drain_seconds=600.0
        )
        self.keeper = Keeper(plan, ray, self.records, lambda: self.waiting, self.now)

    def tick(self, seconds: float = 2.0) -> bool:
        self.now += seconds
        return self.keeper.tick(self.now, 0.0)


def test_servers_are_started_by_what_waits_and_registered_when_they_answer() -> None:
    world = World(TableRay(), waiting=40)
    world.tick()
    assert set(world.ray.actors) == {0, 1, 2}
    assert world.ray.wanted == [3]
    world.tick()
    assert world.records.shown == {}

    world.ray.actors[1] = replace(world.ray.serving(1), state=GuardState.STARTING)
    world.ray.actors[2] = world.ray.serving(2)
    world.tick()
    assert world.records.urls() == ["http://10.0.0.11:11434"]
    assert set(world.ray.asked.values()) == {"m1/7"}


def test_a_record_is_written_with_every_answer_and_stands_still_without() -> None:
    world = World(TableRay(1), least=1)
    for writes in (1, 2):
        world.tick()
        assert world.records.writes == writes
    world.ray.actors[0] = Silence(is_dead=False)
    world.tick()
    world.tick(AGAIN_SECONDS)
    assert world.records.writes == 2
    world.ray.actors[0] = replace(world.ray.serving(0), state=GuardState.STARTING)
    world.tick()
    assert world.records.writes == 2


def test_a_keeper_that_starts_again_adopts_and_buries() -> None:
    world = World(TableRay(2), least=2, left={0, 1, 5})
    world.tick()
    assert world.ray.actors.keys() == {0, 1}
    assert len(world.records.urls()) == 2
    assert world.records.shown[5] == GONE


def test_an_actor_that_is_dead_is_gone_and_replaced() -> None:
    world = World(TableRay(2), least=2)
    world.tick()
    world.ray.actors[1] = Silence(is_dead=True)
    world.tick(0.5)
    assert world.records.shown[1] == GONE
    world.ray.actors.pop(1)
    world.tick()
    assert world.ray.numbers() == {0, 1}


def test_actors_that_ray_gives_up_are_started_with_growing_pauses() -> None:
    world = World(TableRay(0), least=1)
    starts = []
    for _ in range(100):
        world.tick()
        if 0 in world.ray.actors:
            starts.append(world.now)
            world.ray.actors[0] = Silence(is_dead=True, words="No module named 'obcd'")
            world.tick(0.1)
            world.ray.actors.clear()
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]

    assert pauses == sorted(pauses)
    assert pauses[-1] > 50


def test_an_actor_that_ray_no_longer_lists_is_gone() -> None:
    world = World(TableRay(1), least=0)
    world.ray.actors[0] = None
    world.tick()
    del world.ray.actors[0]
    world.tick(LIST_SECONDS)
    assert world.records.shown[0] == GONE


def test_scaling_down_drains_and_ends_what_has_drained() -> None:
    world = World(TableRay(3), least=1)
    world.tick()
    world.tick(61.0)
    assert world.ray.drained == [(2, 600.0, "scaling"), (1, 600.0, "scaling")]
    assert len(world.records.urls(HostState.DRAINING)) == 2
    assert world.ray.ended == []

    for number in (1, 2):
        world.ray.actors[number] = replace(world.ray.serving(number), state=GuardState.ENDED, cause="scaling")
    assert world.tick()
    assert sorted(world.ray.ended) == [1, 2]
    assert world.records.shown[1] == world.records.shown[2] == GONE
    assert world.ray.numbers() == {0}


def test_down_drains_the_others_too_and_ends_the_keeper() -> None:
    world = World(TableRay(2), least=2)
    world.tick()
    world.ray.actors[0] = replace(world.ray.serving(0), state=GuardState.ENDED, cause=DrainCause.DOWN)
    assert world.tick()
    assert world.ray.drained == [(1, 600.0, "down")]
    world.ray.actors[1] = replace(world.ray.serving(1), state=GuardState.ENDED, cause=DrainCause.DOWN)
    assert not world.tick()
    assert world.ray.numbers() == set()


def test_a_server_whose_lease_ended_is_started_again() -> None:
    world = World(TableRay(1), least=1)
    world.ray.actors[0] = replace(world.ray.serving(0), state=GuardState.ENDED, cause=DrainCause.LEASE)
    assert world.tick()
    assert world.tick()
    assert world.ray.actors == {0: None}


def test_two_keepers_do_not_share_servers() -> None:
    ray = TableRay(1)
    ray.other_keeper = "m2/9"
    world = World(ray, least=1)
    with pytest.raises(AlreadyRunningError, match="m2/9"):
        world.tick()


def test_a_wish_of_another_configuration_replaces_the_server() -> None:
    ray = TableRay(1)
    ray.actors[0] = replace(ray.serving(0), mark="other")
    world = World(ray, least=1)
    world.tick()
    assert world.ray.drained == [(0, 600.0, "scaling")]
    world.tick()
    assert world.ray.numbers() == {0, 1}
