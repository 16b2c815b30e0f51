"""The calls to Slurm's programs, with stand-ins for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.errors import InputError, NoEndpointError
from obcd.slurm.tasks import SlurmTask, cancel, list_tasks, submit
from tests.golden.wording import wording

pytestmark = pytest.mark.integration


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Install a program of Slurm, which writes its arguments to `calls`."""
    monkeypatch.setenv("PATH", str(tmp_path))
    calls = tmp_path / "calls"

    def install(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{text}\n', "utf-8")
        path.chmod(0o755)
        return calls

    return install


def test_the_script_goes_to_sbatch_and_the_job_s_number_comes_back(install: Callable[[str, str], Path]) -> None:
    install("sbatch", 'read line; [ "$line" = "#!/bin/bash" ] && echo "4711;cluster"')

    assert submit("#!/bin/bash\n") == "4711"


def test_tasks_are_read_with_what_they_wait_for(install: Callable[[str, str], Path]) -> None:
    calls = install(
        "squeue", 'echo "4711_0|RUNNING|n1|3:59:12|None"; echo "4711_1|PENDING||4:00:00|(Priority)"; echo x'
    )

    assert list_tasks("obcd") == [
        SlurmTask("4711_0", "RUNNING", "n1", "3:59:12", "None"),
        SlurmTask("4711_1", "PENDING", "", "4:00:00", "(Priority)"),
    ]
    assert "--name=obcd" in calls.read_text()


def test_what_waits_ends_and_what_runs_gets_term(install: Callable[[str, str], Path]) -> None:
    install("squeue", "echo 4711_2")
    calls = install("scancel", "")

    cancel("obcd", ["4711_2"], is_now=False)

    pending, running = [line for line in calls.read_text().splitlines() if line.startswith("scancel")]
    assert pending.startswith("scancel --state=PENDING --user=")
    assert running.startswith("scancel --state=RUNNING --batch --signal=TERM --user=")
    assert pending.endswith(" 4711_2")
    assert running.endswith(" 4711_2")
    cancel("obcd", [], is_now=True)
    assert calls.read_text().splitlines()[-1].endswith("--name=obcd")


def test_slurm_s_refusal_is_one_sentence(install: Callable[[str, str], Path]) -> None:
    install("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2\necho 'sbatch: error: no' >&2\nexit 1")

    with pytest.raises(InputError, match=wording("sbatch-refuses-sbatch-error-invalid")):
        submit("#!/bin/bash\n")


def test_a_machine_without_slurm_is_said(install: Callable[[str, str], Path]) -> None:
    with pytest.raises(NoEndpointError, match=wording("there-is-no-sbatch-on-this")):
        submit("#!/bin/bash\n")
