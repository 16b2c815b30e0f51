"""`obcd ray` on a real Ray with faked GPUs: registered, adopted, drained, killed at random."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from obcd.errors import ExitCode
from tests.acceptance.shell_blocks import read_blocks
from tests.ray_support import RayMachine, on_own_machine
from tests.support import SOURCES, prompts, wait_until, write_config

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(3600)]

SLOTS, GPUS = 4, 8
#: {victim: (a word of its command line, how many of 20 kills, servers that it takes with it)}
VICTIMS = {
    "actor": ("ray::GpuServer", 6, 1),
    "guard": ("obcd.ray.guard", 3, 1),
    "server": ("obcd simulate", 2, 1),
    "session": ("obcd.ray.session", 2, 0),
    "keeper": ("obcd ray up", 3, 0),
    "raylet": ("--raylet_socket_name", 2, GPUS),
    "head": ("gcs/gcs_server", 2, GPUS),
}


@pytest.mark.engine
@on_own_machine
def test_servers_are_registered_adopted_scaled_and_ended(tmp_path: Path) -> None:
    with RayMachine(tmp_path, gpus=3, seconds=0.5, slots=2) as ray:
        ray.start_head()
        ray.start_node()
        coordinator = ray.coordinate()
        keeper = ray.keep("--min", 1, "--max", 3, "--idle", 5)
        wait_until(lambda: len(ray.serving()) == 1, what="one server is registered")
        first = ray.serving()

        keeper.send_signal(signal.SIGKILL)
        ray.keep("--min", 1, "--max", 3, "--idle", 5)
        wait_until(lambda: "1 server adopted" in (tmp_path / "keeper.log").read_text(), what="the server is adopted")
        assert ray.serving() == first

        coordinator.drop(prompts(120))
        wait_until(lambda: len(ray.serving()) == 3, what="three servers are registered")
        coordinator.published().assert_complete(120)
        wait_until(lambda: len(ray.serving()) == 1, what="two servers have drained")
        assert not ray.account("cancelled")

        status = ray.obcd("ray", "status")
        assert status.returncode == 0, status.stderr
        assert status.stdout.count(" serving ") == 1, status.stdout
        down = ray.obcd("ray", "down", "--now")
        assert down.returncode == 0, down.stderr
        wait_until(lambda: not ray.servers(), what="no process is left")
        assert ray.records() == []
        assert ray.on_one_card_twice() == ""


@pytest.mark.engine
@on_own_machine
def test_cluster_that_wants_a_token_is_one_sentence_until_the_token_is_there(tmp_path: Path) -> None:
    with RayMachine(tmp_path, gpus=1) as ray:
        token = tmp_path / "token"
        token.write_text("3ede458a34bf8332ada47c71e4853b7592be17d6d8563a70b16154a134da116f")
        without = dict(ray.environment)
        ray.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        ray.start_head()
        assert ray.obcd("ray", "status").returncode == ExitCode.DONE

        ray.environment = without
        refused = ray.obcd("ray", "up", "--register", ray.hosts)

        assert refused.returncode == ExitCode.NO_ENDPOINT, refused.stderr
        assert "requires a token" in refused.stderr.splitlines()[-1]


@pytest.mark.engine
@on_own_machine
def test_walk_of_the_manual_works(tmp_path: Path) -> None:
    blocks = [block for block in read_blocks(SOURCES / "etc" / "manual" / "on-ray.md") if block.tag == "ray"]
    assert len(blocks) == 5
    with RayMachine(tmp_path, gpus=4) as ray:
        ray.start_head()
        ray.start_node()
        script = "set -eu\n" + "".join(f"echo '== {block.place}' >&2\n{block.text}" for block in blocks)
        walk = ray.begin("walk", ["bash", "-c", script])

        assert walk.wait(600) == 0, (tmp_path / "walk.log").read_text()

        wait_until(lambda: not ray.servers(), what="no process is left")


def kill_at_random(folder: Path, kills: int, lines: int, seconds: float) -> list[str]:
    """Run one job while head, raylet, actors, servers and keeper are killed; return what was killed."""
    dice = random.Random(17)
    plan = [name for name, (_, share, _) in VICTIMS.items() for _ in range(share * kills // 20)]
    dice.shuffle(plan)
    done: list[str] = []
    with RayMachine(folder, gpus=GPUS, seconds=seconds, slots=SLOTS) as ray:
        ray.start_head()
        ray.start_node()
        coordinator = ray.coordinate()
        ray.keep("--min", GPUS, "--max", GPUS)
        wait_until(lambda: len(ray.serving()) == GPUS, what="all servers are registered")
        coordinator.drop(prompts(lines))
        while plan:
            until = time.monotonic() + dice.uniform(1.0, 6.0)
            while time.monotonic() < until:
                ray.revive()
                time.sleep(0.2)
            if ray.kill(VICTIMS[plan[-1]][0], dice.choice):
                done.append(plan.pop())
        manifest = coordinator.outbox / "notes" / "manifest.json"
        while not manifest.exists():
            ray.revive()
            time.sleep(0.2)
        coordinator.published().assert_complete(lines)
        assert coordinator.published().errors == []
        in_flight = SLOTS * sum(VICTIMS[name][2] for name in done)
        assert ray.account("arrived").total() <= lines + in_flight, done
        assert ray.on_one_card_twice() == ""

        assert ray.keeper is not None
        ray.keeper.kill()  # and nobody starts it again
        for word in ("--raylet_socket_name", "gcs/gcs_server"):
            for process in ray.processes(word):
                process.kill()
        wait_until(lambda: not ray.servers(), what=lambda: f"no process is left: {ray.servers()}")
    return done


@pytest.mark.engine
@on_own_machine
def test_job_is_answered_although_20_processes_are_killed(tmp_path: Path) -> None:
    assert len(kill_at_random(tmp_path, 20, 1000, 1.5)) == 20


@pytest.mark.soak
@on_own_machine
def test_job_is_answered_although_100_processes_are_killed(tmp_path: Path) -> None:
    assert len(kill_at_random(tmp_path, 100, 5000, 1.5)) == 100


@pytest.mark.soak
@on_own_machine
def test_ray_costs_no_time_and_no_cpu_a_prompt(tmp_path: Path) -> None:
    lines, gpus = 2000, 8
    seconds: dict[str, list[float]] = {"registered": [], "listed": []}
    with RayMachine(tmp_path, gpus=gpus, seconds=0.1, slots=SLOTS) as ray:
        ray.start_head()
        ray.start_node()
        ray.keep("--min", gpus, "--max", gpus)
        wait_until(lambda: len(ray.serving()) == gpus, what="all servers are registered")
        names = {url.removeprefix("http://"): SLOTS for url in ray.serving().values()}
        configs = {"registered": ray.config, "listed": write_config(tmp_path / "listed.toml", names)}
        cpu = {"idle": 0.0, "registered": 0.0, "listed": 0.0}
        for number in range(3):
            for way, config in configs.items():
                coordinator = ray.coordinate(tmp_path / f"{way}-{number}", config)
                wait_until(lambda running=coordinator: len(running.status()["endpoints"]) == gpus)  # type: ignore[misc]
                before, began = ray.cpu_seconds(), time.monotonic()
                coordinator.drop(prompts(lines))
                coordinator.published().assert_complete(lines)
                seconds[way].append(time.monotonic() - began)
                cpu[way] += ray.cpu_seconds() - before
                coordinator.end()
        before, idle = ray.cpu_seconds(), sum(seconds["registered"])
        time.sleep(idle)
        cpu["idle"] = ray.cpu_seconds() - before
    print(f"seconds {seconds}, CPU seconds in {idle:.1f} s: {cpu}")
    assert min(seconds["registered"]) <= 1.15 * min(seconds["listed"])
    assert cpu["registered"] - cpu["idle"] < 3 * lines * 0.0002
