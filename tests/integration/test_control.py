"""Jobs that are cancelled, paused, resumed and preferred while they run, by files and by commands."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest

from obcd.users import user_name
from tests.golden.wording import wording
from tests.support import (
    Cluster,
    CoordinatorProcess,
    Published,
    Simulated,
    prompt_key,
    prompts,
    run_here,
    run_obcd,
    wait_until,
)

pytestmark = pytest.mark.integration

NEEDS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can make files of other users")


@pytest.fixture
def server(cluster: Cluster) -> Simulated:
    return cluster.simulate("--parallel", 2, "--seconds", 0.1)


@pytest.fixture
def coordinator(server: Simulated, cluster: Cluster) -> CoordinatorProcess:
    return cluster.coordinate(cluster.configure(server.names, profiles={"clinical": {"num_predict": 9}}))


def job_of(coordinator: CoordinatorProcess, name: str = "notes.jsonl") -> dict[str, Any]:
    return next((job for job in coordinator.status()["jobs"] if job["name"] == name), {})


def has_begun(coordinator: CoordinatorProcess, name: str = "notes.jsonl") -> bool:
    return bool(job_of(coordinator, name).get("done"))


def command(coordinator: CoordinatorProcess, *words: object) -> tuple[int, str]:
    done = run_here(coordinator.environment, *words, "--config", coordinator.config, "--root", coordinator.root)
    return done.returncode, done.stdout + done.stderr


def test_cancelled_job_is_published_with_what_it_has_and_asks_nothing_more(
    coordinator: CoordinatorProcess, server: Simulated
) -> None:
    coordinator.drop(prompts(200))
    wait_until(lambda: has_begun(coordinator))

    (coordinator.inbox / "notes.jsonl.cancel").touch()

    done = coordinator.published()
    done.assert_complete(200)
    assert {error["class"] for error in done.errors} == {"cancelled"}
    assert 0 < len(done.responses) < 150
    assert (done.folder / "retry.jsonl").read_bytes().count(b"\n") == len(done.errors)
    assert done.manifest["cancelled_by"]["uid"] == os.getuid()
    wait_until(lambda: server.in_flight() == 0)
    asked = server.asked()
    assert set(asked.values()) == {1}
    assert len(asked) <= len(done.responses) + 2  # the two that were in flight
    assert sorted(os.listdir(coordinator.inbox)) == [".obcd", "clinical"]
    assert wording("was-cancelled-by", user_name(os.getuid())) in coordinator.text()


def test_rest_of_a_cancelled_job_is_answered_when_it_is_retried(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(60), profile="clinical")
    wait_until(lambda: has_begun(coordinator))
    assert command(coordinator, "cancel", "clinical/notes.jsonl") == (
        0,
        wording("clinical-notes-jsonl-is-cancelled-what"),
    )
    first = coordinator.published("clinical/notes")

    code, said = command(coordinator, "retry", "clinical/notes")

    left = len(first.errors)
    assert (code, left > 0) == (0, True)
    assert re.search(wording("lines-dropped-as-notes-retry-jsonl", left), said)
    second = coordinator.published("clinical/notes.retry")
    second.assert_complete(left)
    answered = [item["prompt"] for item in (*first.responses, *second.responses)]
    assert sorted(answered) == sorted(prompts(60))

    # both are one result again, and no line is asked twice
    assert second.manifest["parent"] == first.manifest["job"]
    environment, folder = coordinator.environment, str(first.folder)
    verified = run_obcd(environment, "verify", folder)
    here = f"{60 - left} answered here ({first.manifest['counts']['cut_short']} cut short)"
    assert (verified.returncode, verified.stdout) == (
        0,
        wording("notes-60-lines-by-its-retry", here, left),
    )
    for shown in (folder, str(coordinator.root / "outbox")):
        printed = run_obcd(environment, "print", "--json", shown)
        told = [json.loads(line) for line in printed.stdout.splitlines()]
        assert [(item["line"], item["id"], item["prompt"]) for item in told] == [
            (number, number, prompt) for number, prompt in enumerate(prompts(60), 1)
        ]
        assert (printed.returncode, printed.stderr) == (0, "")
    code, said = command(coordinator, "retry", "clinical/notes")
    assert (code, wording("its-failed-lines-were-answered-in") in said) == (0, True)


def test_paused_job_stands_still_lets_others_pass_and_goes_on(
    coordinator: CoordinatorProcess, server: Simulated
) -> None:
    coordinator.drop(prompts(60))
    wait_until(lambda: has_begun(coordinator))

    assert command(coordinator, "pause", "notes") == (0, wording("notes-jsonl-is-paused-obcd-resume"))

    wait_until(lambda: server.in_flight() == 0)
    before = server.asked()
    coordinator.drop(prompts(8, "other"), name="other.jsonl")
    coordinator.published("other").assert_complete(8)
    assert len(server.asked()) == len(before) + 8
    assert job_of(coordinator)["state"] == "PAUSED"
    assert "PAUSED" in (coordinator.outbox / "notes.partial" / "progress.json").read_text()

    assert command(coordinator, "resume", job_of(coordinator)["job"]) == (0, "notes.jsonl continues\n")

    coordinator.published().assert_complete(60)
    assert sorted(os.listdir(coordinator.inbox)) == [".obcd", "clinical"]


def test_pause_and_priority_outlive_the_coordinator(
    coordinator: CoordinatorProcess, server: Simulated, cluster: Cluster
) -> None:
    (coordinator.inbox / "notes.jsonl.pause").touch()
    coordinator.drop(prompts(4))
    wait_until(lambda: job_of(coordinator).get("state") == "PAUSED")
    (coordinator.inbox / "notes.jsonl.priority-7").touch()
    wait_until(lambda: job_of(coordinator)["priority"] == 7)
    coordinator.send(signal.SIGKILL)
    coordinator.wait()

    again = cluster.coordinate(coordinator.config)

    wait_until(lambda: bool(job_of(again)))
    assert (job_of(again)["state"], job_of(again)["priority"]) == ("PAUSED", 7)
    assert server.asked() == {}
    (again.inbox / "notes.jsonl.pause").unlink()
    again.published().assert_complete(4)


def test_cancelled_job_stays_cancelled_when_the_coordinator_is_killed_over_it(
    coordinator: CoordinatorProcess, server: Simulated, cluster: Cluster
) -> None:
    coordinator.drop(prompts(100))
    wait_until(lambda: has_begun(coordinator))
    (coordinator.inbox / "notes.jsonl.cancel").touch()
    wait_until(lambda: not (coordinator.inbox / "notes.jsonl.cancel").exists())
    coordinator.send(signal.SIGKILL)
    coordinator.wait()
    asked = len(server.account())

    again = cluster.coordinate(coordinator.config)

    again.published().assert_complete(100)
    assert len(server.account()) == asked


def test_higher_priority_is_served_first(coordinator: CoordinatorProcess, server: Simulated) -> None:
    coordinator.drop(prompts(100, "low"), name="low.jsonl")
    wait_until(lambda: has_begun(coordinator, "low.jsonl"))
    (coordinator.inbox / "high.jsonl.priority-10").touch()
    coordinator.drop(prompts(20, "high"), name="high.jsonl")
    coordinator.published("high").assert_complete(20)

    order = [record["prompt"] for record in sorted(server.account(), key=lambda record: record["arrived"])]

    high = {prompt_key(prompt) for prompt in prompts(20, "high")}
    places = [place for place, prompt in enumerate(order) if prompt in high]
    assert places[-1] - places[0] < 30  # nearly one block: in turns it would have been forty
    assert command(coordinator, "cancel", "low") == (
        0,
        wording("low-jsonl-is-cancelled-what-has"),
    )


@NEEDS_ROOT
@pytest.mark.parametrize("verb", ["cancel", "pause", "priority-9"])
def test_stranger_is_told_that_it_is_not_his(coordinator: CoordinatorProcess, verb: str) -> None:
    coordinator.drop(prompts(60))
    wait_until(lambda: has_begun(coordinator))
    planted = coordinator.root / "planted"
    planted.touch()
    os.chown(planted, 54321, 54321)

    planted.rename(coordinator.inbox / f"notes.jsonl.{verb}")

    why = coordinator.outbox / f"notes.jsonl.{verb}.waiting" / "why.txt"
    wait_until(why.exists)
    assert wording("only-its-submitter-or-the-daemon") in why.read_text()
    done = coordinator.published()
    done.assert_complete(60)
    assert done.errors == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("cancel", "nothing"), 5, wording("obcd-there-is-no-unfinished-job")),
        (("resume", "done"), 5, wording("obcd-done-is-finished-its-answers")),
        (("retry", "done"), 0, wording("done-nothing-failed-in-it-there")),
        (("retry", "nothing"), 5, wording("obcd-there-is-no-published-job")),
        (("priority", "done", 101), 2, wording("s-101-is-not-in-the")),
        (("cancel",), 2, r"(?s).*Missing argument 'JOB….*"),
    ],
)
def test_command_in_vain_says_why(
    coordinator: CoordinatorProcess, words: tuple[object, ...], code: int, said: str
) -> None:
    coordinator.drop(prompts(1), name="done.jsonl")
    coordinator.published("done")
    wait_until(lambda: bool(coordinator.status()["published"]))

    found = command(coordinator, *words)

    assert found[0] == code
    assert re.fullmatch(said, found[1]), found[1]


def test_order_without_a_coordinator_waits_for_one(
    coordinator: CoordinatorProcess, cluster: Cluster, server: Simulated
) -> None:
    coordinator.drop(prompts(100))
    wait_until(lambda: has_begun(coordinator))
    coordinator.send(signal.SIGINT)
    coordinator.wait()

    code, said = command(coordinator, "cancel", "notes.jsonl")

    assert (code, wording("notes-jsonl-cancel-lies-in-the") in said) == (0, True)
    again = cluster.coordinate(coordinator.config)
    again.published().assert_complete(100)
    assert Published(again.outbox / "notes").errors


def test_malformed_priority_is_told_in_the_outbox(coordinator: CoordinatorProcess) -> None:
    (coordinator.inbox / "notes.jsonl.priority-high").touch()

    why = coordinator.outbox / "notes.jsonl.priority-high.waiting" / "why.txt"

    wait_until(why.exists)
    assert wording("a-priority-is-a-whole-number") in why.read_text()
