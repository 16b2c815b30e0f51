"""Random kill -9 of all that obcd runs, in numbers: nothing lost, nothing twice, nothing asked again for nothing.

`OBCD_KILLS_SEED` repeats the choices of a run (not its times). What was killed how often is printed at the end.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.asked import Asked, Kill, read_account, reckon
from tests.faults.dropping import WORD, Drops
from tests.faults.killing import SLOTS, Bare, Moment, Rig, Supervised, Victim
from tests.support import wait_until

pytestmark = pytest.mark.integration

Count = Callable[[str], None]

#: {victim: share}, by the way the daemon is run.
BARE = {
    Victim.COORDINATOR: 34,
    Victim.GROUP: 8,
    Victim.CLERK: 22,
    Victim.WORKER: 18,
    Victim.FORK_SERVER: 3,
    Victim.SERVER: 15,
}
SUPERVISED = {
    Victim.SUPERVISORD: 35,
    Victim.COORDINATOR: 15,
    Victim.GROUP: 5,
    Victim.CLERK: 15,
    Victim.WORKER: 15,
    Victim.SERVER: 15,
}
_COORDINATOR = {Moment.ANY: 40, Moment.START: 25, Moment.ACCEPTING: 20, Moment.PUBLISHING: 15}
#: {victim: {moment: share}}; who is not here is killed at any time.
MOMENTS = {
    Victim.CLERK: {Moment.ACCEPTING: 45, Moment.PUBLISHING: 45, Moment.ANY: 10},
    Victim.COORDINATOR: _COORDINATOR,
    Victim.GROUP: _COORDINATOR,
    Victim.SUPERVISORD: {Moment.ANY: 60, Moment.START: 20, Moment.ACCEPTING: 10, Moment.PUBLISHING: 10},
}
#: Drops that are not answered yet; more would only wait.
PILE = 25
#: How often a job may have been begun in vain before the next kill waits for a result. The fifth time would rightly be
#: taken for the job's own doing.
IN_VAIN = 3


@pytest.fixture
def dice(count: Count) -> random.Random:
    seed = int(os.environ.get("OBCD_KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    count(f"kills: OBCD_KILLS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    """Yield a list; what runs in it is ended after the test."""
    started: list[Rig] = []
    yield started
    for rig in started:
        rig.end()


def kill_at_random(rig: Rig, drops: Drops, shares: dict[Victim, int], kills: int, prompts: int, most: int) -> None:
    """Kill at least `kills` times while at least `prompts` requests are dropped, in files of up to `most` lines."""
    while len(rig.kills) < kills or drops.prompts < prompts:
        feed(drops, prompts * (len(rig.kills) + 1) // kills, most)
        victim = rig.dice.choices(list(shares), list(shares.values()))[0]
        moments = MOMENTS.get(victim, {Moment.ANY: 1})
        moment = rig.dice.choices(list(moments), list(moments.values()))[0]
        if moment is not Moment.START:
            wait_until(rig.is_ready, what=rig.logs)
        elif not rig.is_fresh:
            moment = Moment.ANY
        wait_until(lambda: rig.worst_begun() <= IN_VAIN, 90, lambda: f"{rig.status()}\n{rig.logs()[-9000:]}")
        if moment is Moment.ACCEPTING:
            drops.drop(most)
        rig.kill(victim, moment)
        rig.check_orphans()


def feed(drops: Drops, prompts: int, most: int) -> None:
    """Drop as much as is due by now, but never let it pile up."""
    while drops.prompts < prompts and len(drops.dropped) - drops.published() < PILE:
        drops.drop(most)


def assert_nothing_is_lost(rig: Rig, drops: Drops, name: str, count: Count, patience: float) -> None:
    """Let it finish, end it, and hold what there is against what was dropped."""
    wait_until(rig.is_ready, what=rig.logs)  # one that was refused beside its dying predecessor is started again
    wait_until(drops.are_all_published, patience, lambda: f"{drops.published()}/{len(drops.dropped)}\n{rig.logs()}")
    wait_until(lambda: not drops.left(), what=lambda: f"{drops.left()} is left\n{rig.logs()}")
    rig.check_orphans(wait=True)
    wait_until(rig.is_ready, what=rig.logs)  # where the last kill was just now, a signal would end Python's own start
    rig.stop()
    outcome = drops.check()
    found = reckon(read_account(rig.account), rig.kills, drops.wanted())
    killed = ", ".join(f"{number} × {victim}" for victim, number in rig.counts.most_common())
    moments = ", ".join(f"{number} at {moment}" for moment, number in rig.moments.most_common())
    count(f"{name}: {len(rig.kills)} kills ({killed}; {moments})")
    count(
        f"{name}: {drops.prompts} prompts in {len(drops.dropped)} drops: {outcome.missing} missing, {outcome.twice} "
        f"twice, {len(outcome.failed)} without an answer; {found}"
    )
    assert (outcome.missing, outcome.twice, outcome.failed) == (0, 0, [])
    assert found.unexcused == (), found
    assert found.copies <= max(2 * len(drops.dropped), 0.02 * drops.prompts), found
    assert found.at_servers <= sum(len(kill.servers) * SLOTS for kill in rig.kills), found
    logs = rig.logs()
    assert WORD not in logs
    assert "Traceback" not in logs, logs


# --- the reckoning itself --------------------------------------------------------------------------------------------


def asked(arrived: float, ended: float | None, server: int = 1, prompt: str = "p") -> Asked:
    return Asked(prompt, server, arrived, ended, "killed" if ended is None else "answered")


@pytest.mark.parametrize(
    ("first", "kill", "is_excused"),
    [
        (asked(0.0, 2.0), Kill(1.0, frozenset({1})), True),  # at its server
        (asked(0.0, None), Kill(1.0, frozenset({1})), True),  # with its server
        (asked(1.1, 2.0), Kill(1.0, frozenset({1})), True),  # given out, and not there yet
        (asked(0.0, 0.9), Kill(1.0, frozenset({1})), True),  # answered, and not on disk yet
        (asked(0.0, 2.0), Kill(1.0, frozenset({2})), False),  # another endpoint's worker
        (asked(0.0, 2.0), Kill(1.0, frozenset()), False),  # a clerk
        (asked(0.0, 0.5), Kill(4.0, frozenset({1})), False),  # long on disk
        (asked(2.0, 2.5), Kill(1.0, frozenset({1})), False),  # asked after it
        (asked(0.0, 2.0), Kill(6.0, frozenset({1})), False),  # asked again before it
    ],
)
def test_request_that_is_asked_again_needs_a_kill_that_touched_it(first: Asked, kill: Kill, is_excused: bool) -> None:
    found = reckon([first, asked(5.0, 5.5)], [kill], {})

    assert (found.asked, found.again, len(found.unexcused)) == (2, 1, 0 if is_excused else 1)


def test_straggler_may_be_asked_on_two_servers_at_once() -> None:
    first, again = Asked("p", 1, 0.0, 2.0, "cancelled"), asked(1.0, 1.5, server=2)

    found = reckon([first, again], [], {})

    assert (found.copies, found.unexcused) == (1, ())


def test_copy_that_crossed_the_answer_on_its_way_has_to_be_broken_off() -> None:
    first = asked(0.0, 2.0)

    assert reckon([first, Asked("p", 2, 2.01, 2.02, "cancelled")], [], {}).copies == 1
    assert reckon([first, asked(2.01, 2.5, server=2)], [], {}).copies == 0


@pytest.mark.parametrize("again", [asked(1.0, 1.5, server=1), asked(3.0, 3.5, server=2)], ids=["same", "later"])
def test_straggler_is_asked_neither_twice_on_one_server_nor_after_its_end(again: Asked) -> None:
    first = asked(0.0, 2.0)

    assert reckon([first, again], [], {}).unexcused == ((first, again),)


def test_prompt_that_was_dropped_twice_may_be_asked_twice_and_no_more() -> None:
    account = [asked(0.0, 0.5), asked(2.0, 2.5), asked(4.0, 4.5)]

    assert reckon(account, [], {"p": 3}).unexcused == ()
    found = reckon(account, [], {"p": 2})
    assert (found.again, len(found.unexcused)) == (1, 1)


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.case("B3", "B6")
def test_random_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, runtime: Path, dice: random.Random, rigs: list[Rig], count: Count
) -> None:
    rig = Bare(tmp_path, runtime, dice)
    rigs.append(rig)
    drops = Drops(rig.root, dice)

    kill_at_random(rig, drops, BARE, kills=12, prompts=240, most=40)

    assert_nothing_is_lost(rig, drops, "a dozen", count, 60)


@pytest.mark.case("B17")
def test_random_kills_under_supervisord_lose_nothing_and_double_nothing(
    tmp_path: Path, runtime: Path, dice: random.Random, rigs: list[Rig], count: Count
) -> None:
    rig = Supervised(tmp_path, runtime, dice)
    rigs.append(rig)
    drops = Drops(rig.root, dice)

    kill_at_random(rig, drops, SUPERVISED, kills=5, prompts=60, most=20)

    assert_nothing_is_lost(rig, drops, "obcd up", count, 60)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.case("B3", "B6", "B17")
def test_thousand_random_kills_lose_nothing_and_double_nothing(
    tmp_path: Path, runtime: Path, dice: random.Random, rigs: list[Rig], count: Count
) -> None:
    began = time.monotonic()
    for kind, shares, kills, prompts in ((Bare, BARE, 880, 18000), (Supervised, SUPERVISED, 120, 2400)):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        rig = kind(folder, runtime, dice)
        rigs.append(rig)
        drops = Drops(rig.root, dice)

        kill_at_random(rig, drops, shares, kills=kills, prompts=prompts, most=60)

        assert_nothing_is_lost(rig, drops, kind.__name__, count, 300)
    count(f"kills: {time.monotonic() - began:.0f} s")
