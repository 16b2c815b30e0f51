"""Whose fault an error is, under the real coordinator: requests that servers refuse, and requests that end servers.

One coordinator over two simulated servers serves all tests but those of whole servers that end.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_servers import QUICK
from tests.golden.wording import wording
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Simulated,
    make_environment,
    prompt_key,
    prompts,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration

REFUSED = "[[simulate:status=500]] refused"


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[CoordinatorProcess, Simulated]]:
    folder = Path(tempfile.mkdtemp(prefix="obcd-whose-"))
    environment = make_environment(folder)
    options = ("--parallel", 4, "--seconds", 0.01, "--models", "llama3.2,nomic-embed-text")
    server = Simulated(environment, folder / "server.log", *options, count=2)
    config = write_config(folder / "obcd.toml", dict.fromkeys(server.names, 4))
    coordinator = CoordinatorProcess(environment, folder / "root", config, tweaks={**QUICK, **NEVER_HEDGED})
    yield coordinator, server
    coordinator.end()
    server.end()
    shutil.rmtree(folder, ignore_errors=True)


def states(coordinator: CoordinatorProcess) -> set[str]:
    return {item["state"] for item in coordinator.status()["endpoints"]}


def is_listening(name: str) -> bool:
    host, _, port = name.rpartition(":")
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port))).close()
        return True
    return False


def job_of(coordinator: CoordinatorProcess, name: str) -> dict[str, Any]:
    return next((item for item in coordinator.status()["jobs"] if item["name"] == name), {})


def test_r24_line_that_servers_refuse_fails_after_two_attempts_with_their_text(
    site: tuple[CoordinatorProcess, Simulated],
) -> None:
    coordinator, server = site

    coordinator.drop([*prompts(3), f"{REFUSED} r24", *prompts(3, "more")], "r24.jsonl")
    done = coordinator.published("r24")

    done.assert_complete(7)
    (error,) = done.errors
    assert (error["line"], error["class"], error["attempts"]) == (4, "server_error", 2)
    assert error["reply"] == "simulated status 500"
    assert server.asked()[prompt_key(f"{REFUSED} r24")] == 2
    assert states(coordinator) == {"UP"}


def test_r24b_job_of_which_much_is_refused_is_paused_and_goes_on_when_it_is_resumed(
    site: tuple[CoordinatorProcess, Simulated],
) -> None:
    coordinator, server = site
    lines = [f"{REFUSED} {number}" if number % 3 == 0 else f"fine {number}" for number in range(150)]

    # when a third of a job is refused
    coordinator.drop(lines, "r24b.jsonl")
    wait_until(lambda: job_of(coordinator, "r24b.jsonl").get("state") == "PAUSED")

    # then it is paused, with the reason everywhere, and others are served
    coordinator.drop(prompts(20, "other"), "other.jsonl")
    assert coordinator.published("other").errors == []
    job = wait_until(lambda: job_of(coordinator, "r24b.jsonl"))
    why = coordinator.outbox / "r24b.partial" / "why.txt"
    wait_until(why.exists)
    reason = wording("requests-failed-with-an-error-of")
    assert all(reason in text for text in (job["trouble"], why.read_text("utf-8"), coordinator.text()))
    assert 20 <= job["failed"] <= 28
    assert states(coordinator) == {"UP"}

    # when it is resumed, then it goes on to its end: it takes twice as many to pause it again
    assert coordinator.obcd("resume", "r24b.jsonl").returncode == 0
    done = coordinator.published("r24b")
    done.assert_complete(150)
    assert [item["line"] for item in done.errors] == list(range(1, 151, 3))
    assert all(server.asked()[prompt_key(f"{REFUSED} {number}")] == 2 for number in range(0, 150, 3))
    assert states(coordinator) == {"UP"}
    assert "simulated status 500" not in coordinator.text()


def test_r22_text_that_cannot_be_embedded_fails_alone(site: tuple[CoordinatorProcess, Simulated]) -> None:
    coordinator, server = site
    texts = ["[[simulate:eof]] 5" if number == 5 else f"text {number}" for number in range(12)]
    lines = [json.dumps({"model": "nomic-embed-text", "embed": text}) for text in texts]

    coordinator.drop(("\n".join(lines) + "\n").encode(), "r22.jsonl")
    done = coordinator.published("r22")

    done.assert_complete(12)
    (error,) = done.errors
    assert (error["line"], error["class"], error["attempts"]) == (6, "server_error", 2)
    assert max(count for key, count in server.asked().items() if key != prompt_key("[[simulate:eof]] 5")) >= 1
    assert states(coordinator) == {"UP"}


def test_r25_repetition_keeps_its_text_and_harms_no_endpoint(site: tuple[CoordinatorProcess, Simulated]) -> None:
    coordinator, server = site
    options = {
        "[[simulate:repeat]] greedy": {"temperature": 0},
        "[[simulate:repeat]] drawn": {"temperature": 0.8},
        "[[simulate:repeat*1]] once": {},
    }
    lines = [json.dumps({"prompt": prompt, "options": each}) + "\n" for prompt, each in options.items()]

    coordinator.drop("".join(lines).encode(), "r25.jsonl")
    done = coordinator.published("r25")

    assert [(item["line"], item["class"]) for item in done.errors] == [(1, "repetition"), (2, "repetition")]
    assert all(item["response"].endswith(" no" * 40) for item in done.errors)
    asked = server.asked()
    assert [asked[prompt_key(prompt)] for prompt in options] == [1, 2, 2]
    assert states(coordinator) == {"UP"}


def test_r26_prompt_that_ends_its_whole_server_fails_alone_whatever_attempts_is(cluster: Cluster) -> None:
    # given two servers that end at one prompt and come back
    server = cluster.simulate("--parallel", 4, "--seconds", 0.05, count=2)
    config = cluster.configure(dict.fromkeys(server.names, 4), requests={"attempts": 1})
    coordinator = cluster.coordinate(config, tweaks={**QUICK, **NEVER_HEDGED})
    poison = "[[simulate:kill-server=0.3]] poison"

    coordinator.drop([*prompts(20, "first"), poison, *prompts(39, "last")])
    done = coordinator.published()

    done.assert_complete(60)
    assert [(item["line"], item["class"], item["attempts"]) for item in done.errors] == [(21, "poison", 3)]
    wait_until(lambda: all(map(is_listening, server.names)))  # the last one to end is back
    assert server.asked()[prompt_key(poison)] == 3
