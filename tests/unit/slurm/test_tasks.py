"""The commands that end tasks: only those of this user, and only what is a number of Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.errors import ExitCode, InputError
from obcd.slurm import tasks


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the calls of Slurm's programs; this user has job 4711 alone."""
    made: list[list[str]] = []

    def call(command: list[str], _: str = "") -> str:
        made.append(command)
        return "4711_0\n" if "--jobs=4711" in command else ""

    monkeypatch.setattr(tasks, "_call", call)
    return made


def test_job_of_another_user_is_not_passed_over_in_silence(calls: list[list[str]]) -> None:
    with pytest.raises(InputError, match="4712"):
        tasks.cancel("obcd", ["4711", "4712"], is_now=False)

    assert [command[0] for command in calls] == ["squeue", "squeue"]  # nothing has ended


def test_own_job_ends_and_no_other_user_s(calls: list[list[str]]) -> None:
    tasks.cancel("obcd", ["4711"], is_now=True)

    assert calls[-1][0] == "scancel"
    assert any(word.startswith("--user=") for word in calls[-1])


@pytest.mark.parametrize("job", ["5_", "_5", "4711_2_3", "--me", "4711 4712", "\u0663", "9" * 5000, "obcd\x1b[2J"])
def test_what_is_no_job_reaches_no_program(
    calls: list[list[str]], job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert run(["slurm", "cancel", "--", job]) == ExitCode.USAGE
    assert calls == []
