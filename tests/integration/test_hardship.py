"""What people and machines do to a running coordinator: each fault stays where it happened."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from tests.golden.wording import wording
from tests.support import Cluster, run_obcd, wait_until, write_config

pytestmark = pytest.mark.integration


def prompts(count: int) -> bytes:
    return b"".join(b'{"prompt": "question %d"}\n' % number for number in range(count))


def test_job_folder_that_is_taken_away_ends_only_its_own_job(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.5, "--parallel", 2)
    tweaks = {"obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3}
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=tweaks)
    coordinator.drop(prompts(40), "doomed.jsonl")
    wait_until(lambda: any(job["name"] == "doomed.jsonl" and job["done"] for job in coordinator.status()["jobs"]))
    (doomed,) = (coordinator.root / "jobs").iterdir()

    shutil.rmtree(doomed)
    coordinator.drop(prompts(3), "other.jsonl")

    coordinator.published("other").assert_complete(3)
    assert wording("was-taken-away") in coordinator.text()
    assert coordinator.status()["troubles"] == []


def test_stopped_clerk_is_replaced(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.02)
    tweaks = {"obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3}
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=tweaks)
    wait_until(lambda: coordinator.status()["state"] == "READY")
    clerk = coordinator.status()["processes"]["clerk intake"]

    os.kill(clerk, signal.SIGSTOP)
    coordinator.drop(prompts(2))

    coordinator.published().assert_complete(2)
    assert not psutil.pid_exists(clerk)


def test_two_batches_on_one_folder_do_not_meet(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 1, "--parallel", 2)
    config = write_config(tmp_path / "config.toml", server.names)
    file = tmp_path / "p.jsonl"
    file.write_bytes(prompts(200))  # longer than the second command takes to start, whatever else runs
    line = ("batch", "--config", config, "--prompts", file, "--output-dir", tmp_path / "out")
    first = cluster.begin(*line)
    wait_until(lambda: any((tmp_path / "out" / ".obcd" / "jobs").glob("*/job.json")))

    second = run_obcd(cluster.environment, *line, "--model", "llama3.2")

    assert second.returncode == 7
    assert "runs on" in second.stderr
    assert first.process.poll() is None
