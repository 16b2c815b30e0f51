"""What a Slurm task is called, and when it ends."""

from __future__ import annotations

import time

import pytest

from obcd.host.servers.allocation import Allocation, allocation_name, read_allocation
from obcd.host.servers.runtime import folder_to_start

TASK = {"SLURM_JOB_ID": "4713", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "2"}


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "4711"}, "slurm-4711"),
        ({"SLURM_JOB_ID": "../../a\n\x1b[2J"}, "slurm-------a---2J"),
        ({"SLURM_JOB_ID": "9" * 5000}, f"slurm-{'9' * 32}"),
        (TASK, "slurm-4711_2"),
        ({**TASK, "RAY_RAYLET_PID": "9"}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, "slurm-7.3"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, "slurm-7"),
    ],
)
def test_a_task_has_a_name_of_its_own(environ: dict[str, str], name: str) -> None:
    assert allocation_name(environ) == name


def test_the_end_is_in_the_environment_or_in_slurm_s_record() -> None:
    end = int(time.time()) + 600
    record = time.strftime("JobId=4713 TimeLimit=00:10:00 EndTime=%Y-%m-%dT%H:%M:%S Deadline=N/A", time.localtime(end))
    wanted = Allocation("slurm-4711_2", "slurm 4711_2", float(end))

    assert read_allocation({**TASK, "SLURM_JOB_END_TIME": str(end)}, lambda _: "") == wanted
    assert read_allocation(TASK, lambda job: record if job == "4713" else "") == wanted
    assert read_allocation({}) is None


@pytest.mark.parametrize(
    "record", ["", "JobId=4713 EndTime=Unknown", "slurm_load_jobs error: Invalid job id", "EndTime="]
)
def test_an_end_that_is_not_known_is_none(record: str) -> None:
    found = read_allocation(TASK, lambda _: record)
    assert found is not None
    assert found.until is None


def test_an_end_that_no_record_can_hold_is_not_known() -> None:
    found = read_allocation({**TASK, "SLURM_JOB_END_TIME": "9" * 400}, lambda _: "")
    assert found is not None
    assert found.until is None


def test_two_tasks_of_a_machine_have_two_runtime_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/is-not-there")  # the login node's, passed on by sbatch
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    folders = set()
    for task in ("2", "3"):
        for name, value in {**TASK, "SLURM_ARRAY_TASK_ID": task}.items():
            monkeypatch.setenv(name, value)
        folders.add(folder_to_start())

    assert len(folders) == 2
    assert all(not str(folder).startswith("/run/user") for folder in folders)
