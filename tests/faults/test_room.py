"""A coordinator that runs out of room: it pauses before the disk is full, records what is in flight, and goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.disk_watch import BALLAST, PAUSED
from obcd.results.verify import Verdict, verify
from tests.faults.conftest import Mount
from tests.faults.test_disk import fill
from tests.golden.wording import wording
from tests.support import (
    Cluster,
    CoordinatorProcess,
    Simulated,
    prompt_key,
    prompt_lines,
    prompts,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration

QUICK: dict[str, float | str] = {
    "obcd.coordinator.disk_watch:LOOK_SECONDS": 0.1, "obcd.coordinator.jobs.recorder:RETRY_SECONDS": 0.1,
    "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3, "obcd.coordinator.intake.drop_intake:HOLD_SECONDS": 0.3,
    "obcd.coordinator.intake.drop_intake:SCAN_IDLE": 0.5,
}  # fmt: skip
SLOTS = 8


@pytest.fixture
def server(cluster: Cluster) -> Simulated:
    """Return a server that takes two seconds for answers of some KB."""
    return cluster.simulate("--parallel", SLOTS, "--seconds", 2.0, "--answer-tokens", 1000)


def configure(folder: Path, server: Simulated, **spool: Any) -> Path:
    return write_config(folder / "obcd.toml", dict.fromkeys(server.names, SLOTS), spool=spool)


def job(coordinator: CoordinatorProcess, name: str = "first.jsonl") -> dict[str, Any]:
    return next((item for item in coordinator.status()["jobs"] if item["name"] == name), {"done": 0})


def troubles(coordinator: CoordinatorProcess) -> str:
    return "; ".join(coordinator.status()["troubles"])


def assert_whole(coordinator: CoordinatorProcess, server: Simulated, drops: dict[str, list[str]]) -> None:
    """Hold the promises against what is there, once all is published."""
    for stem, asked in drops.items():
        folder = coordinator.published(stem).folder
        assert verify(stem, folder).verdict is Verdict.COMPLETE
        assert (folder / "input.jsonl").read_bytes() == prompt_lines(asked)
    owed = [prompt_key(prompt) for asked in drops.values() for prompt in asked]
    assert server.asked() == dict.fromkeys(owed, 1), "something was asked again that was recorded"
    wait_until(lambda: set(os.listdir(coordinator.outbox)) == set(drops), what="no sign is left")
    usual = {"inbox", "jobs", "outbox", "lock", "answered", "counters.json", BALLAST}
    assert set(os.listdir(coordinator.root)) <= usual
    assert os.listdir(coordinator.jobs) == os.listdir(coordinator.inbox / ".obcd" / "claim") == []
    log = coordinator.text()
    assert not any(prompt in log for asked in drops.values() for prompt in asked)
    assert "Traceback" not in log


@pytest.mark.case("D1", "D3")
def test_too_little_room_pauses_acceptance_and_dispatch_until_there_is_more(
    tmp_path: Path, server: Simulated, cluster: Cluster
) -> None:
    """Without a small disk: what has to stay free becomes more than there is, by a reload."""
    # given a job of which some requests are in flight
    first, second = prompts(40, "first"), prompts(3, "second")
    config = configure(tmp_path, server)
    coordinator = cluster.coordinate(config, tweaks=QUICK)
    coordinator.drop(first, "first.jsonl")
    wait_until(lambda: server.in_flight() == SLOTS)

    # when there is less room than has to stay free, and another file comes
    configure(tmp_path, server, min_free_bytes=2**60)
    assert coordinator.obcd("reload").returncode == 0
    wait_until(lambda: "must stay free ([spool] min_free_bytes)" in troubles(coordinator))
    coordinator.drop(second, "second.jsonl")

    # then what was in flight is recorded, nothing else is asked, nothing is accepted, and all are told
    wait_until((coordinator.outbox / "second.waiting" / "why.txt").exists, what=coordinator.text)
    wait_until(lambda: server.in_flight() == 0 and job(coordinator)["done"] == server.asked().total())
    asked = server.asked().total()
    assert SLOTS <= asked < len(first)
    assert wording("has-no-room-at-present") in (coordinator.outbox / "second.waiting" / "why.txt").read_text()
    assert PAUSED in coordinator.obcd("status").stdout.replace("\n", " ")
    assert wording("are-to-stay-free") in job(coordinator)["trouble"]
    checked = coordinator.obcd("check")
    assert checked.returncode == 5
    assert "fault: only" in checked.stdout

    # and when there is room, it goes on by itself; each line of the log came once
    configure(tmp_path, server)
    assert coordinator.obcd("reload").returncode == 0
    assert_whole(coordinator, server, {"first": first, "second": second})
    assert (
        coordinator.text().count(wording("are-to-stay-free"))
        == coordinator.text().count(wording("there-is-room-again"))
        == 1
    )
    assert coordinator.status()["troubles"] == []


@pytest.mark.case("D1")
def test_disk_that_somebody_fills_to_its_last_byte_costs_no_answer(
    mount: Mount, tmp_path: Path, server: Simulated, cluster: Cluster
) -> None:
    root = mount(tmp_path / "root", "size=32m")
    first = prompts(20, "first")
    coordinator = cluster.coordinate(configure(tmp_path, server), tweaks=QUICK)
    assert (root / BALLAST).stat().st_size == 32 * 2**20 // 100
    coordinator.drop(first, "first.jsonl")
    wait_until(lambda: server.in_flight() == SLOTS)

    filler = fill(root)

    wait_until(lambda: job(coordinator)["done"] == SLOTS, what=coordinator.text)
    assert not (root / BALLAST).exists()
    assert PAUSED in troubles(coordinator)
    assert server.asked().total() == SLOTS
    filler.unlink()
    assert_whole(coordinator, server, {"first": first})
    wait_until((root / BALLAST).exists)
    assert coordinator.text().count(wording("the-ballast-makes-room")) == 1
    assert coordinator.text().count(wording("there-is-room-again")) == 1


@pytest.mark.case("D1")
def test_coordinator_that_starts_on_a_full_disk_waits_for_room_and_asks_nothing_again(
    mount: Mount, tmp_path: Path, server: Simulated, cluster: Cluster
) -> None:
    root, config = mount(tmp_path / "root", "size=32m"), configure(tmp_path, server)
    first = prompts(20, "first")
    coordinator = cluster.coordinate(config, tweaks=QUICK)
    coordinator.drop(first, "first.jsonl")
    wait_until(lambda: server.in_flight() == SLOTS)
    filler = fill(root)
    wait_until(lambda: job(coordinator)["done"] == SLOTS, what=coordinator.text)
    coordinator.kill()
    filler = fill(root)  # it may have found some room since

    coordinator = cluster.coordinate(config, tweaks=QUICK)

    assert PAUSED in troubles(coordinator)
    assert [item["state"] for item in coordinator.status()["jobs"]] == ["ACCEPTED"]
    filler.unlink()
    assert_whole(coordinator, server, {"first": first})


@pytest.mark.case("D4")
def test_last_answers_are_published_though_the_disk_stays_full(
    mount: Mount, tmp_path: Path, server: Simulated, cluster: Cluster
) -> None:
    root = mount(tmp_path / "root", "size=32m")
    first = prompts(SLOTS, "first")
    coordinator = cluster.coordinate(configure(tmp_path, server), tweaks=QUICK)
    coordinator.drop(first, "first.jsonl")
    wait_until(lambda: server.in_flight() == SLOTS)

    filler = fill(root)

    coordinator.published("first")
    assert PAUSED in troubles(coordinator)
    filler.unlink()
    assert_whole(coordinator, server, {"first": first})


#: Requests in flight at once whose results take 130 KB of an 8 MiB disk, with a ballast of 84 KB.
CROWD = 32


def let_them_answer_in(kilobytes: int, root: Path, coordinator: CoordinatorProcess, server: Simulated) -> Path:
    """Have a job of `CROWD` requests answered while this much of the disk is free; returns what fills the rest."""
    coordinator.drop(prompts(CROWD, "first"), "first.jsonl")
    wait_until(lambda: server.in_flight() == CROWD)
    filler = fill(root)
    os.truncate(filler, filler.stat().st_size - kilobytes * 1024)
    return filler


@pytest.fixture
def crowd(mount: Mount, tmp_path: Path, cluster: Cluster) -> tuple[CoordinatorProcess, Simulated]:
    mount(tmp_path / "root", "size=8m")
    server = cluster.simulate("--parallel", CROWD, "--seconds", 3.0, "--answer-tokens", 1000)
    config = cluster.configure(dict.fromkeys(server.names, CROWD))
    return cluster.coordinate(config, tweaks=QUICK), server


@pytest.mark.case("D4")
def test_answers_are_published_in_the_place_of_the_ballast_when_nothing_else_needs_it(
    crowd: tuple[CoordinatorProcess, Simulated],
) -> None:
    """The ledger fits beside it, the answers do not."""
    coordinator, server = crowd
    filler = let_them_answer_in(200, coordinator.root, coordinator, server)

    coordinator.published("first")

    assert coordinator.text().index(wording("cannot-be-published")) < coordinator.text().index(
        wording("the-ballast-makes-room")
    )
    filler.unlink()
    assert_whole(coordinator, server, {"first": prompts(CROWD, "first")})


@pytest.mark.case("D4")
def test_answers_that_do_not_fit_wait_for_room_and_that_is_said_once(
    crowd: tuple[CoordinatorProcess, Simulated],
) -> None:
    """The ledger takes the ballast's place, and then the answers do not fit."""
    coordinator, server = crowd
    filler = let_them_answer_in(130, coordinator.root, coordinator, server)

    wait_until(lambda: "cannot be published: No space left on device" in troubles(coordinator), what=coordinator.text)
    wait_until(lambda: not (coordinator.root / BALLAST).exists())
    filler.unlink()
    assert_whole(coordinator, server, {"first": prompts(CROWD, "first")})
    assert coordinator.text().count(wording("cannot-be-published")) == 1
    wait_until(lambda: troubles(coordinator) == "")
