"""The configuration is read again with jobs running; the servers' own account judges."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import toml

from tests.golden.wording import wording
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Simulated,
    all_gone,
    prompt_key,
    prompt_lines,
    prompts,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration


def slow_first(seconds: float, slow: int, quick: int) -> list[str]:
    """Return prompts of which the first take long, so that what is done meanwhile finds them in flight."""
    return prompts(slow, f"[[simulate:seconds={seconds}]] slow") + prompts(quick, "quick")


def configure(path: Path, slots: Mapping[str, int], **tables: Any) -> Path:
    """Write a configuration in which an endpoint's place says nothing of its GPU."""
    document = toml.loads(write_config(path, slots, **tables).read_text("utf-8"))
    for instance in document["ollama_instances"].values():
        instance["gpu"] = 0
    path.write_text(toml.dumps(document), "utf-8")
    return path


def states(coordinator: CoordinatorProcess) -> dict[str, str]:
    return {item["name"]: item["state"] for item in coordinator.status()["endpoints"]}


def last_reload(coordinator: CoordinatorProcess, number: int) -> dict[str, Any]:
    """Wait for the outcome of the reload with this number."""

    def found() -> dict[str, Any]:
        return next((item for item in coordinator.status().get("reloads", []) if item["number"] == number), {})

    return wait_until(found, what=f"reload {number} is told")


def hang_up(coordinator: CoordinatorProcess) -> dict[str, Any]:
    """Send SIGHUP and return the outcome."""
    number = len(coordinator.status()["reloads"]) + 1
    coordinator.send(signal.SIGHUP)
    return last_reload(coordinator, number)


def reload(coordinator: CoordinatorProcess, *options: object) -> subprocess.CompletedProcess[str]:
    return coordinator.obcd("reload", *options)


class Manager(threading.Thread):
    """Stands where systemd is: keeps what is sent to NOTIFY_SOCKET. Always reads, since senders wait for room."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def run(self) -> None:
        while message := self._socket.recv(4096):
            self.messages.append(message.decode())
        self._socket.close()

    def was_told(self, start: str) -> bool:
        return any(message.startswith(start) for message in self.messages)


@pytest.fixture
def manager(runtime: Path, environment: dict[str, str]) -> Iterator[Manager]:
    """Have the environment's coordinators tell a manager how they are."""
    path = runtime / "notify"
    made = Manager(path)
    made.start()
    environment["NOTIFY_SOCKET"] = str(path)
    yield made
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", str(path))
    made.join(60)


# --- endpoints -------------------------------------------------------------------------------------------------------


def test_endpoints_come_drain_and_go_with_a_job_running_and_each_prompt_is_asked_once(
    tmp_path: Path, cluster: Cluster
) -> None:
    # given a job at work on two endpoints
    server = cluster.simulate("--parallel", 4, "--seconds", 0.5, count=3)
    first, second, third = server.names
    config = configure(tmp_path / "obcd.toml", {first: 4, second: 4})
    coordinator = cluster.coordinate(config, tweaks=NEVER_HEDGED)
    coordinator.drop(prompts(36))
    wait_until(lambda: server.in_flight() == 8)
    pids = coordinator.worker_pids()

    # when one comes and one leaves
    configure(config, {second: 4, third: 4})
    told = hang_up(coordinator)

    # then the one that leaves gets nothing new and finishes what it has
    assert (told["is_ok"], told["text"]) == (True, "1 endpoint added, 1 endpoint is draining (4 in flight)")
    sent = len(simulate_account(server, first))
    assert states(coordinator).get(first, "DRAINING") == "DRAINING"
    wait_until(lambda: states(coordinator).keys() == {second, third})
    wait_until(lambda: all_gone([pids[first]]))
    assert len(simulate_account(server, first)) == sent
    assert first not in coordinator.worker_pids()
    wait_until(lambda: simulate_account(server, third))

    # and nothing is lost or asked twice
    published = coordinator.published()
    published.assert_complete(36)
    assert published.errors == []
    assert server.asked() == dict.fromkeys(map(prompt_key, prompts(36)), 1)
    assert {name: share["version"] for name, share in published.manifest["endpoints"].items()}[first]
    assert coordinator.worker_pids()[second] == pids[second]


def simulate_account(server: Simulated, name: str) -> list[dict[str, Any]]:
    """Return what one of the servers was asked."""
    found: list[dict[str, Any]] = requests.get(f"http://{name}/simulated/requests", timeout=10).json()["requests"]
    return found


def test_endpoint_that_comes_back_while_it_drains_is_taken_back_by_the_same_worker(
    tmp_path: Path, cluster: Cluster
) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.2, count=2)
    first, second = server.names
    config = configure(tmp_path / "obcd.toml", {first: 2, second: 2})
    coordinator = cluster.coordinate(config, tweaks=NEVER_HEDGED)
    coordinator.drop(slow_first(1.5, 4, 8))
    wait_until(lambda: server.in_flight() == 4)
    pid = coordinator.worker_pids()[first]

    configure(config, {second: 2})
    assert hang_up(coordinator)["text"] == "1 endpoint is draining (2 in flight)"
    configure(config, {first: 2, second: 2})
    assert hang_up(coordinator)["text"] == "1 endpoint restored"

    wait_until(lambda: states(coordinator)[first] == "UP")
    coordinator.published().assert_complete(12)
    assert set(server.asked().values()) == {1}
    assert coordinator.worker_pids()[first] == pid
    assert len(simulate_account(server, first)) > 2


def test_slots_grow_and_shrink_without_idling_the_others(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 8, "--seconds", 0.3)
    (name,) = server.names
    config = cluster.configure({name: 2})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(30))
    wait_until(lambda: server.in_flight() == 2)
    pid = coordinator.worker_pids()[name]

    write_config(config, {name: 6})
    assert hang_up(coordinator)["text"] == "1 endpoint changed"
    wait_until(lambda: server.in_flight() == 6)

    write_config(config, {name: 1}, requests={"connect_timeout_seconds": 2.0})
    assert hang_up(coordinator)["text"] == "1 endpoint changed, requests.connect_timeout_seconds changed"
    wait_until(lambda: server.in_flight() == 1)

    write_config(config, {name: 8})
    hang_up(coordinator)
    coordinator.published().assert_complete(30)
    assert set(server.asked().values()) == {1}
    assert coordinator.worker_pids()[name] == pid


def test_endpoint_that_is_down_goes_at_once_and_the_last_one_can_be_exchanged(cluster: Cluster) -> None:
    gone, server = cluster.simulate(), cluster.simulate("--seconds", 0.02)
    gone.kill()
    config = cluster.configure(gone.names)
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(3))
    wait_until(lambda: "DOWN" in states(coordinator).values())

    write_config(config, server.names)
    assert hang_up(coordinator)["text"] == "1 endpoint added, 1 endpoint removed"

    assert list(states(coordinator)) == server.names
    coordinator.published().assert_complete(3)


# --- profiles and settings -------------------------------------------------------------------------------------------


def test_profile_that_came_is_answered_and_one_that_left_waits_with_a_reason(
    quick_server: Simulated, cluster: Cluster
) -> None:
    config = cluster.configure(quick_server.names, profiles={"old": {"num_predict": 30}})
    coordinator = cluster.coordinate(config, tweaks={"obcd.coordinator.intake.drop_intake:SCAN_IDLE": 0.3})
    write_config(config, quick_server.names, profiles={"clinical": {"num_predict": 40}})

    assert hang_up(coordinator)["text"] == "profile 'clinical' added, profile 'old' removed"

    coordinator.drop(prompts(2), profile="clinical")
    assert coordinator.published("clinical/notes").manifest["settings"]["num_predict"] == 40
    coordinator.drop(prompts(1, "late"), profile="old")
    waiting = wait_until(lambda: coordinator.status()["waiting"])
    assert waiting[0]["file"] == "old"
    assert wording("no-profile-of-this-name") in waiting[0]["why"]

    write_config(config, quick_server.names, profiles={"old": {"num_predict": 50}})
    hang_up(coordinator)
    assert coordinator.published("old/notes").manifest["settings"]["num_predict"] == 50


def test_accepted_jobs_keep_their_settings_and_later_files_get_the_new_ones(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 1, "--seconds", 0.25)
    config = cluster.configure({server.names[0]: 1})
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(4), "before.jsonl")
    wait_until(lambda: server.in_flight() == 1)

    write_config(config, {server.names[0]: 1}, requests={"num_predict": 77}, spool={"settle_seconds": 0.1})
    told = hang_up(coordinator)["text"]
    coordinator.drop(prompts(1, "later"), "after.jsonl")

    assert told == (wording("requests-num-predict-changed-spool-settle"))
    assert coordinator.published("after").manifest["settings"]["num_predict"] == 77
    assert coordinator.published("before").manifest["settings"]["num_predict"] == 2048


# --- faults ----------------------------------------------------------------------------------------------------------


def test_wrong_file_leaves_the_old_configuration_running_and_says_so_until_a_good_one(
    quick_server: Simulated, cluster: Cluster, manager: Manager
) -> None:
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config)
    wait_until(lambda: manager.was_told("READY=1"))
    pids = coordinator.worker_pids()
    config.write_text('model = "x"\nmodle = "y"\n[ollama_instances]\n"10.0.0.1:1" = -1\n', "utf-8")

    done = reload(coordinator)

    assert done.returncode == 4
    assert "has 2 faults" in done.stderr
    assert wording("did-you-mean-model") in done.stderr
    line = next(line for line in coordinator.text().splitlines() if "reload failed" in line)
    assert line.endswith(wording("the-old-configuration-stays"))
    assert coordinator.text().count("reload failed") == 1
    (trouble,) = coordinator.status()["troubles"]
    assert trouble.startswith(wording("reload-failed-the-configuration-has-2", config))
    wait_until(lambda: manager.was_told("STATUS=reload failed: the configuration"))
    shown = coordinator.obcd("status")
    assert "reload failed" in shown.stdout
    assert coordinator.worker_pids() == pids
    coordinator.drop(prompts(2))
    coordinator.published().assert_complete(2)

    write_config(config, quick_server.names)
    good = reload(coordinator)
    assert (good.returncode, good.stderr) == (0, "nothing changed\n")
    assert coordinator.status()["troubles"] == []
    told = manager.messages
    reloading = [place for place, text in enumerate(told) if text.startswith("RELOADING=1\nMONOTONIC_USEC=")]
    assert [told[place + 1] for place in reloading] == ["READY=1", "READY=1"]
    assert 0 <= time.monotonic() - int(told[reloading[1]].rpartition("=")[2]) / 1e6 < 60
    wait_until(lambda: told[-1] == "STATUS=no jobs, 1/1 endpoints up")


def test_what_cannot_be_applied_is_refused_whole(quick_server: Simulated, cluster: Cluster) -> None:
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config)
    (coordinator.inbox / "a").write_bytes(b"")
    more = [*quick_server.names, "127.0.0.1:1"]
    faults: list[tuple[dict[str, Any], str]] = [
        ({"spool": {"inbox": "/elsewhere"}}, "spool.inbox cannot change while the coordinator runs"),
        ({"profiles": {"a": {"schema": "none.json"}}}, "none.json: No such file"),
        ({"profiles": {"a": {}}}, "a is not a folder"),
        ({"modle": "x"}, "did you mean `model`?"),
    ]

    for tables, reason in faults:
        write_config(config, more, **tables)
        outcome = hang_up(coordinator)
        assert not outcome["is_ok"]
        assert reason in outcome["text"]
    config.unlink()
    assert wording("no-such-file") in hang_up(coordinator)["text"]
    assert list(states(coordinator)) == quick_server.names

    write_config(config, more, spool={"root": "/elsewhere"})  # --root rules, so nothing would move
    assert hang_up(coordinator)["text"] == "1 endpoint added"
    assert list(states(coordinator)) == more


# --- the command -----------------------------------------------------------------------------------------------------


def test_each_of_two_reloads_at_once_gets_an_outcome_and_one_to_a_frozen_coordinator_gives_up(
    quick_server: Simulated, cluster: Cluster
) -> None:
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config)
    write_config(config, {quick_server.names[0]: 3})

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: reload(coordinator), range(2)))

    assert [(done.returncode, done.stdout) for done in both] == [(0, "")] * 2
    assert "1 endpoint changed\n" in [done.stderr for done in both]
    assert {done.stderr for done in both} <= {"1 endpoint changed\n", "nothing changed\n"}

    number = coordinator.status()["reloads"][-1]["number"]
    coordinator.send(signal.SIGSTOP)
    frozen = reload(coordinator, "--timeout", 0.1)
    coordinator.send(signal.SIGCONT)
    assert frozen.returncode == 8
    assert last_reload(coordinator, number + 1)["text"] == "nothing changed"

    coordinator.send(signal.SIGTERM)
    coordinator.wait()
    nobody = reload(coordinator)
    assert nobody.returncode == 5
    assert wording("no-coordinator-runs-on-2") in nobody.stderr


def test_reload_while_the_coordinator_starts_is_answered(quick_server: Simulated, cluster: Cluster) -> None:
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config, is_awaited=False)
    wait_until((coordinator.root / "lock").exists)

    assert reload(coordinator).returncode == 0

    wait_until(coordinator.is_ready)
    coordinator.drop(prompts(1))
    coordinator.published().assert_complete(1)


def test_hangup_ends_no_coordinator_however_early_or_late_it_comes(quick_server: Simulated, cluster: Cluster) -> None:
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config, is_awaited=False)
    wait_until(lambda: "inbox" in coordinator.text())  # its first line: before it has its own handler
    coordinator.send(signal.SIGHUP)
    wait_until(coordinator.is_ready)

    coordinator.send(signal.SIGTERM)
    hung_up = 0
    while coordinator.process.poll() is None:  # to its very end
        coordinator.send(signal.SIGHUP)
        hung_up += 1

    assert coordinator.wait() == 0
    assert hung_up > 0


def test_batch_on_the_same_spool_is_not_ended_by_a_reload(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--seconds", 1.5)
    config = cluster.configure(server.names)
    job = tmp_path / "a.jsonl"
    job.write_bytes(prompt_lines(prompts(1)))
    batch = cluster.begin("batch", "--config", config, "--prompts", job, "--output_dir", tmp_path / "out")
    wait_until(server.in_flight)

    asked = run_obcd(cluster.environment, "reload", "--config", config, "--root", tmp_path / "out" / ".obcd")

    assert asked.returncode == 5
    assert "obcd batch" in asked.stderr
    assert batch.wait() == 0


# --- with a stop -----------------------------------------------------------------------------------------------------


def test_term_finishes_what_a_leaving_endpoint_holds_and_refuses_a_reload(cluster: Cluster, manager: Manager) -> None:
    # given an endpoint that is leaving with two requests, and one that stays with two
    server = cluster.simulate("--parallel", 2, "--seconds", 0.05, count=2)
    config = cluster.configure(server.names)
    coordinator = cluster.coordinate(config, tweaks=NEVER_HEDGED)
    coordinator.drop(slow_first(2.0, 4, 2))
    wait_until(lambda: server.in_flight() == 4)
    write_config(config, server.names[1:])
    hang_up(coordinator)

    # when a TERM comes, and a reload
    coordinator.send(signal.SIGTERM)
    wait_until(lambda: "draining" in coordinator.text())
    refused = hang_up(coordinator)

    # then all four are answered and recorded, and the reload is told why not
    assert (refused["is_ok"], refused["exit_code"]) == (False, 5)
    assert refused["text"] == wording("the-coordinator-is-stopping-it-reads")
    assert coordinator.wait() == 0
    assert [record["outcome"] for record in server.account()] == ["answered"] * 4
    assert manager.was_told("EXTEND_TIMEOUT_USEC=")
    assert manager.was_told("STATUS=stopping: ")

    cluster.coordinate(config).published().assert_complete(6)
    assert set(server.asked().values()) == {1}
