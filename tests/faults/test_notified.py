"""Notifications over kill -9: each event at least once, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from obcd.clock import monotonic
from obcd.config.settings import Settings
from obcd.coordinator.notices import notifier as notifier_module
from obcd.coordinator.notices.notifier import Notifier
from obcd.core.events import EventKind, NotableEvent
from obcd.secret import Secret
from obcd.spool.folders.event_files import find_events, folder_of, write_event
from tests.faults.dropping import Drops
from tests.faults.killing import Bare, Moment, Victim
from tests.faults.test_kills import BARE, IN_VAIN, MOMENTS, feed
from tests.receivers import SECRET, Receiver, receiving, write_secret
from tests.support import wait_until
from tests.unit.spool.spools import make_layout

pytestmark = pytest.mark.integration

Count = Callable[[str], None]
KILLS = int(os.environ.get("OBCD_NOTIFIED_KILLS", "200"))
#: {victim: share}
VICTIMS = {**BARE, Victim.SERVER: 5, Victim.NOTIFIER: 40, Victim.CLERK: 30, Victim.COORDINATOR: 30}


@pytest.fixture
def dice(count: Count) -> random.Random:
    seed = int(os.environ.get("OBCD_KILLS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    count(f"notified: OBCD_KILLS_SEED={seed}")
    return random.Random(seed)


def slow(number: int) -> tuple[int, dict[str, str]]:
    """Answer late now and then, so that a kill comes between the delivery and the removal of the event."""
    if number % 3 == 0:
        time.sleep(0.02)
    return (500 if number % 40 == 39 else 200), {}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(slow) as found:
        yield found


def test_no_event_is_lost_while_the_notifier_is_killed_twenty_times(
    tmp_path: Path, receiver: Receiver, dice: random.Random, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "RESTART_BASE", 0.0)
    monkeypatch.setattr(notifier_module, "RESTART_LIMIT", 0.0)
    layout = make_layout(tmp_path)
    keys = {"webhook": receiver.url, "webhook_secret_file": "secret"}
    settings = Settings.model_validate({"notify": keys}).model_copy(
        update={"webhook_secrets": {"secret": Secret(SECRET)}}
    )
    notifier = Notifier(layout)
    notifier.configure(settings)
    wanted: list[str] = []
    try:
        for number in range(20):
            for part in range(dice.randint(1, 4)):
                wanted.append(f"evt_{number}_{part}")
                event = NotableEvent(id=wanted[-1], kind=EventKind.DISK, at=time.time(), text="x")
                if part % 2:
                    write_event(layout.root, event)
                else:
                    notifier.raise_event(event)
            tick(notifier, dice.uniform(0.0, 0.08))
            if (pid := notifier.pids["notifier"]) is not None:
                with contextlib.suppress(ProcessLookupError):  # the one before is known to be gone only at a tick
                    os.kill(pid, 9)
        wait_until(lambda: has_sent_all(notifier, layout.root))
    finally:
        notifier.stop()

    assert set(receiver.ids()) == set(wanted)
    count(f"notified: {len(wanted)} events over 20 kills of the notifier, {len(receiver.received)} attempts arrived")


def has_sent_all(notifier: Notifier, root: Path) -> bool:
    tick(notifier, 0.05)
    return not find_events(root)


def tick(notifier: Notifier, seconds: float) -> None:
    """Let the coordinator's side do its part for a while."""
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        notifier.tick(monotonic())
        select.select(notifier.filenos(), [], [], min(left, 0.02))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_random_kills_lose_no_notification(
    tmp_path: Path, runtime: Path, dice: random.Random, receiver: Receiver, count: Count
) -> None:
    secret = str(write_secret(tmp_path / "secret"))
    rig = Bare(tmp_path, runtime, dice, notify={"webhook": receiver.url, "webhook_secret_file": secret})
    drops = Drops(rig.root, dice)
    try:
        while len(rig.kills) < KILLS:
            feed(drops, 12 * (len(rig.kills) + 1), 20)
            victim = dice.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            moments = MOMENTS.get(victim, {Moment.PUBLISHING: 3, Moment.ANY: 1})
            wait_until(rig.is_ready, what=rig.logs)
            wait_until(lambda: rig.worst_begun() <= IN_VAIN, 90, rig.logs)
            rig.kill(victim, dice.choices(list(moments), list(moments.values()))[0])
        wait_until(rig.is_ready, what=rig.logs)
        wait_until(drops.are_all_published, 300, rig.logs)
        wait_until(lambda: not list(folder_of(rig.root).iterdir()), 60, rig.logs)
        rig.stop()
    finally:
        rig.end()

    manifests = [json.loads(path.read_bytes()) for path in (rig.root / "outbox").rglob("manifest.json")]
    jobs = {item["job"] for item in manifests if "rejected" not in item and "repeats" not in item}
    arrived = Counter(item.message["data"]["job"] for item in receiver.received)
    ids = {(item.message["data"]["job"], item.id) for item in receiver.received}
    count(
        f"notified: {len(jobs)} jobs over {len(rig.kills)} kills ({dict(rig.counts)}): {len(jobs - arrived.keys())} "
        f"without a notification; {sum(arrived.values())} attempts arrived, at most {max(arrived.values())} of one"
    )
    assert arrived.keys() == jobs
    assert len(ids) == len(jobs), "an event has one id, however often it is sent"
