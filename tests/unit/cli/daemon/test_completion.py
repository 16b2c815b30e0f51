"""Which words fit at each place of a command line; the shells get them, and nothing where something is wrong."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from obcd.cli.daemon.completion import find_words
from obcd.cli.main import COMMANDS, COMPLETE_VARIABLE, cli, run
from obcd.coordinator.view import DaemonState, FurtherJobView, JobState, View
from obcd.install.completion import PLACES, VARIABLE, script
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from tests.support import wait_until

CONFIGURATION = """\
[ollama_instances]
"gpu1:11432" = 0
"gpu1:11433" = 1
[profiles.clinical]
[profiles.nightly]
"""
JOBS = (("clinical", "notes.jsonl", JobState.RUNNING), ("", "my texts.jsonl", JobState.PAUSED))


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a spool with a running and a paused job, and one that is published with failures."""
    monkeypatch.setenv("OBCD_ROOT", str(tmp_path / "spool"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("OBCD_CONFIG", str(tmp_path / "obcd.toml"))
    (tmp_path / "obcd.toml").write_text(CONFIGURATION, "utf-8")
    layout = Layout.at(tmp_path / "spool")
    jobs = tuple(
        FurtherJobView(job=f"20261130T13334{i}-aa", profile=profile, name=name, state=state)
        for i, (profile, name, state) in enumerate(JOBS)
    )
    layout.status.parent.mkdir(parents=True)
    view = View(
        version="1", pid=1, state=DaemonState.READY, updated=time.time(), updated_at="now", further_jobs=jobs,
        root=str(layout.root), inbox=str(layout.inbox), outbox=str(layout.outbox),
    )  # fmt: skip
    disk.write_json(layout.status, view.to_json())
    for name in ("clinical/old", "fine"):
        (layout.outbox / name).mkdir(parents=True)
    (layout.outbox / "clinical/old/retry.jsonl").touch()
    return layout


def words(*line: str) -> list[str]:
    """Return what fits in place of the last word of a line."""
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in find_words(cli, line[:-1], line[-1])]


@pytest.mark.usefixtures("spool")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        (["can"], ["cancel"]),
        (["host-w"], []),
        (["submit", "--profile", ""], ["clinical", "nightly"]),
        (["batch", "--profile", "n"], ["nightly"]),
        (["submit", "--prof"], ["--profile"]),
        (["submit", "--config", "x"], ["<file>"]),
        (["status", "--root", ""], ["<dir>"]),
        (["submit", ""], ["<file>"]),
        (["cancel", ""], ["clinical/notes.jsonl", "my texts.jsonl"]),
        (["cancel", "clinical/notes.jsonl", "m"], ["my texts.jsonl"]),
        (["cancel", "2026"], ["20261130T133340-aa", "20261130T133341-aa"]),
        (["pause", ""], ["clinical/notes.jsonl"]),
        (["resume", ""], ["my texts.jsonl"]),
        (["priority", "--timeout", "3", "c"], ["clinical/notes.jsonl"]),
        (["priority", "clinical/notes.jsonl", ""], []),
        (["retry", ""], ["clinical/old"]),
        (["retry", "./"], ["<dir>"]),
        (["bench", "gpu1:11433"], ["gpu1:11433"]),
        (["bench", "--json", ""], ["gpu1:11432", "gpu1:11433"]),
        (["completion", "b"], ["bash"]),
        (["host", "rest"], ["restart"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_words_that_fit(line: list[str], found: list[str]) -> None:
    assert [word for word in words(*line) if word not in ("-h", "--help")] == found


def test_all_commands_are_offered_without_importing_one() -> None:
    code = "import sys; from obcd.cli.main import run; run([]); print([m for m in sys.modules if 'pydantic' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": "obcd ", "COMP_CWORD": "1"},
    )  # fmt: skip

    *offered, imported = done.stdout.splitlines()
    assert offered == [f"plain,{name}" for name, place in COMMANDS.items() if place.short_help]
    assert imported == "[]"


@pytest.mark.parametrize(
    ("line", "position", "said"),
    [
        ("obcd\ncancel\nm", 2, "plain,'my texts.jsonl'\n"),
        ("obcd\nbench\ngpu1\n:\n1143", 4, "plain,11432\nplain,11433\n"),
        ("obcd\nbench\ngpu1\n:", 3, "plain,11432\nplain,11433\n"),
        ("obcd\nsubmit\n--profile\n=\ncl", 4, "plain,clinical\n"),
        ("obcd\nsubmit\n--profile\n=", 3, "plain,clinical\nplain,nightly\n"),
    ],
)
@pytest.mark.usefixtures("spool")
def test_bash_gets_words_as_it_breaks_and_quotes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, position: int, said: str
) -> None:
    for name, value in ((VARIABLE, "bash_complete"), ("COMP_WORDS", line), ("COMP_CWORD", str(position))):
        monkeypatch.setenv(name, value)

    assert run([]) == 0

    assert capsys.readouterr() == (said, "")


@pytest.mark.parametrize("wanted", ["bash_complete", "bash_source", "tcsh_complete"])
def test_nothing_is_said_of_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, wanted: str
) -> None:
    (tmp_path / "obcd.toml").write_text("[profiles", "utf-8")
    monkeypatch.setenv("OBCD_CONFIG", str(tmp_path / "obcd.toml"))
    for name, value in ((VARIABLE, wanted), ("COMP_WORDS", "obcd submit --profile "), ("COMP_CWORD", "3")):
        monkeypatch.setenv(name, value)

    run([])

    assert "".join(capsys.readouterr()).strip() == ""


@pytest.mark.parametrize("shell", PLACES)
def test_command_prints_a_script_that_calls_back(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0

    assert capsys.readouterr().out == script(shell)
    assert f"{COMPLETE_VARIABLE}={shell}_complete" in script(shell)


@pytest.fixture
def shell_environment(spool: Layout, tmp_path: Path) -> Mapping[str, str]:
    """Return an environment with `obcd` on PATH, and the scripts where `obcd completion` would write them."""
    program = tmp_path / "bin" / "obcd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m obcd "$@"\n', "utf-8")
    program.chmod(0o755)
    (tmp_path / "_obcd").write_text(script("zsh"), "utf-8")
    (tmp_path / "obcd.fish").write_text(script("fish"), "utf-8")
    (tmp_path / "obcd.bash").write_text(script("bash"), "utf-8")
    path = f"{program.parent}:{os.environ['PATH']}"
    home = {"HOME": str(tmp_path), "TERM": "dumb", "PS1": "", "PYTHONPATH": os.getcwd()}
    return {**os.environ, **home, "PATH": path, "OBCD_ROOT": str(spool.root)}


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not on this machine")


@pytest.mark.integration
@needs("bash")
def test_bash_completes(shell_environment: Mapping[str, str], tmp_path: Path) -> None:
    code = (
        f"source {tmp_path}/obcd.bash; COMP_WORDS=(obcd pause cl); COMP_CWORD=2; _obcd_completion obcd; "
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p obcd'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code], env=shell_environment, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines()[0] == "clinical/notes.jsonl"
    assert "_obcd_completion" in done.stdout.splitlines()[1]
    assert done.stderr == ""


@pytest.mark.integration
@needs("fish")
def test_fish_completes(shell_environment: Mapping[str, str], tmp_path: Path) -> None:
    code = f"source {tmp_path}/obcd.fish; complete -C 'obcd submit --profile c'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", code],
        env=shell_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.splitlines() == ["clinical"]


@pytest.mark.integration
@needs("zsh")
def test_zsh_completes(shell_environment: Mapping[str, str], tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=follower, stdout=follower, stderr=follower, env=shell_environment
    )
    os.close(follower)
    said = b""

    def is_said(text: bytes) -> bool:
        nonlocal said
        said += os.read(leader, 4096)
        return text in said

    try:
        start = f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u; print r'eady'\n"
        os.write(leader, start.encode())
        wait_until(lambda: is_said(b"\nready"), 60)
        os.write(leader, b"obcd pause cl\t")
        wait_until(lambda: is_said(b"clinical/notes.jsonl"), 60)
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)
