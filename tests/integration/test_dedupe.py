"""Equal requests of one job through a coordinator: each question is asked once, also by the next coordinator."""

from __future__ import annotations

import json

import pytest

from tests.support import Cluster, CoordinatorProcess, Published, prompt_key, run_obcd, wait_until

pytestmark = pytest.mark.integration


#: Each of them six times, in another order.
TEXTS = [f"prompt {number * 7 % 20}" for number in range(120)]


def drop(coordinator: CoordinatorProcess) -> None:
    lines = [json.dumps({"id": f"r{number}", "prompt": text}) + "\n" for number, text in enumerate(TEXTS)]
    coordinator.drop("".join(lines).encode())


def assert_same(done: Published, environment: dict[str, str]) -> None:
    done.assert_complete(len(TEXTS))
    assert [item["id"] for item in done.responses] == [f"r{number}" for number in range(len(TEXTS))]
    said: dict[str, str] = {}
    for item in done.responses:
        assert said.setdefault(item["prompt"], item["response"]) == item["response"]
        first = TEXTS.index(item["prompt"]) + 1
        assert item.get("same_as", item["line"]) == first
    assert len(set(said.values())) == 20
    assert done.manifest["counts"]["same"] == 100
    verified = run_obcd(environment, "verify", str(done.folder))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_each_question_is_asked_once_whatever_endpoint_is_free(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.02, "--load-seconds", 0.0, count=2)
    config = cluster.configure(dict.fromkeys(server.names, 4), dedupe=True)
    coordinator = cluster.coordinate(config)

    drop(coordinator)
    done = coordinator.published()

    assert set(server.asked()) == {prompt_key(text) for text in TEXTS}
    assert_same(done, cluster.environment)
    assert "120 answered, 0 failed" in coordinator.text()


def test_killed_coordinator_s_successor_loses_and_doubles_nothing(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.1, "--load-seconds", 0.0)
    config = cluster.configure({server.names[0]: 2}, dedupe=True)
    first = cluster.coordinate(config)
    drop(first)
    wait_until(lambda: any(job["done"] >= 12 for job in first.status().get("jobs", [])), what="some are answered")
    (shown,) = first.status()["jobs"]
    assert (shown["done"] % 6, shown["total"]) == (0, 120)
    first.kill()

    done = cluster.coordinate(config).published()

    assert_same(done, cluster.environment)
    assert max(server.asked().values()) <= 2
    assert sum(server.asked().values()) <= 40 - shown["done"] // 6  # what was recorded is not asked again
