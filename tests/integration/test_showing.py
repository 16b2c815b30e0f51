"""A job that is looked into while it runs: its answers come as they are recorded, and nothing stays behind."""

from __future__ import annotations

import json
import os
import signal

import pytest

from obcd.results.running import watching
from tests.support import Cluster, CoordinatorProcess, prompt_lines, prompts, run_here, wait_until

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
    shown = run_here(coordinator.environment, "status", "notes", "--json", "--root", coordinator.root).stdout
    assert json.loads(shown)["done"] == 40
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


def test_few_lines_are_tried_and_leave_nothing_behind(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.05, "--models", "llama3.2,qwen3")
    coordinator = cluster.coordinate(cluster.configure(server.names, profiles={"other": {"model": "qwen3"}}))
    file = cluster.folder / "notes.jsonl"
    file.write_bytes(prompt_lines(prompts(100)))
    options = ("--config", coordinator.config, "--root", coordinator.root)
    wait_until(lambda: [item["state"] for item in coordinator.status()["endpoints"]] == ["UP"])

    done = run_here(coordinator.environment, "try", file, "-n", 3, "--json", *options)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [item["fits"] for item in found["tried"]] == [None] * 3
    assert len({item["line"] for item in found["tried"]}) == 3
    assert (found["lines"], found["forecast"]["requests"], found["loads"]) == (100, 100, "llama3.2")
    assert found["forecast"]["seconds"] > 1
    wait_until(lambda: os.listdir(coordinator.outbox) == [])
    assert len(server.asked()) == 3

    # a job of another model runs, which a load would delay
    coordinator.drop(prompts(4000), name="long.jsonl", profile="other")
    wait_until(lambda: has_begun(coordinator))
    wait_until(lambda: {item["loaded"] for item in coordinator.status()["endpoints"]} == {"qwen3"})
    assert run_here(coordinator.environment, "try", file, *options).returncode == 2
    done = run_here(coordinator.environment, "try", file, "-n", 2, "--load", "--keep", *options)
    assert done.returncode == 0, done.stderr
    assert "Request to /api/chat:" in done.stdout
    kept = json.loads((coordinator.outbox / "notes.try" / "manifest.json").read_bytes())
    assert (kept["counts"]["responses"], kept["trial"]) == (2, "keep")
    assert has_begun(coordinator)  # it did not wait for the long job


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")
