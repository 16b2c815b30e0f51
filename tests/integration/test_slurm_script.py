"""The script of a Slurm job with a coordinator, run by bash: who gets TERM, and when the other tasks end."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.slurm.script import render_script
from tests.support import wait_until
from tests.unit.slurm.test_script import PLAIN

pytestmark = pytest.mark.integration


class Task:
    """A task of a script with a coordinator; obcd and scancel are small programs that write down what happens."""

    def __init__(self, folder: Path, coordinator: str, number: int = 0, host: str = "true") -> None:
        self.folder = folder
        self._program("obcd", f'trap "echo $1 got TERM >> events; exit 0" TERM\necho "$1 starts" >> events\n'
                      f'case $1 in coordinator) {coordinator};; host) {host};; esac\nsleep 30 & wait')  # fmt: skip
        self._program("scancel", 'echo "scancel $*" >> events')
        wanted = replace(PLAIN, obcd=str(folder / "obcd"), idle_seconds=300.0)
        (folder / "script").write_text(render_script(wanted), "utf-8")
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(number),
                       "SLURM_ARRAY_JOB_ID": "4711"}  # fmt: skip
        self.process = subprocess.Popen(["bash", "script"], cwd=folder, env=environment, start_new_session=True)

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{text}\n", "utf-8")
        path.chmod(0o755)

    def events(self) -> list[str]:
        path = self.folder / "events"
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> int:
        code = self.process.wait(20)
        os.killpg(self.process.pid, signal.SIGKILL)  # the stand-ins' sleep
        return code


def test_a_coordinator_that_ends_by_itself_ends_the_job(tmp_path: Path) -> None:
    task = Task(tmp_path, "sleep 0.3; exit 0")

    assert task.end() == 0
    assert sorted(task.events()[:2]) == ["coordinator starts", "host starts"]
    assert task.events()[2:] == ["scancel --state=PENDING 4711", "scancel --batch --signal=TERM 4711", "host got TERM"]


def test_a_coordinator_that_fails_ends_the_job_with_its_code(tmp_path: Path) -> None:
    task = Task(tmp_path, "sleep 0.3; exit 4")

    assert task.end() == 4
    assert "scancel --batch --signal=TERM 4711" in task.events()


def test_a_host_that_fails_ends_the_job_with_its_code(tmp_path: Path) -> None:
    task = Task(tmp_path, "true", host="sleep 0.3; exit 6")

    assert task.end() == 6
    assert task.events()[2:] == [
        "coordinator got TERM", "scancel --state=PENDING 4711", "scancel --batch --signal=TERM 4711",
    ]  # fmt: skip


def test_a_host_that_ends_well_leaves_the_coordinator_to_the_other_tasks(tmp_path: Path) -> None:
    task = Task(tmp_path, "sleep 0.6; exit 4", host="sleep 30 & exit 0")

    assert task.end() == 4


def test_term_stops_the_coordinator_and_then_its_host_and_leaves_the_other_tasks_alone(tmp_path: Path) -> None:
    task = Task(tmp_path, "true")
    wait_until(lambda: len(task.events()) == 2)
    task.process.send_signal(signal.SIGTERM)

    assert task.end() == 0
    assert task.events()[2:] == ["coordinator got TERM", "host got TERM"]


def test_the_other_tasks_are_hosts_alone(tmp_path: Path) -> None:
    task = Task(tmp_path, "true", number=3)
    wait_until(lambda: task.events() == ["host starts"])
    task.process.send_signal(signal.SIGTERM)  # the host itself: the script became it

    assert task.end() == 0
    assert task.events() == ["host starts", "host got TERM"]
