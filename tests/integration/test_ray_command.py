"""`obcd ray` without Ray: what it refuses, what it shows, and one sentence for what Ray does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.errors import ExitCode
from obcd.ray import link
from obcd.ray.messages import GuardState, ServerReport
from tests.golden.wording import wording
from tests.support import make_environment, run_here

pytestmark = pytest.mark.integration

Ran = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    environment = make_environment(tmp_path)
    environment.pop("RAY_ADDRESS", None)
    return lambda *words: run_here(environment, "ray", *words)


def answer(monkeypatch: pytest.MonkeyPatch, *lines: dict[str, object]) -> None:
    """Let the session say some lines."""
    script = "\n".join(f"print({json.dumps(line)!r}, flush=True)" for line in lines)
    monkeypatch.setattr(link, "COMMAND", (sys.executable, "-ISc", script))


@pytest.mark.parametrize(
    "words",
    [
        ["up", "--register", "x", "--min", 3, "--max", 2],
        ["up", "--register", "x", "--port", "70000"],
        ["up", "--register", "x", "--address", "ray://10.0.0.1:10001"],
        ["up", "--register", "x", "--namespace", "../x"],
        ["status", "--namespace", ""],
    ],
)
def test_what_has_no_meaning_is_refused(ran: Ran, words: list[object]) -> None:
    assert ran(*words).returncode == ExitCode.USAGE


def test_a_hosts_folder_is_needed_and_must_exist(ran: Ran, tmp_path: Path) -> None:
    assert ran("up").returncode == ExitCode.USAGE
    assert ran("up", "--register", tmp_path / "none").returncode == ExitCode.INPUT


def test_a_head_that_is_not_there_is_one_sentence(ran: Ran) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

    done = ran("status", "--address", address)

    assert done.returncode == ExitCode.NO_ENDPOINT
    assert wording("no-ray-head-answers", f"at {address}") in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_ray_one_sentence_names_the_extra(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.modules['ray'] = None; from obcd.ray.session import main; sys.exit(main(sys.argv))"
    monkeypatch.setattr(link, "COMMAND", (sys.executable, "-c", script))

    done = ran("status")

    assert done.returncode == ExitCode.NO_ENDPOINT
    assert "pip install 'obcd[ray]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_shows_each_server_and_what_is_wrong(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    reports = {
        "0": ServerReport(state=GuardState.SERVING, node="n1", gpu=3, url="http://10.0.0.11:11432").to_json(),
        "1": ServerReport(node="n2", trouble="there is no program `ollama` on PATH").to_json(),
        "2": None,
    }
    answer(monkeypatch, {"kind": "connected"}, {"kind": "result", "gpus": 4, "free": 1, "servers": reports})

    shown = ran("status")
    lines = shown.stdout.splitlines()

    assert shown.returncode == ExitCode.DONE, shown.stderr
    assert lines[0].split() == ["0", "serving", "n1:3", "http://10.0.0.11:11432"]
    assert lines[1].endswith("there is no program `ollama` on PATH")
    assert lines[2].split()[:2] == ["2", "waiting"]
    assert lines[3].startswith("3 servers on 4 GPUs, 1 free; ")
    assert json.loads(ran("status", "--json").stdout)["servers"] == reports


def test_down_says_how_many_ended_and_how_many_were_cut_off(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(
        monkeypatch, {"kind": "connected"}, {"kind": "beat", "servers": 2}, {"kind": "result", "ended": 2, "cut_off": 1}
    )

    done = ran("down")

    assert done.returncode == ExitCode.DONE
    assert done.stderr == "2 servers ended, 1 of them cut off\n"
