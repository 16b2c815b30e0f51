"""`obcd up --gpus`: pinned servers, their watch and the coordinator under one supervisord."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpu_support import StandIns, card_uuid, cards, free_base
from tests.support import Running, all_gone, family, obcd_command, run_obcd, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def stand_ins(tmp_path: Path) -> Iterator[StandIns]:
    made = StandIns(tmp_path / "host", cards(3))
    yield made
    made.end()


def test_up_starts_a_server_per_card_and_the_coordinator_asks_them(
    stand_ins: StandIns, environment: dict[str, str], tmp_path: Path, started: list[Running]
) -> None:
    environment = stand_ins.environment(environment)
    config, root = tmp_path / "obcd.toml", tmp_path / "root"
    base = free_base(3)
    config.write_text(f"[host]\nbase_port = {base}\nnum_parallel = 3\n")
    up = Running(
        obcd_command("up", "--gpus", "0,2", "--config", config, "--root", root), environment, tmp_path / "up.log"
    )
    started.append(up)

    def states() -> list[tuple[str, int, int, str]]:
        done = run_obcd(environment, "status", "--json", "--root", root)
        found = json.loads(done.stdout)["endpoints"] if done.returncode == 0 else []
        return [(item["name"], item["gpu"], item["slots"], item["state"]) for item in found]

    wanted = [(f"127.0.0.1:{base}", 0, 3, "UP"), (f"127.0.0.1:{base + 2}", 2, 3, "UP")]
    wait_until(lambda: states() == wanted, what=lambda: f"{states()}\n{up.text()}")
    assert [stand_ins.recorded(port)["CUDA_VISIBLE_DEVICES"] for port in (base, base + 2)] == [
        card_uuid(0),
        card_uuid(2),
    ]
    hint = next(line for line in up.text().splitlines() if line.startswith("servers obcd host status --runtime "))
    wait_until(  # the watch asks each of them now and then
        lambda: run_obcd(environment, "host", "status", *hint.split()[4:]).stdout.startswith("2/2 servers answer")
    )
    children = family(up.pid)
    up.send(signal.SIGINT)
    assert up.wait() == 0
    wait_until(lambda: all_gone(children))  # Python's fork server ends a moment after its parent
    assert stand_ins.alive() == []
