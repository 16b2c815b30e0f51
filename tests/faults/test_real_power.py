"""Real power cuts: a small ext4 on a loop device is shut down under a process that works through jobs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from obcd.errors import ObcdError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import Accepted, accept_claimed
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.outbox import publication
from tests.faults.loop import LoopDisk, why_not
from tests.faults.story import SETTINGS
from tests.support import SOURCES
from tests.unit.spool.spools import finish, lines_of

Count = Callable[[str], None]
#: Cuts in `make test`, in `make soak`, and at most until code without any sync is found out.
ROUNDS, MANY, MUTANT_ROUNDS = 4, 100, 30


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[LoopDisk]:
    folder = tmp_path / "machine"
    folder.mkdir()
    reason = why_not(folder)
    if reason:
        pytest.skip(reason)
    loop = LoopDisk(folder)
    loop.mount()
    yield loop
    loop.unmount()


@dataclass
class Promises:
    """What was said before the power went."""

    accepted: dict[str, int] = field(default_factory=dict)
    recorded: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    published: set[str] = field(default_factory=set)

    def take(self, line: str) -> None:
        match line.split():
            case ["accepted", name, count]:
                self.accepted[name] = int(count)
            case ["recorded", name, ordinal]:
                self.recorded[name].add(int(ordinal))
            case ["published", name]:
                self.published.add(name)
            case other:
                raise ValueError(f"the submitter says {other}")


def cut_once(machine: LoopDisk, promises: Promises, number: int, dice: random.Random, *options: str) -> None:
    """Let jobs run, cut the power after a random number of promises, and start the machine again."""
    words = (str(machine.path / "root"), str(number), str(dice.randrange(10**6)), *options)
    command = [sys.executable, "-m", "tests.faults.submitter", *words]
    wanted, said = dice.randrange(1, 150), b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=SOURCES) as process:
        assert process.stdout is not None
        while said.count(b"\n") < wanted:
            block = os.read(process.stdout.fileno(), 2**16)
            assert block, "the submitter ended by itself"
            said += block
        # What is said from here on does not count: a sync that meets the shutdown half-way may return without an error,
        # which no machine without power does.
        machine.cut()
        process.kill()
    for line in said.decode().splitlines(keepends=True):
        if line.endswith("\n"):
            promises.take(line)
    machine.unmount()
    machine.mount()


def check_promises(machine: LoopDisk, promises: Promises) -> int:
    """Recover, finish, and hold what is there against what was said; the spool is empty afterwards."""
    layout = Layout.at(machine.path / "root")
    try:
        go_on(layout)
        shown = {folder.name: folder for folder in layout.outbox.iterdir()}
        assert promises.accepted.keys() <= shown.keys(), "an accepted file is gone"
        for name, folder in shown.items():
            check_job(folder, name, promises)
    except (OSError, ValueError, KeyError, TypeError, ObcdError) as error:
        raise AssertionError(f"the recovery failed: {error!r}") from error
    assert list(layout.jobs.iterdir()) == list(layout.claims.iterdir()) == []
    for folder in (layout.outbox, *layout.inbox.glob("r*"), *layout.inbox.glob(".*.tmp")):
        disk.remove_tree(folder) if folder.is_dir() else disk.remove(folder)
    return len(shown)


def check_job(folder: Path, name: str, promises: Promises) -> None:
    responses = lines_of(folder / "responses.jsonl")
    count = len((folder / "input.jsonl").read_bytes().splitlines())
    assert count == promises.accepted.get(name, count)
    assert [item["line"] for item in responses] == list(range(1, count + 1))
    again = {item["line"] - 1 for item in responses if item["response"] != "first"}
    assert not again & promises.recorded[name], "what was recorded was asked again"
    assert name not in promises.published or not again


def go_on(layout: Layout) -> None:
    layout.create([])
    found = recovery.recover(layout)
    assert found.damaged == ()
    for job in found.unpublished:
        publication.publish(layout, job, {})
    for header in found.jobs:
        finish(layout, recovery.load_job(layout, header.id).header)
    for claim in found.claims:
        order = AcceptOrder(drop=claim.drop, job=claim.job, settings=SETTINGS, max_line_bytes=2**20, reject_torn=True)
        verdict = accept_claimed(layout, order)
        assert isinstance(verdict, Accepted)
        finish(layout, verdict.header)


def cut_often(machine: LoopDisk, rounds: int, *options: str) -> str:
    dice, jobs, results = random.Random(4), 0, 0
    for number in range(rounds):
        promises = Promises()
        cut_once(machine, promises, number, dice, *options)
        jobs += check_promises(machine, promises)
        results += sum(map(len, promises.recorded.values()))
    return f"real power cuts: {rounds}, jobs {jobs}, results recorded before them {results}: 0 lost, 0 twice"


@pytest.mark.case("B4")
def test_real_power_cuts_lose_nothing_and_double_nothing(machine: LoopDisk, count: Count) -> None:
    said = cut_often(machine, ROUNDS)

    count(said)
    assert said.startswith(f"real power cuts: {ROUNDS}")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.case("B4")
def test_hundred_real_power_cuts_lose_nothing_and_double_nothing(machine: LoopDisk, count: Count) -> None:
    said = cut_often(machine, MANY)

    count(said)
    assert said.startswith(f"real power cuts: {MANY}")


@pytest.mark.case("B5")
def test_real_power_cuts_find_code_without_any_sync_out(machine: LoopDisk) -> None:
    """A test that passes whatever the code does proves nothing."""
    with pytest.raises(AssertionError):
        cut_often(machine, MUTANT_ROUNDS, "nosync")
