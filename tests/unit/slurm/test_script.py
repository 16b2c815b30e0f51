"""The script of a Slurm job, as a person reads it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.errors import UsageError
from obcd.slurm.script import HostArray, render_script

PLAIN = HostArray(
    obcd="/opt/obcd/bin/obcd",
    name="obcd",
    tasks=4,
    gres="gpu:2",
    hosts=Path("/shared/hosts"),
    logs=Path("/shared/logs"),
)


def test_the_script_requests_an_array_and_becomes_a_host() -> None:
    lines = render_script(replace(PLAIN, limits=("time=04:00:00",))).splitlines()

    assert lines[0] == "#!/bin/bash"
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")] == [
        "--job-name=obcd", "--array=0-3", "--gres=gpu:2", "--time=04:00:00", "--output=/shared/logs/%x-%A_%a.log",
        "--requeue", "--open-mode=append", "--signal=B:TERM@120",
    ]  # fmt: skip
    assert lines[-1] == "exec /opt/obcd/bin/obcd host --register /shared/hosts --gpus given --port 0"


def test_paths_are_quoted_and_models_setup_and_configuration_are_in_it() -> None:
    wanted = replace(PLAIN, hosts=Path("/a b/hosts"), logs=Path("/a b"), models=Path("/m'n"), setup=("module load x",),
                     configuration=Path("/c.toml"), ports="20000-20999")  # fmt: skip
    script = render_script(wanted)

    assert '#SBATCH "--output=/a b/%x-%A_%a.log"' in script
    assert f"export OLLAMA_MODELS={shlex.quote(str(wanted.models))}" in script
    assert script.index("module load x") < script.index("set -eu")  # a site's shell functions may use unset variables
    assert script.endswith("'/a b/hosts' --gpus given --port 20000-20999 --config /c.toml\n")


@pytest.mark.parametrize("logs", ["/a\nb", '/a"b', "/a\\b"])
def test_what_cannot_stand_in_a_line_is_refused(logs: str) -> None:
    with pytest.raises(UsageError):
        render_script(replace(PLAIN, logs=Path(logs)))
