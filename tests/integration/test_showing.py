"""A job that is looked into while it runs: its answers come as they are recorded, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal

import pytest

from obcd.results.running import watching
from tests.support import Cluster, CoordinatorProcess, prompts, run_here, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def coordinator(cluster: Cluster) -> CoordinatorProcess:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.05)
    return cluster.coordinate(cluster.configure(server.names))


def has_begun(coordinator: CoordinatorProcess) -> bool:
    return any(job["done"] for job in coordinator.status()["jobs"])


def run(coordinator: CoordinatorProcess, *words: object) -> tuple[int, list[int], str]:
    done = run_here(coordinator.environment, *words, "--config", coordinator.config, "--root", coordinator.root)
    return done.returncode, [json.loads(line)["line"] for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("reader", ["daemon", "submitter"])
def test_followed_job_is_printed_line_by_line_to_its_end(
    coordinator: CoordinatorProcess, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reader == "submitter":
        monkeypatch.setattr(watching, "LedgerWatch", _refuse)
    coordinator.drop(prompts(40))

    code, lines, said = run(coordinator, "print", "--json", "--follow", "notes")

    assert (code, sorted(lines)) == (0, list(range(1, 41))), said
    coordinator.published().assert_complete(40)
    assert run(coordinator, "print", "--json", "notes")[:2] == (0, list(range(1, 41)))
    wait_until(lambda: os.listdir(coordinator.inbox) == [".obcd"])
    wait_until(lambda: os.listdir(coordinator.outbox) == ["notes"])


def test_preview_comes_back_after_a_kill_and_goes_with_the_file_that_asked_for_it(
    coordinator: CoordinatorProcess, cluster: Cluster
) -> None:
    coordinator.drop(prompts(400))
    preview, asked = coordinator.outbox / "notes.partial" / "responses.jsonl", coordinator.inbox / "notes.jsonl.show"
    wait_until(lambda: has_begun(coordinator))
    asked.touch()
    wait_until(lambda: preview.exists() and preview.stat().st_size)
    coordinator.send(signal.SIGKILL)
    coordinator.wait()

    again = cluster.coordinate(coordinator.config)

    wait_until(lambda: has_begun(again))
    wait_until(lambda: preview.exists() and preview.read_bytes().count(b"\n") >= again.status()["jobs"][0]["done"])
    lines = [json.loads(line)["line"] for line in preview.read_bytes().splitlines()[:-1]]
    assert len(lines) == len(set(lines))
    asked.unlink()
    wait_until(lambda: not preview.exists())
    (again.inbox / "notes.jsonl.cancel").touch()
    again.published().assert_complete(400)
    wait_until(lambda: os.listdir(again.outbox) == ["notes"])


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")
