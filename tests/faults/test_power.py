"""The power is cut at every moment of each story, in the model of `power`: whatever is left is taken up again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from tests.faults import checks
from tests.faults.power import PowerDisk
from tests.faults.story import STORIES
from tests.unit.spool.spools import Crashed

Count = Callable[[str], None]
#: Different remains of one moment that are recovered at most: by `make test`, by `make soak`, and after a kill.
FEW, MANY, AFTER_KILL = 24, 1000, 12
EACH = pytest.mark.parametrize("name", STORIES)


@pytest.mark.case("B4")
@EACH
def test_power_cut_at_any_moment_loses_nothing_and_doubles_nothing(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, count: Count, name: str
) -> None:
    moments, remains = checks.check_power_cuts(scratch, STORIES[name], monkeypatch, FEW)

    count(f"power cuts of '{name}': {moments} moments, {remains} different remains")
    assert moments > 40
    assert remains > 20


@pytest.mark.case("B4")
def test_power_cut_after_a_kill_undoes_nothing_that_was_built_on_what_the_killed_one_left(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    """What a killed process renamed and did not sync is shown and not durable: the next one must know."""
    tried: set[checks.Remains] = set()
    for kill in range(1, checks.count_calls(checks.Places(scratch), STORIES["marked"], monkeypatch) + 1, 25):
        checks.check_power_cuts(
            scratch / str(kill), STORIES["marked"], monkeypatch, AFTER_KILL, crash_before=kill, seen=tried
        )

    count(f"power cuts after a kill of 'marked': {len(tried)} different remains")
    assert len(tried) > 80


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.case("B4")
@EACH
def test_all_power_cuts_and_those_after_each_kill(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, count: Count, name: str
) -> None:
    moments, remains = checks.check_power_cuts(scratch / "alone", STORIES[name], monkeypatch, MANY)
    calls = checks.count_calls(checks.Places(scratch), STORIES[name], monkeypatch)
    for kill in range(1, calls + 1):
        found = checks.check_power_cuts(scratch / str(kill), STORIES[name], monkeypatch, 40, crash_before=kill)
        moments, remains = moments + found[0], remains + found[1]

    count(f"power cuts of '{name}', all: {moments} moments, {remains} different remains")
    assert remains > 1000


def test_folders_of_a_new_spool_are_durable_when_they_are_made(scratch: Path) -> None:
    """A folder that a power cut takes away takes all with it that was published into it."""
    for number in itertools.count():
        home = scratch / str(number)
        home.mkdir()
        layout = Layout.at(home / "data" / "root")
        power = PowerDisk(home, lambda: None)
        with power.on():
            is_killed = create_until(layout, number)
            layout.create(["clinical"])
        left = {path for path, content in power.cuts[-1].worst().files if content is None}
        assert left >= {"data/root/" + path for path in ("jobs", "outbox", "inbox/.obcd/claim", "inbox/clinical")}
        if number and not is_killed:
            break


def create_until(layout: Layout, number: int) -> bool:
    """Make the folders, killed just before the `number`-th call; False when it is not killed."""
    looks, calls = disk.before, itertools.count(1)

    def before(operation: str, path: str) -> None:
        looks(operation, path)
        if next(calls) == number:
            raise Crashed(operation)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "before", before)
        try:
            layout.create(["clinical"])
        except Crashed:
            return True
    return False


def test_model_knows_what_a_sync_is_good_for(scratch: Path) -> None:
    """The table of what ext4 and XFS leave, from 0 bytes under the final name to all of it."""
    found = {}
    for syncs_file, syncs_folder in itertools.product((False, True), repeat=2):
        root = scratch / f"{syncs_file}{syncs_folder}"
        root.mkdir()
        power = PowerDisk(root, lambda: None)
        with power.on(), (root / "temporary").open("wb") as file:
            file.write(b"content")
            file.flush()
            if syncs_file:
                disk.sync_file(file.fileno(), "temporary")
            (root / "temporary").rename(root / "final")
            if syncs_folder:
                disk.sync_folder(root)
        cut = power.cuts[-1]
        names = (1 << len(cut.pending)) - 1
        found[syncs_file, syncs_folder] = (dict(cut.worst().files), dict(cut.tree(names, {}).files))
    assert found == {
        (False, False): ({}, {"final": b""}),
        (True, False): ({}, {"final": b"content"}),
        (False, True): ({"final": b""}, {"final": b""}),
        (True, True): ({"final": b"content"}, {"final": b"content"}),
    }
