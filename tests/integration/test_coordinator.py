"""The coordinator as a process, from drop to answer, with simulated servers that count what they are asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.golden.wording import wording
from tests.support import (
    BUSY_CLERK,
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Published,
    Simulated,
    all_gone,
    family,
    is_gone,
    obcd_command,
    prompt_key,
    prompt_lines,
    prompts,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def config(tmp_path: Path, quick_server: Simulated) -> Path:
    """Write a configuration of one quick server with four slots."""
    profiles = {"clinical": {"num_predict": 50}}
    return write_config(tmp_path / "obcd.toml", {quick_server.names[0]: 4}, profiles=profiles)


@pytest.fixture
def coordinator(config: Path, cluster: Cluster) -> CoordinatorProcess:
    return cluster.coordinate(config)


def open_descriptors(pid: int) -> list[str]:
    found = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
        except FileNotFoundError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def has_account(server: Simulated, least: int) -> bool:
    return len(server.account()) >= least


# --- from drop to answer ---------------------------------------------------------------------------------------------


def test_r51_profile_writes_a_file_for_each_answer_into_the_published_folder(
    cluster: Cluster, quick_server: Simulated
) -> None:
    config = cluster.configure(quick_server.names, profiles={"seed": {"files": True}})
    coordinator = cluster.coordinate(config)

    coordinator.drop(["Why?", "How?"], profile="seed")
    done = coordinator.published("seed/notes")

    files = sorted(done.folder.glob("[0-9]*-[0-9]*.json"), key=lambda path: path.stem.split("-")[1])
    assert [json.loads(path.read_bytes()) for path in files] == [
        {"prompt": item["prompt"], "response": item["response"]} for item in done.responses
    ]
    assert [path.stem.split("-")[1] for path in files] == ["1", "2"]


def test_file_that_is_copied_into_the_inbox_is_answered(coordinator: CoordinatorProcess) -> None:
    content = prompt_lines(prompts(20))
    dropped = coordinator.drop(content)

    done = coordinator.published()

    done.assert_complete(20)
    assert [item["prompt"] for item in done.responses] == prompts(20)
    assert all(item["response"] for item in done.responses)
    assert (done.folder / "input.jsonl").read_bytes() == content
    assert sorted(os.listdir(done.folder)) == ["input.jsonl", "manifest.json", "responses.jsonl"]
    counts = {"lines": 20, "requests": 20, "responses": 20, "failures": 0, "cut_short": 0, "empty": 0, "repairs": 0}
    counts |= {"cached": 0, "same": 0}
    assert done.manifest["counts"] == counts
    assert "simulated" in next(iter(done.manifest["endpoints"].values()))["version"]
    assert not dropped.exists()
    assert os.listdir(coordinator.jobs) == []
    assert sorted(os.listdir(coordinator.inbox / ".obcd" / "claim")) == []
    assert "prompt number" not in coordinator.text()


def test_submit_waits_for_the_answers(
    coordinator: CoordinatorProcess, config: Path, cluster: Cluster, tmp_path: Path
) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_bytes(prompt_lines(prompts(3)))
    common = ("--wait", "--timeout", 30, "--config", config, "--root", coordinator.root)

    good = run_obcd(cluster.environment, "submit", source, *common)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    Published(coordinator.outbox / "notes").assert_complete(3)

    source.write_bytes(prompt_lines(prompts(2)) + b"bad\n")
    partial = run_obcd(cluster.environment, "submit", source, "--name", "partly", *common)
    assert partial.returncode == 3
    assert re.fullmatch(r".*/partly: 2 answered, 1 failed, .*\n", partial.stderr)

    profile = run_obcd(cluster.environment, "submit", source, "--profile", "clinical", "--quiet", *common)
    assert profile.returncode == 3
    assert (coordinator.outbox / "clinical" / "notes" / "errors.jsonl").exists()


def test_submit_gives_up_waiting_when_its_time_is_over(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 60)
    config = cluster.configure(server.names, requests={"drain_seconds": 0.1})
    coordinator = cluster.coordinate(config)
    source = tmp_path / "notes.jsonl"
    source.write_bytes(prompt_lines(prompts(1)))

    done = run_obcd(cluster.environment, "submit", source, "--wait", "--timeout", 1, "--root", coordinator.root)

    assert done.returncode == 8
    assert wording("it-goes-on") in done.stderr


def test_file_in_a_profile_folder_is_asked_with_its_profile(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(2), profile="clinical")

    done = coordinator.published("clinical/notes")

    assert done.manifest["profile"] == "clinical"
    assert done.manifest["settings"]["num_predict"] == 50


def test_two_jobs_run_at_once_and_both_are_whole(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.1)
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 4}))
    coordinator.drop(prompts(60, "slow"), "big.jsonl")
    wait_until(lambda: server.in_flight() == 4)
    coordinator.drop(prompts(4, "quick"), "small.jsonl")

    small = coordinator.published("small")
    assert not (coordinator.outbox / "big").exists()
    coordinator.published("big").assert_complete(60)
    small.assert_complete(4)
    assert set(server.asked().values()) == {1}


def test_bad_lines_are_errors_and_the_others_are_answered(coordinator: CoordinatorProcess) -> None:
    bad = [b"not json", b'{"prompt": ""}', b'{"id": "x", "prompt": "a", "options": {"heat": 1}}']
    coordinator.drop(prompt_lines(prompts(2)) + b"\n".join(bad) + b"\n" + prompt_lines(["last"]))

    done = coordinator.published()

    done.assert_complete(6)
    assert [(item["line"], item["id"], item["class"]) for item in done.errors] == [
        (3, 3, "bad_line"),
        (4, 4, "bad_line"),
        (5, "x", "bad_line"),
    ]
    assert (done.folder / "retry.jsonl").read_bytes() == b"\n".join(bad) + b"\n"


def test_same_name_again_is_a_job_of_its_own(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(2))
    first = coordinator.published()
    coordinator.drop(prompts(2))

    manifests = wait_until(lambda: [path for path in coordinator.outbox.glob("notes.*/manifest.json") if path.exists()])

    (second,) = (path.parent.name for path in manifests)
    assert re.fullmatch(r"notes\.\d{8}T\d{6}-[0-9a-f]{12}", second)
    Published(coordinator.outbox / second).assert_complete(2)
    assert Published(coordinator.outbox / "notes").manifest == first.manifest


def test_repeated_drop_of_an_unfinished_job_waits_and_says_so(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 1.5)
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 1}))
    coordinator.drop(prompts(1))
    wait_until(lambda: server.in_flight() == 1)
    coordinator.drop(prompts(1))

    why = coordinator.outbox / "notes.waiting" / "why.txt"
    wait_until(why.exists)
    assert wording("the-same-file-is-being-answered") in why.read_text("utf-8")
    assert server.in_flight() == 1

    wait_until(lambda: len(list(coordinator.outbox.glob("notes*/manifest.json"))) == 2)
    assert not why.exists()
    assert sorted(server.asked().values()) == [2]


# --- status folders --------------------------------------------------------------------------------------------------


def test_progress_shows_while_a_job_runs_and_goes_with_it(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.3)
    coordinator = cluster.coordinate(cluster.configure(server.names))
    coordinator.drop(prompts(20))

    path = coordinator.outbox / "notes.partial" / "progress.json"
    wait_until(path.exists)
    wait_until(lambda: json.loads(path.read_bytes())["done"] > 0)
    document = json.loads(path.read_bytes())
    assert (document["total"], document["failed"], document["state"]) == (20, 0, "RUNNING")
    assert document["tokens_per_second"] > 0
    assert document["eta_seconds"] > 0

    coordinator.published()
    wait_until(lambda: os.listdir(coordinator.outbox) == ["notes"])


def test_waiting_sign_appears_at_once_stays_and_goes_when_resolved(coordinator: CoordinatorProcess) -> None:
    path = coordinator.drop(b'{"prompt": "a"}\n{"prompt": "cut o')
    why = coordinator.outbox / "notes.waiting" / "why.txt"
    wait_until(why.exists)
    assert "cut off" in why.read_text("utf-8")
    shown = wait_until(lambda: coordinator.status()["waiting"])
    assert shown[0]["file"] == "notes.jsonl"

    looks = coordinator.status()["updated"] + 6  # the clerk looks again after five seconds
    while coordinator.status()["updated"] < looks:
        assert why.exists()
        time.sleep(0.005)
    assert coordinator.text().count("waits:") == 1

    path.write_bytes(prompt_lines(prompts(2)))
    coordinator.published().assert_complete(2)
    wait_until(lambda: not why.parent.exists())


def test_broken_upload_is_rejected_after_its_time_with_the_input_kept(cluster: Cluster) -> None:
    server = cluster.simulate()
    coordinator = cluster.coordinate(cluster.configure(server.names, spool={"incomplete_hold_seconds": 0}))
    coordinator.drop(b"", "empty.jsonl")
    coordinator.drop(b'{"prompt": "a"}\n{"prom', "torn.jsonl")
    coordinator.drop(b"\x1f\x8b\x08\x00", "zipped.jsonl")

    for stem, reason in (("empty", "it is empty"), ("torn", "cut off"), ("zipped", "gzip")):
        done = coordinator.published(f"{stem}.rejected")
        assert reason in done.manifest["rejected"]
        assert (done.folder / "input.jsonl").exists()
    assert server.account() == []
    wait_until(lambda: len(os.listdir(coordinator.outbox)) == 3)
    assert list(coordinator.inbox.glob("*.jsonl")) == []


def test_strange_entries_neither_stop_nor_enter(coordinator: CoordinatorProcess, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(prompt_lines(["secret"]))
    (coordinator.inbox / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    os.mkfifo(coordinator.inbox / "pipe.jsonl")
    (coordinator.inbox / "folder.jsonl").mkdir()
    (coordinator.inbox / "bad\nname.jsonl").write_bytes(prompt_lines(["a"]))
    coordinator.drop(prompts(1))

    coordinator.published().assert_complete(1)

    folders = {path.parent.name for path in coordinator.outbox.glob("*.waiting/why.txt")}
    assert folders == {"link.waiting", "pipe.waiting", r"bad\nname.waiting"}
    assert all(line.startswith("20") for line in coordinator.text().splitlines())


# --- faults of servers -----------------------------------------------------------------------------------------------


FAULTS = {
    "[[simulate:status=503*2]] b": "",
    "[[simulate:status=500*1]] c": "",
    "[[simulate:cut*1]] d": "",
    "[[simulate:done-false*1]] e": "",
    "[[simulate:garbage*1]] f": "",
    "[[simulate:redirect*1]] g": "",
    "[[simulate:hang*1]] h": "",
    "[[simulate:drip*1]] i": "",
    "[[simulate:length]] j": "",
    "[[simulate:seconds=0.2]] k": "",
    "[[simulate:status=400]] l": "bad_request",
    "[[simulate:status=500]] m": "server_error",
    "[[simulate:garbage]] n": "invalid_reply",
    "[[simulate:redirect]] o": "redirect",
    "[[simulate:cut]] p": "cut",
    "[[simulate:hang]] q": "timeout",
    "[[simulate:huge=70000000]] r": "too_large",
    "[[simulate:done-false]] s": "aborted",
}
#: A crash ends all that runs on its server, so it would be counted against the neighbours of a larger job.
CRASH = "[[simulate:crash]] t"


def test_each_fault_ends_in_one_answer_or_one_error(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.02, count=2)
    requests = {"attempts": 2, "request_timeout_seconds": 3.0, "load_timeout_seconds": 30}
    quick = {
        "obcd.core.endpoint.retry:ENDPOINT_LIMIT": 0.2, "obcd.core.endpoint.retry:ENDPOINT_BASE": 0.1,
        "obcd.core.endpoint.health:ENDPOINT_LIMIT": 0.2, "obcd.core.endpoint.health:ENDPOINT_BASE": 0.1,
        "obcd.core.scheduling.attempt_count:REQUEST_BASE": 0.1,
        "obcd.coordinator.endpoints.control_calls:PROBE_SOON": 0.1,
    }  # fmt: skip
    config = cluster.configure(dict.fromkeys(server.names, 4), requests=requests)
    coordinator = cluster.coordinate(config, tweaks=quick)
    coordinator.drop([*FAULTS, *prompts(10)])

    done = coordinator.published()

    done.assert_complete(len(FAULTS) + 10)
    classes = {item["line"]: item["class"] for item in done.errors}
    assert classes == {line: kind for line, kind in enumerate(FAULTS.values(), 1) if kind}
    coordinator.drop([CRASH], "crash.jsonl")
    (error,) = coordinator.published("crash").errors
    assert (error["class"], error["attempts"]) == ("crashed", 2)
    coordinator.drop(["[[simulate:crash*1]] a"], "once.jsonl")
    coordinator.published("once").assert_complete(1)
    text = coordinator.text()
    assert "Traceback" not in text
    assert "[[simulate" not in text


def test_server_that_dies_and_comes_back_costs_no_line_and_no_spinning(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.1)
    coordinator = cluster.coordinate(cluster.configure(server.names))
    coordinator.drop(prompts(40))
    wait_until(lambda: len(server.account()) > 6)
    server.kill()
    wait_until(lambda: coordinator.status()["endpoints"][0]["state"] == "DOWN")
    wait_until(lambda: coordinator.status()["endpoints"][0]["in_flight"] == 0)

    before, since = cpu_seconds(coordinator.pid), time.monotonic()
    wait_until(lambda: time.monotonic() - since > 2)
    assert (cpu_seconds(coordinator.pid) - before) / (time.monotonic() - since) < 0.15
    assert not (coordinator.outbox / "notes").exists()

    again = cluster.simulate("--parallel", 2, "--seconds", 0.02, "--port", server.port)
    done = coordinator.published()
    done.assert_complete(40)
    assert done.errors == []
    assert set(again.asked().values()) == {1}


def test_model_that_no_endpoint_has_fails_its_lines_only(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.02)
    tweaks = {
        "obcd.core.scheduling.missing_models:MODEL_WAIT_SECONDS": 1.0,
        "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3,
    }
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=tweaks)
    coordinator.drop(b'{"prompt": "a"}\n{"prompt": "b", "model": "phi4"}\n{"prompt": "c"}\n')

    done = coordinator.published()

    done.assert_complete(3)
    (error,) = done.errors
    assert (error["line"], error["class"]) == (2, "model_missing")
    assert "ollama pull phi4" in error["message"]


def test_silent_endpoint_beside_a_good_one_holds_nothing_up(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.02, "--parallel", 4)
    gone = cluster.simulate()
    gone.kill()
    config = cluster.configure({gone.names[0]: 4, server.names[0]: 4})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(30))

    done = coordinator.published()

    done.assert_complete(30)
    assert list(done.manifest["endpoints"]) == [server.names[0]]


# --- crashes and stops -----------------------------------------------------------------------------------------------


def test_killed_coordinator_loses_nothing_and_asks_only_what_was_in_flight_again(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.15)
    config = cluster.configure({server.names[0]: 4})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(60))
    kills = 3
    for round_number in range(kills):
        wait_until(partial(has_account, server, 8 * (round_number + 1)))
        children = family(coordinator.pid)
        coordinator.kill()
        wait_until(partial(all_gone, children), what="no process outlives a killed coordinator")
        coordinator = cluster.coordinate(config)

    done = coordinator.published()

    done.assert_complete(60)
    assert any(line.endswith(wording("continuing-with-1-unfinished-job")) for line in coordinator.text().splitlines())
    assert done.errors == []
    asked = server.asked()
    assert set(asked) == {prompt_key(prompt) for prompt in prompts(60)}
    assert sum(asked.values()) - 60 <= 8 * kills  # in flight in four slots, and as many answers not on disk yet
    assert os.listdir(coordinator.jobs) == []
    wait_until(lambda: os.listdir(coordinator.outbox) == ["notes"])


def test_killed_worker_is_replaced_and_its_requests_asked_again(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.5, count=2)
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=NEVER_HEDGED)
    coordinator.drop(prompts(16))
    wait_until(lambda: server.in_flight() == 4)
    first, second = server.names
    wait_until(lambda: len(coordinator.worker_pids()) >= 2)
    pids = coordinator.worker_pids()
    os.kill(pids[first], signal.SIGKILL)

    done = coordinator.published()

    done.assert_complete(16)
    assert done.errors == []
    assert sum(server.asked().values()) <= 18
    wait_until(lambda: coordinator.worker_pids().get(first, pids[first]) != pids[first])
    assert coordinator.worker_pids()[second] == pids[second]


def test_poison_prompt_that_ends_its_worker_each_time_becomes_one_error(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 1, "--seconds", 0.02)
    config = cluster.configure({server.names[0]: 1}, requests={"attempts": 2})
    coordinator = cluster.coordinate(config)
    coordinator.drop(["[[simulate:hang]] poison", "good"])
    key, killed = prompt_key("[[simulate:hang]] poison"), set[int]()

    def kill_worker_that_hangs() -> bool:
        pid = coordinator.worker_pids().get(server.names[0])
        is_in_flight = any(record["prompt"] == key and record["finished"] is None for record in server.account())
        if pid and pid not in killed and is_in_flight:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return (coordinator.outbox / "notes" / "manifest.json").exists()

    wait_until(kill_worker_that_hangs)

    done = coordinator.published()
    done.assert_complete(2)
    assert [(item["line"], item["class"], item["attempts"]) for item in done.errors] == [(1, "worker_lost", 2)]


def test_term_lets_what_is_in_flight_finish_and_starts_nothing_new(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 1.0)
    config = cluster.configure({server.names[0]: 4})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(12))
    wait_until(lambda: server.in_flight() == 4)
    before = cpu_seconds(coordinator.pid)
    children = family(coordinator.pid)
    coordinator.send(signal.SIGTERM)
    process = psutil.Process(coordinator.pid)
    used = before
    while coordinator.process.poll() is None:
        try:
            used = max(used, cpu_seconds(process.pid))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)

    assert coordinator.wait() == 0
    assert "ERROR" not in coordinator.text()
    assert used - before < 0.4  # it waited, it did not spin
    wait_until(lambda: all_gone(children))
    records = server.account()
    assert [record["outcome"] for record in records] == ["answered"] * 4
    assert coordinator.status() == {}

    done = cluster.coordinate(config).published()
    done.assert_complete(12)
    assert set(server.asked().values()) == {1}


def test_drain_ends_when_its_time_is_over_and_the_rest_is_asked_again(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 1)
    config = cluster.configure(server.names, requests={"drain_seconds": 0.5})
    coordinator = cluster.coordinate(config)
    coordinator.drop(["[[simulate:hang*1]] a"])
    wait_until(lambda: server.in_flight() == 1)
    coordinator.send(signal.SIGTERM)

    assert coordinator.wait() == 0
    wait_until(lambda: server.in_flight() == 0)
    cluster.coordinate(config).published().assert_complete(1)


@pytest.mark.parametrize("signals", [[signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]], ids=["term twice", "int"])
def test_second_term_or_int_stops_now(cluster: Cluster, signals: list[signal.Signals]) -> None:
    server = cluster.simulate()
    config = cluster.configure(server.names, requests={"drain_seconds": 600.0})
    coordinator = cluster.coordinate(config)
    coordinator.drop(["[[simulate:hang]] a"])
    wait_until(lambda: server.in_flight() == 1)
    for number, each in enumerate(signals):
        coordinator.send(each)
        if number + 1 < len(signals):
            wait_until(lambda: "draining" in coordinator.text())

    assert coordinator.wait() == 0
    assert "Traceback" not in coordinator.text()


def test_second_coordinator_on_the_same_root_is_refused_and_the_first_goes_on(config: Path, cluster: Cluster) -> None:
    first = cluster.coordinate(config)
    second = cluster.coordinate(config, is_awaited=False)

    assert second.wait() == 7
    assert wording("another-coordinator-pid-runs-on", first.pid) in second.text()
    first.drop(prompts(1))
    first.published().assert_complete(1)


def test_no_child_keeps_the_lock(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(1))
    coordinator.published()

    assert sum(path.endswith("/lock") for path in open_descriptors(coordinator.pid)) == 2
    for pid in family(coordinator.pid):
        assert not any(path.endswith("/lock") for path in open_descriptors(pid))


def test_job_goes_on_with_other_endpoints_after_a_restart(tmp_path: Path, cluster: Cluster) -> None:
    old, new = cluster.simulate("--parallel", 2, "--seconds", 0.2), cluster.simulate("--parallel", 2, "--seconds", 0.02)
    coordinator = cluster.coordinate(write_config(tmp_path / "old.toml", old.names))
    coordinator.drop(prompts(20))
    wait_until(lambda: len(old.account()) > 6)
    coordinator.send(signal.SIGTERM)
    coordinator.wait()
    answered = len(old.account())

    done = cluster.coordinate(write_config(tmp_path / "new.toml", new.names)).published()

    done.assert_complete(20)
    assert len(new.account()) == 20 - answered
    assert set(done.manifest["endpoints"]) == {*old.names, *new.names}


def test_result_that_the_consumer_took_away_is_not_published_again(
    coordinator: CoordinatorProcess, config: Path, cluster: Cluster, tmp_path: Path
) -> None:
    coordinator.drop(prompts(1))
    coordinator.published().folder.rename(tmp_path / "taken")
    coordinator.kill()

    again = cluster.coordinate(config)
    again.drop(prompts(1, "other"), "other.jsonl")
    again.published("other")

    wait_until(lambda: os.listdir(again.outbox) == ["other"])


def test_job_of_a_newer_version_stops_the_start_with_a_sentence(
    coordinator: CoordinatorProcess, config: Path, cluster: Cluster
) -> None:
    coordinator.send(signal.SIGTERM)
    coordinator.wait()
    folder = coordinator.jobs / "20991122T180105-000000000000"
    folder.mkdir()
    (folder / "job.json").write_text('{"format": 99, "id": "x"}', "utf-8")

    again = cluster.coordinate(config, is_awaited=False)

    assert again.wait() == 5
    assert wording("written-by-a-newer-obcd") in again.text()
    assert "Traceback" not in again.text()


# --- the clerk -------------------------------------------------------------------------------------------------------


def test_clerk_that_is_killed_while_it_accepts_is_replaced(config: Path, cluster: Cluster) -> None:
    coordinator = cluster.coordinate(
        config, tweaks={"obcd.coordinator.jobs.progress_folders:PROGRESS_SECONDS": 0.2, **BUSY_CLERK}
    )
    pid = wait_until(lambda: coordinator.worker_pids().get("clerk intake", 0))
    content = prompt_lines(prompts(40_000))
    writer = coordinator.inbox / ".hidden"
    writer.write_bytes(content)
    writer.rename(coordinator.inbox / "notes.jsonl")
    claims = coordinator.inbox / ".obcd" / "claim"
    wait_until(lambda: list(claims.glob("*/notes.jsonl")))
    os.kill(pid, signal.SIGKILL)
    assert not any(folder.suffix != ".tmp" for folder in coordinator.jobs.iterdir())

    wait_until(lambda: coordinator.status()["jobs"] and coordinator.status()["jobs"][0]["total"] == 40_000)

    assert wording("the-clerk-died-at-accept") in coordinator.text()
    assert len(os.listdir(coordinator.jobs)) == 1


def test_clerk_that_is_killed_while_it_publishes_is_replaced(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 16, "--seconds", 0.3)
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 16}), tweaks=BUSY_CLERK)
    bad = b'{"prompt": "", "padding": "' + b"x" * 500 + b'"}\n'
    coordinator.drop(prompt_lines(prompts(16)) + bad * 15_000)
    wait_until(lambda: coordinator.jobs.exists() and list(coordinator.jobs.glob("*/.responses.jsonl.tmp")))
    pid = wait_until(lambda: clerk_pid(coordinator))
    os.kill(pid, signal.SIGKILL)

    done = coordinator.published()

    done.assert_complete(15_016)
    assert wording("the-clerk-died-at-publish") in coordinator.text()
    wait_until(lambda: os.listdir(coordinator.outbox) == ["notes"])


def clerk_pid(coordinator: CoordinatorProcess) -> int:
    """Return the pid of the clerk that writes outputs, whether the status shows it yet or not."""
    for pid in family(coordinator.pid):
        if not is_gone(pid) and any(path.endswith(".responses.jsonl.tmp") for path in open_descriptors(pid)):
            return pid
    return 0


# --- upkeep ----------------------------------------------------------------------------------------------------------


def test_status_is_for_people_and_for_machines(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(1))
    coordinator.published()
    wait_until(lambda: coordinator.status()["published"])

    machine = coordinator.obcd("status", "--json")
    document = json.loads(machine.stdout)
    assert document["state"] == "READY"
    assert document["published"][0]["responses"] == 1
    assert document["endpoints"][0]["state"] == "UP"
    assert document["endpoints"][0]["answered"] == 1

    person = coordinator.obcd("status")
    assert person.returncode == 0
    assert re.search(rf"notes\.jsonl +{document['published'][0]['job']} +published +1/1 \(100 %\) +0", person.stdout)

    coordinator.send(signal.SIGTERM)
    coordinator.wait()
    nobody = coordinator.obcd("status")
    assert nobody.returncode == 5
    assert wording("no-coordinator-runs") in nobody.stderr


def test_inbox_that_is_made_anew_is_watched_and_used(config: Path, cluster: Cluster) -> None:
    coordinator = cluster.coordinate(config, tweaks={"obcd.coordinator.intake.drop_intake:SCAN_IDLE": 0.3})
    coordinator.inbox.rename(coordinator.root / "old inbox")
    wait_until(lambda: coordinator.status()["troubles"])
    (coordinator.inbox / "clinical").mkdir(parents=True)

    coordinator.drop(prompts(2))

    coordinator.published().assert_complete(2)
    assert wording("cannot-be-read") in coordinator.text()
    assert coordinator.text().count(wording("cannot-be-read")) == 1
    wait_until(lambda: coordinator.status()["troubles"] == [])


def test_idle_coordinator_and_its_workers_use_less_than_one_percent(cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 0.02)
    coordinator = cluster.coordinate(cluster.configure(server.names))
    coordinator.drop(prompts(2))
    coordinator.published()
    coordinator.drop(b'{"prompt": "waits for its rest', "held.jsonl")
    wait_until((coordinator.outbox / "held.waiting").exists)

    before, since = cpu_seconds(coordinator.pid), time.monotonic()
    workers = [pid for name, pid in coordinator.worker_pids().items() if name in server.names]
    before_workers = sum(map(cpu_seconds, workers))
    wait_until(lambda: time.monotonic() - since > 6)
    span = time.monotonic() - since

    assert (cpu_seconds(coordinator.pid) - before) / span < 0.01
    assert (sum(map(cpu_seconds, workers)) - before_workers) / span < 0.01


def test_hundred_jobs_leave_no_descriptor_and_no_process_behind(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(40), "first.jsonl")  # opens a connection for every slot
    coordinator.published("first")
    wait_until(lambda: coordinator.worker_pids().get("clerk outbox"))
    family_before = family(coordinator.pid)
    pids = [coordinator.pid, *family_before]
    before = {pid: len(open_descriptors(pid)) for pid in pids}

    for number in range(100):
        coordinator.drop([f"job {number}"], f"job{number}.jsonl")
    wait_until(lambda: len(list(coordinator.outbox.glob("job*/manifest.json"))) == 100)
    wait_until(lambda: not os.listdir(coordinator.jobs) and not coordinator.status()["jobs"])

    wait_until(
        lambda: all(len(open_descriptors(pid)) <= before[pid] + 5 for pid in pids),
        10,
        lambda: f"{before} {[(pid, open_descriptors(pid)) for pid in pids]}",
    )
    assert family(coordinator.pid) == family_before
    assert list((coordinator.inbox / ".obcd" / "claim").iterdir()) == []
    for number in range(100):
        Published(coordinator.outbox / f"job{number}").assert_complete(1)


def test_many_events_in_the_inbox_do_not_keep_the_loop_busy(coordinator: CoordinatorProcess) -> None:
    path = coordinator.inbox / "slow.jsonl"
    before, since = cpu_seconds(coordinator.pid), time.monotonic()
    with path.open("ab", buffering=0) as writer:
        for number in range(400):
            writer.write(prompt_lines([f"line {number}"]))
            time.sleep(0.001)
    span = time.monotonic() - since
    used = cpu_seconds(coordinator.pid) - before

    assert used / span < 0.5
    coordinator.published("slow").assert_complete(400)


def test_environment_and_arguments_of_children_hold_no_prompt(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(["the secret of the patient"])
    coordinator.published()

    for pid in [coordinator.pid, *family(coordinator.pid)]:
        for name in ("cmdline", "environ"):
            assert b"secret" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert "secret" not in coordinator.text()


def test_closed_output_does_not_stop_the_daemon(config: Path, environment: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    reader, writer = os.pipe()
    command = obcd_command("coordinator", "--config", config, "--root", root)
    process = subprocess.Popen(command, env=environment, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL)
    os.close(writer)
    try:
        wait_until((root / "inbox").is_dir)
        os.close(reader)
        (root / "inbox" / "notes.jsonl").write_bytes(prompt_lines(prompts(2)))
        wait_until((root / "outbox" / "notes" / "manifest.json").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, 120)  # 120: Python could not flush its streams at the end
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_figures_of_a_published_job_add_up(coordinator: CoordinatorProcess) -> None:
    coordinator.drop(prompts(10))
    done: Any = coordinator.published()

    assert done.manifest["tokens"]["eval"] == sum(item["eval_tokens"] for item in done.responses)
    assert done.manifest["tokens"]["prompt"] == sum(item["prompt_tokens"] for item in done.responses)
    shares = done.manifest["endpoints"].values()
    assert sum(share["responses"] for share in shares) == 10
