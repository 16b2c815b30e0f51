"""Stops in order at moments that matter: while a job is published, and by supervisord."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.acceptance.test_commands import Up
from tests.support import (
    BUSY_CLERK,
    Cluster,
    CoordinatorProcess,
    Published,
    Running,
    all_gone,
    family,
    prompt_lines,
    prompts,
    wait_until,
)

pytestmark = pytest.mark.integration


def drop_and_meet_its_publication(coordinator: CoordinatorProcess) -> str:
    """Return the name of a job whose outputs are being written; a busy machine may look too late a few times."""
    for name in ("first", "second", "third", "fourth"):
        shown = coordinator.outbox / name
        coordinator.drop(b"no json\n" * 20_000, f"{name}.jsonl")
        wait_until(partial(is_being_published, coordinator, shown), what=coordinator.text)
        if not shown.exists():
            return name
    raise AssertionError("each was published before anybody looked")


def is_being_published(coordinator: CoordinatorProcess, shown: Path) -> bool:
    return shown.exists() or any(coordinator.jobs.glob("*/*responses.jsonl*"))


@pytest.mark.case("B13")
def test_term_while_a_job_is_published_ends_in_order_and_the_next_start_publishes_it(cluster: Cluster) -> None:
    config = cluster.configure(["127.0.0.1:9"])
    coordinator = cluster.coordinate(config, tweaks=BUSY_CLERK)
    name = drop_and_meet_its_publication(coordinator)
    children = family(coordinator.pid)

    coordinator.send(signal.SIGTERM)

    assert coordinator.wait() == 0
    wait_until(lambda: all_gone(children))
    assert "Traceback" not in coordinator.text()
    coordinator = cluster.coordinate(config, tweaks=BUSY_CLERK)
    coordinator.published(name).assert_complete(20_000)
    assert os.listdir(coordinator.jobs) == []


@pytest.mark.case("B16")
def test_restart_by_supervisord_ends_all_workers_and_leaves_one_coordinator(
    environment: dict[str, str], runtime: Path, tmp_path: Path, started: list[Running]
) -> None:
    up = Up(environment, tmp_path / "root")
    started.append(up)
    (up.root / "inbox" / "notes.jsonl").write_bytes(prompt_lines(prompts(10)))
    wait_until(lambda: list((up.root / "jobs").glob("*/begun")), what=up.logs)
    old = up.coordinator_pid()
    children = family(old)
    assert len(children) >= 3  # fork server, clerk, workers
    (configuration,) = runtime.glob("obcd-*/supervisord.conf")

    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(configuration), "restart", "coordinator"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert re.findall(r"coordinator: (\w+)", done.stdout) == ["stopped", "started"]
    wait_until(lambda: all_gone([old, *children]), what="all of the old coordinator is gone")
    wait_until(lambda: up.coordinator_pid() not in (0, old))
    words = [child.cmdline() for child in psutil.Process(up.pid).children()]
    assert sum("coordinator" in line for line in words) == 1
    wait_until((up.root / "outbox" / "notes" / "manifest.json").exists, what=up.logs)
    Published(up.root / "outbox" / "notes").assert_complete(10)
