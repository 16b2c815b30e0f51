"""Answers that are remembered across jobs, through a coordinator: nobody is asked twice, whatever is with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.wording import wording
from tests.support import NEVER_HEDGED, Cluster, prompt_key, run_obcd, wait_until

pytestmark = pytest.mark.integration


LINES: list[dict[str, Any]] = [
    {"id": "cold", "prompt": "Who?"},
    {"id": "several", "prompt": "Who, often?", "n": 2},
    {"id": "vector", "embed": "Which numbers?", "model": "nomic-embed-text"},
    {"id": "warm", "prompt": "Who, warmly?", "options": {"temperature": 0.7}},
]
PLACED = ("id", "line", "finished_at", "endpoint", "cached")


def encoded(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def told(line: dict[str, Any]) -> dict[str, Any]:
    """Return what two lines of the same answer have in common."""
    kept = {key: value for key, value in line.items() if key not in PLACED and not key.endswith("seconds")}
    kept["responses"] = [told(answer) for answer in line.get("responses", ())]
    return kept


def test_second_job_is_answered_from_the_first_and_says_so(cluster: Cluster) -> None:
    # given
    models = ("--models", "llama3.2,nomic-embed-text")
    server = cluster.simulate("--parallel", 2, "--seconds", 0.01, "--load-seconds", 0.0, *models, count=2)
    requests = {"options": {"temperature": 0.0}}
    config = cluster.configure(dict.fromkeys(server.names, 2), cache=True, requests=requests)
    coordinator = cluster.coordinate(config, tweaks=NEVER_HEDGED)
    coordinator.drop(encoded(LINES), "first.jsonl")
    first = coordinator.published("first")
    first.assert_complete(4)
    assert (len(server.asked()), first.manifest["counts"]["cached"]) == (4, 0)
    server.reset()

    # when the same is asked in another order, with one more
    coordinator.drop(encoded([*reversed(LINES), {"id": "new", "prompt": "Who else?"}]), "second.jsonl")
    second = coordinator.published("second")

    # then only what is new, or drawn anew each time, was asked
    second.assert_complete(5)
    assert set(server.asked()) == {prompt_key("Who, warmly?"), prompt_key("Who else?")}
    found, before = ({item["id"]: item for item in done.responses} for done in (second, first))
    assert {key for key, item in found.items() if item.get("cached")} == {"cold", "several", "vector"}
    for name in ("cold", "several", "vector"):
        assert told(found[name]) == told(before[name])
        assert {value for key, value in found[name].items() if key.endswith("seconds")} == {0.0}
    assert [item["line"] for item in second.responses] == [1, 2, 3, 4, 5]
    assert second.manifest["counts"]["cached"] == 3
    for done in (first, second):
        verified = run_obcd(cluster.environment, "verify", str(done.folder))
        assert verified.returncode == 0, verified.stdout + verified.stderr

    # when it is looked at and forgotten
    spool = ("--config", config, "--root", coordinator.root)
    shown = json.loads(run_obcd(cluster.environment, "cache", "stats", *spool, "--json").stdout)
    assert (shown["answers"], shown["models"]) == (5, {"llama3.2": 4, "nomic-embed-text": 1})
    assert "5 answers in " in coordinator.obcd("cache", "stats").stdout
    cleared = run_obcd(cluster.environment, "cache", "clear", *spool, "--json")
    assert json.loads(cleared.stdout)["cleared"] == 5
    server.reset()
    coordinator.drop(encoded(LINES), "third.jsonl")

    # then all is asked again
    assert coordinator.published("third").manifest["counts"]["cached"] == 0
    assert len(server.asked()) == 4


def test_damaged_cache_is_told_once_and_everything_is_answered(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.01, "--load-seconds", 0.0, count=2)
    requests = {"options": {"seed": 7}}
    config = cluster.configure(dict.fromkeys(server.names, 2), cache=True, requests=requests)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cache.sqlite").write_bytes(b"This is no database." * 500)
    coordinator = cluster.coordinate(config)

    coordinator.drop([f"prompt {number}" for number in range(20)])

    coordinator.published().assert_complete(20)
    wait_until(lambda: "the cache of answers is not used" in coordinator.text())
    assert coordinator.text().count(wording("the-cache-of-answers-is-not")) == 1
    cleared = run_obcd(cluster.environment, "cache", "clear", "--root", coordinator.root)
    assert (cleared.returncode, wording("was-damaged-and-is-removed") in cleared.stderr) == (0, True)


def test_cache_without_known_weights_is_refused(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "obcd.toml"
    path.write_text('[profiles.visits]\ncache = true\n[requests]\ndigest = "any"\n')

    refused = run_obcd(environment, "check", "--config", path)

    assert refused.returncode == 4
    assert wording("wrong-at-profiles-visits-cache-it") in refused.stderr
