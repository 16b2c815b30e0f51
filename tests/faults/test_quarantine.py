"""A job that ends the coordinator again and again: kept apart with all that it has, while the others are answered."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from obcd.spool.job import crash_count
from tests.golden.wording import wording
from tests.support import (
    Cluster,
    CoordinatorProcess,
    Published,
    Running,
    Simulated,
    prompt_lines,
    prompts,
    run_obcd,
    wait_until,
)

pytestmark = pytest.mark.integration


#: A coordinator that does not survive a job of this name: {how it ends: what is done when the job is there}.
KILLER = "killer.jsonl"
ENDS = {"killed": "os.kill(os.getpid(), signal.SIGKILL)", "error": "raise RuntimeError('of this job')"}
SCRIPT = """
import os, signal, sys
from obcd.coordinator.jobs import job_lifecycle
from obcd.__main__ import main
begin = job_lifecycle.RunningJob
def begin_or_end(header, *rest, **named):
    if header.name == {name!r}:
        {end}
    return begin(header, *rest, **named)
job_lifecycle.RunningJob = begin_or_end
sys.exit(main())
"""
#: Seconds after which a job without a result is acquitted.
QUIET = "obcd.coordinator.jobs.quarantine:QUIET_SECONDS"


class Mortal(CoordinatorProcess):
    """A coordinator that the job `killer.jsonl` ends."""

    def __init__(self, environment: dict[str, str], root: Path, config: Path, end: str) -> None:
        self.environment = environment
        self.root, self.config = root, config
        self.inbox, self.outbox, self.jobs = root / "inbox", root / "outbox", root / "jobs"
        script = SCRIPT.format(name=KILLER, end=ENDS[end])
        arguments = [sys.executable, "-c", script, "coordinator", "--config", str(config), "--root", str(root)]
        Running.__init__(self, arguments, environment, root.with_suffix(".log"))


def states(coordinator: CoordinatorProcess) -> dict[str, str]:
    return {item["name"]: item["state"] for item in coordinator.status().get("jobs", [])}


def begun(coordinator: CoordinatorProcess) -> int:
    """Return how often the one job was begun in vain, the present time included."""
    return sum(crash_count.deaths(folder) for folder in coordinator.jobs.iterdir())


def is_begun(coordinator: CoordinatorProcess) -> bool:
    return begun(coordinator) == 1


def has_more(server: Simulated, asked: int) -> bool:
    return len(server.account()) > asked


@pytest.mark.case("B11")
def test_job_that_ends_the_coordinator_five_times_is_kept_apart_and_the_others_go_on(
    cluster: Cluster, started: list[Running]
) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.2)
    config = cluster.configure({server.names[0]: 4})
    first = cluster.coordinate(config)
    first.kill()
    files = {KILLER: prompts(3, "deadly"), **{f"good{number}.jsonl": prompts(4, f"g{number}") for number in range(3)}}
    for name, texts in files.items():
        first.drop(texts, name)
    starts = 0

    def is_survived() -> bool:
        """Start one coordinator after the other, as systemd does."""
        nonlocal starts
        if starts == 0 or started[-1].process.poll() is not None:
            started.append(Mortal(cluster.environment, first.root, config, "killed"))
            starts += 1
            assert starts < 20, started[-1].text()
        goods = [(first.outbox / f"good{number}" / "manifest.json").exists() for number in range(3)]
        last = started[-1]
        return all(goods) and isinstance(last, Mortal) and states(last) == {KILLER: "QUARANTINED"}

    wait_until(is_survived, what=first.text)
    survivor = started[-1]
    assert isinstance(survivor, Mortal)

    for number in range(3):
        Published(first.outbox / f"good{number}").assert_complete(4)
    (folder,) = first.jobs.iterdir()
    assert (folder / "input.jsonl").read_bytes() == prompt_lines(files[KILLER])
    assert wording("obcd-resume", folder.name) in survivor.status()["troubles"][0]
    assert (
        f"jobs/{folder.name}" in json.loads((first.outbox / "killer.partial" / "progress.json").read_bytes())["trouble"]
    )
    shown = run_obcd(cluster.environment, "status", "--root", first.root).stdout
    assert "quarantined" in shown
    assert "killer.jsonl is QUARANTINED" in shown
    survivor.drop(files[KILLER], KILLER)  # as a mirroring rsync does every night
    wait_until((first.outbox / "killer.waiting" / "why.txt").exists, what=survivor.text)
    survivor.send(signal.SIGTERM)
    assert survivor.wait() == 0
    (first.inbox / KILLER).unlink()

    mended = cluster.coordinate(config)  # a newer version, say: the quarantine holds until somebody ends it
    assert states(mended) == {KILLER: "QUARANTINED"}
    resumed = first.obcd("resume", folder.name)
    assert (resumed.returncode, resumed.stderr) == (0, "killer.jsonl continues\n")
    mended.published("killer").assert_complete(3)
    assert os.listdir(mended.jobs) == []
    wait_until(lambda: not list(mended.outbox.glob("*.partial")))


@pytest.mark.case("B11")
def test_coordinator_that_ends_by_an_error_counts_as_one_that_was_killed(
    cluster: Cluster, started: list[Running]
) -> None:
    config = cluster.configure(["127.0.0.1:9"])
    first = cluster.coordinate(config)
    first.kill()
    first.drop(prompts(1), KILLER)
    mortal = Mortal(cluster.environment, first.root, config, "error")
    started.append(mortal)

    assert mortal.wait() == 1

    assert begun(mortal) == 1


@pytest.mark.case("B11")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_coordinator_that_is_stopped_in_order_blames_no_job(cluster: Cluster, number: signal.Signals) -> None:
    config = cluster.configure(["127.0.0.1:9"])
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(2))
    wait_until(partial(is_begun, coordinator))

    coordinator.send(number)

    coordinator.wait()
    assert begun(coordinator) == 0


@pytest.mark.case("B11")
def test_coordinator_that_lived_with_a_job_for_a_while_does_not_blame_it(cluster: Cluster) -> None:
    config = cluster.configure(["127.0.0.1:9"])
    coordinator = cluster.coordinate(
        config, tweaks={QUIET: 0.5, "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.2}
    )
    coordinator.drop(prompts(2))
    wait_until(lambda: begun(coordinator) == 1)

    wait_until(lambda: begun(coordinator) == 0)
    coordinator.kill()

    assert begun(coordinator) == 0
    coordinator = cluster.coordinate(config)
    wait_until(lambda: begun(coordinator) == 1)
    coordinator.kill()
    assert begun(coordinator) == 1


@pytest.mark.case("B11")
def test_file_that_is_answered_in_the_foreground_is_never_kept_apart(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 30)
    config = cluster.configure(server.names)
    (tmp_path / "notes.jsonl").write_bytes(prompt_lines(prompts(2)))
    arguments = ("batch", "--config", config, "--prompts", tmp_path / "notes.jsonl", "--output-dir", tmp_path / "out")
    for _ in range(2):
        asked = len(server.account())
        run = cluster.begin(*arguments)
        wait_until(partial(has_more, server, asked), what=run.text)
        run.end()

    (folder,) = (tmp_path / "out" / ".obcd" / "jobs").iterdir()
    assert not (folder / crash_count.BEGUN).exists()
