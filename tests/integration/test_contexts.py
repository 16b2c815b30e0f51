"""`num_ctx = "auto"` from drop to answer: two contexts, at most one more load of each endpoint, nothing cut."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.golden.wording import wording
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    Simulated,
    prompt_key,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration


AUTO = {"num_ctx": "auto", "num_ctx_max": 16384, "num_predict": 100}


def line(prompt: str, **wishes: Any) -> bytes:
    return json.dumps({"prompt": prompt, **wishes}).encode() + b"\n"


def short(number: int) -> bytes:
    return line(f"short question number {number}")


def loads(server: Simulated) -> list[int]:
    """Return how often each endpoint was told to load."""
    return [requests.get(f"{url}/simulated/requests", timeout=10).json()["preloads"] for url in server.urls]


def tokens(prompt: str) -> int:
    """Return what a simulated server counts."""
    return (len(prompt) + 3) // 4 + 4


def test_mixed_job_runs_in_two_passes_and_nothing_is_cut(cluster: Cluster) -> None:
    # given outliers at the begin, in the middle and at the end
    server = cluster.simulate("--parallel", 4, "--seconds", 0.02, count=2)
    config = cluster.configure(dict.fromkeys(server.names, 4), requests=AUTO)
    coordinator = cluster.coordinate(config, tweaks=NEVER_HEDGED)
    long = [f"{number} " + "many words " * 1500 for number in range(3)]
    content = (
        line(long[0]) + b"".join(map(short, range(200))) + line(long[1]) + b"".join(map(short, range(200, 400)))
        + line(long[2])
    )  # fmt: skip

    # when
    coordinator.drop(content)
    done = coordinator.published()

    # then
    done.assert_complete(403)
    assert done.manifest["context"] == {"num_ctx": 2048, "larger": 8192, "requests": 400, "outliers": 3}
    assert done.manifest["counts"]["cut_short"] == 0
    assert all(count in (1, 2) for count in loads(server))
    assert 2 in loads(server)
    for response in done.responses:
        assert response["prompt_tokens"] == tokens(response["prompt"])
        assert response["attempts"] == 1
    assert set(server.asked().values()) == {1}
    starts = {record["prompt"]: record["started"] for record in server.account()}
    common = max(starts[prompt_key(f"short question number {number}")] for number in range(400))
    assert all(starts[prompt_key(prompt)] > common - 0.5 for prompt in long)
    assert wording("403-requests-num-ctx-2048-for") in coordinator.text()


def test_prompt_that_fits_no_context_fails_at_acceptance_with_its_tokens(
    quick_server: Simulated, cluster: Cluster
) -> None:
    config = cluster.configure(quick_server.names, requests=AUTO)
    coordinator = cluster.coordinate(config)

    coordinator.drop(short(1) + line("endless words " * 20_000) + short(2))
    done = coordinator.published()

    assert len(done.responses) == 2
    (error,) = done.errors
    assert (error["class"], error["line"], error["attempts"]) == ("too_long", 2, 0)
    told = re.search(r"its prompt has about (\d+) tokens, and the longest context is 16384", error["message"])
    assert told is not None
    assert int(told[1]) == pytest.approx(20_000 * 14 / 3, rel=0.01)
    assert (done.folder / "retry.jsonl").read_bytes() == line("endless words " * 20_000)


def test_wrong_estimates_are_asked_again_and_what_fits_nowhere_fails_with_its_true_tokens(cluster: Cluster) -> None:
    # given prompts of more tokens than their text shows: for the larger context, for an answer in it, for none
    server = cluster.simulate("--parallel", 4, "--seconds", 0.01)
    config = cluster.configure({server.names[0]: 4}, requests={**AUTO, "num_predict": 600})
    coordinator = cluster.coordinate(config)
    fits = "[[simulate:tokens=3000]] one"
    is_cut = "[[simulate:tokens=2030]] two"  # it fits into 2048, its answer does not
    fits_nowhere = "[[simulate:tokens=5000]] three"
    own = "[[simulate:tokens=3000]] four"

    # when
    coordinator.drop(
        line(fits) + line(is_cut) + line(fits_nowhere) + line(own, options={"num_ctx": 2048})
        + b"".join(map(short, range(100)))
    )  # fmt: skip
    done = coordinator.published()

    # then
    assert done.manifest["context"] == {"num_ctx": 2048, "larger": 4096, "requests": 103, "outliers": 0}
    answered = {response["prompt"]: response for response in done.responses}
    assert len(answered) == 102
    for prompt in (fits, is_cut):
        assert answered[prompt]["prompt_tokens"] > 2030
        assert (answered[prompt]["done_reason"], answered[prompt]["attempts"]) == ("stop", 1)
    assert server.asked()[prompt_key(fits)] == server.asked()[prompt_key(is_cut)] == 2
    failed = {error["line"]: error for error in done.errors}
    assert {number: error["class"] for number, error in failed.items()} == {3: "too_long", 4: "too_long"}
    assert wording("tokens-where-2048-fit", 5000 + tokens(fits_nowhere)) in failed[3]["message"]
    assert wording("tokens-where-2048-fit", 3000 + tokens(own)) in failed[4]["message"]
    assert loads(server) == [2]
    assert done.manifest["counts"]["cut_short"] == 0


def test_restart_keeps_the_contexts_and_finds_a_wrong_estimate_again(cluster: Cluster) -> None:
    # given a coordinator that is killed while the common requests are at it
    server = cluster.simulate("--parallel", 2, "--seconds", 0.05)
    config = cluster.configure({server.names[0]: 2}, requests=AUTO)
    first = cluster.coordinate(config)
    wrong = "[[simulate:tokens=3000]]"
    first.drop(line("long " * 1200) + line(wrong) + b"".join(map(short, range(150))))
    (job,) = wait_until(lambda: first.status()["jobs"], what="it is shown")
    assert job["context"] == "num_ctx 2048 for 151 requests, 4096 for 1"
    wait_until(lambda: len(server.account()) > 20, what="it runs")
    first.send(signal.SIGKILL)
    first.wait()

    # when another one begins, whose configuration is another
    write_config(config, {server.names[0]: 2})
    second = cluster.coordinate(config, first.root)
    done = second.published()

    # then
    done.assert_complete(152)
    assert (done.manifest["context"]["num_ctx"], done.manifest["context"]["larger"]) == (2048, 4096)
    assert loads(server)[0] <= 4


def test_batch_says_which_contexts_it_chose(
    tmp_path: Path, quick_server: Simulated, environment: dict[str, str]
) -> None:
    config = write_config(tmp_path / "obcd.toml", quick_server.names, requests=AUTO)
    (tmp_path / "p.jsonl").write_bytes(short(1) + line("long " * 1200))

    done = run_obcd(
        environment, "batch", "--config", config, "--prompts", tmp_path / "p.jsonl", "--output-dir", tmp_path / "out"
    )

    assert done.returncode == 0, done.stderr
    assert "num_ctx 2048 for 1 request, 4096 for 1" in done.stderr


def test_batch_that_was_interrupted_goes_on_with_the_contexts_it_chose(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.1)
    config = cluster.configure(server.names, requests=AUTO)
    (tmp_path / "p.jsonl").write_bytes(b"".join(map(short, range(60))) + line("long " * 1200))
    command = ("batch", "--config", config, "--prompts", tmp_path / "p.jsonl", "--output-dir", tmp_path / "out")
    first = cluster.begin(*command)
    wait_until(lambda: len(server.account()) > 10, what="it runs")
    first.kill()

    again = run_obcd(cluster.environment, *command)
    assert again.returncode == 0, again.stderr
    assert wording("going-on-with-p-jsonl-where") in again.stderr
    assert wording("the-configuration-changed") not in again.stderr

    server.reset()
    assert run_obcd(cluster.environment, *command).returncode == 0
    assert server.account() == []  # the very same was answered before
