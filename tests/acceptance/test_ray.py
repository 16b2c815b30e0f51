"""`obcd ray` on a real Ray with faked GPUs: registered, adopted, drained, killed at random."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.ray_support import RayMachine, on_own_machine
from tests.support import wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.engine, pytest.mark.timeout(900)]


@on_own_machine
def test_servers_are_registered_adopted_and_ended(tmp_path: Path) -> None:
    with RayMachine(tmp_path, gpus=3) as ray:
        ray.start_head()
        ray.start_node()
        keeper = ray.keep("--min", 2, "--max", 3)
        wait_until(lambda: len(ray.serving()) == 2, what="two servers are registered")
        first = ray.serving()

        keeper.send_signal(signal.SIGKILL)
        ray.keep("--min", 2, "--max", 3)
        wait_until(lambda: "2 servers adopted" in (tmp_path / "keeper.log").read_text(), what="the servers are adopted")
        assert ray.serving() == first

        status = ray.obcd("ray", "status")
        assert status.returncode == 0, status.stderr
        assert status.stdout.count(" serving ") == 2, status.stdout

        down = ray.obcd("ray", "down", "--now")
        assert down.returncode == 0, down.stderr
        wait_until(lambda: not ray.servers(), 15, "no process is left")
        assert ray.records() == []
        assert ray.on_one_card_twice() == ""
