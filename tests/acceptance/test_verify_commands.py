"""`obcd verify` and the installation's part of `obcd check` as people and scripts meet them: words, codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from obcd.cli.main import run
from obcd.diagnostics.findings import right
from obcd.errors import ExitCode
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.acceptance import accept
from tests.golden.wording import wording
from tests.unit.spool.spools import accept_bytes, answer, drop_of, failure, finish, order_of, put, record

pytestmark = pytest.mark.acceptance

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("OBCD_ROOT", "OBCD_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def layout(layout: Layout) -> Layout:
    for path in (layout.root, layout.inbox):
        path.chmod(0o755)
    return layout


def publish(layout: Layout, name: str = "notes.jsonl") -> Path:
    """Publish thirty lines, two of which failed and one of which was cut short."""
    job = name.removesuffix(".jsonl")
    header = accept_bytes(layout, b'{"prompt": "p"}\n' * 30, job, name)
    record(layout, job, [failure(3), failure(20), answer(7, done_reason="length")])
    return finish(layout, header)


def installation(capsys: Capture, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run `obcd check --json` and return its code and what it found of the installation."""
    code = run(["check", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)["installation"]


# --- verify ----------------------------------------------------------------------------------------------------------


def test_complete_folders_are_said_in_a_line_each(layout: Layout, capsys: Capture) -> None:
    publish(layout)
    put(layout, b"\x1f\x8b", "zip.jsonl")
    accept(layout, order_of(drop_of(layout.inbox / "zip.jsonl"), "job9"))

    code = run(["verify", str(layout.outbox)])

    assert capsys.readouterr().out == (wording("notes-30-lines-28-answered-1"))
    assert code == ExitCode.DONE


def test_what_is_wrong_is_listed_and_is_exit_code_three(layout: Layout, capsys: Capture) -> None:
    folder = publish(layout)
    responses = (folder / "responses.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "responses.jsonl").write_bytes(b"".join(responses[:5] + responses[:15]))
    (layout.outbox / "other.partial").mkdir()

    code = run(["verify", str(folder), str(layout.outbox / "other.partial")])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "notes: 13 faults"
    assert lines[1] == wording("responses-jsonl-line-6-it-is")
    assert lines[11:] == [
        "  … and 3 more",
        wording("other-partial-it-stands-for-a"),
    ]
    assert code == ExitCode.PARTIAL


def test_folder_that_is_no_job_is_exit_code_five(tmp_path: Path, layout: Layout, capsys: Capture) -> None:
    publish(layout)
    name = tmp_path / "no\x1b[2Jne"

    code = run(["verify", str(layout.outbox), str(name)])

    assert capsys.readouterr().out.endswith(wording("no-x1b-2jne-there-is-no"))
    assert code == ExitCode.INPUT


def test_verify_speaks_json_a_line_a_folder(layout: Layout, capsys: Capture) -> None:
    folder = publish(layout)
    (publish(layout, "other.jsonl") / "responses.jsonl").unlink()

    code = run(["verify", "--json", str(layout.outbox)])

    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "folder": str(folder),
        "name": "notes",
        "verdict": "complete",
        "requests": 30,
        "responses": 28,
        "failures": 2,
        "cut_short": 1,
        "by_retries": {},
        "problems": [],
        "problem_count": 0,
        "reason": "",
    }
    assert (second["verdict"], second["problems"][0]) == ("wrong", "responses.jsonl is missing")
    assert second["problem_count"] > len(second["problems"]) == 10
    assert code == ExitCode.PARTIAL


def test_verify_without_a_folder_is_a_wrong_command_line() -> None:
    assert run(["verify"]) == ExitCode.USAGE


def test_folder_that_may_only_be_read_is_verified(layout: Layout) -> None:
    folder = publish(layout)
    for path in folder.iterdir():
        path.chmod(0o440)
    folder.chmod(0o550)
    command = [sys.executable, "-m", "obcd", "verify", str(folder)]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[2]
    )

    folder.chmod(0o750)  # for pytest, which clears it away
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("notes: 30 lines")


# --- check -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    """Return a configuration whose endpoint refuses at once."""
    config = tmp_path / "obcd.toml"
    config.write_text('[ollama_instances]\n"127.0.0.1:1" = 0\n', "utf-8")
    return str(config)


def test_check_of_a_laptop_without_a_spool_says_one_line(
    nobody: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.diagnostics.installation.read_orphans", lambda *_: [])  # what else runs on this machine

    code = run(["check", "--config", nobody])

    said = capsys.readouterr().out.splitlines()
    assert said[1:3] == [
        wording("inbox-of-a-daemon-obcd-inbox", tmp_path),
        wording("note-there-is-no-spool-at", tmp_path),
    ]
    assert said[3].startswith("endpoint 127.0.0.1:1 ")
    assert code == ExitCode.NO_ENDPOINT
    assert not (tmp_path / "obcd").exists()


def test_check_says_what_is_wrong_before_the_endpoints_and_what_mends_it(
    nobody: str, layout: Layout, capsys: Capture
) -> None:
    layout.jobs.chmod(0o755)

    code = run(["check", "--config", nobody, "--root", str(layout.root)])

    said = capsys.readouterr().out.splitlines()
    place = said.index(f"fault: {layout.jobs} has mode 0755: other users may access the prompts in it")
    assert said[place + 1] == f"    chmod 0700 {layout.jobs}"
    assert place < next(number for number, line in enumerate(said) if line.startswith("endpoint"))
    assert "installation: right" not in said
    assert code == ExitCode.NO_ENDPOINT  # the endpoints' own code goes first


def test_fault_of_the_installation_is_exit_code_five_when_the_endpoints_are_right(
    nobody: str, layout: Layout, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.cli.daemon.check._verdict", lambda findings, homeless: ExitCode.DONE)
    arguments = ["--config", nobody, "--root", str(layout.root)]

    before, _ = installation(capsys, *arguments)
    layout.jobs.chmod(0o755)
    after, found = installation(capsys, *arguments)

    assert (before, after) == (ExitCode.DONE, ExitCode.INPUT)
    assert {
        "subject": "folders",
        "severity": "fault",
        "sentence": wording("has-mode-0755-others-may-come", layout.jobs),
        "remedy": f"chmod 0700 {layout.jobs}",
    } in found


def test_check_says_right_when_all_is(
    nobody: str, layout: Layout, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.cli.daemon.check.examine", lambda question: [right("lock", "a coordinator runs")])

    run(["check", "--config", nobody, "--root", str(layout.root)])

    assert capsys.readouterr().out.splitlines()[2] == "installation: right"


def test_orphaned_server_is_found_among_the_real_processes(layout: Layout, capsys: Capture, nobody: str) -> None:
    """Its parent ends at once, so that it becomes the child of process 1 or of a subreaper; none is a supervisor."""
    script = (
        "import os, sys\n"
        "os.environ['OBCD_SLOT'] = sys.argv[1]\n"
        "reader, writer = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.execvp('sleep', ['sleep', '60'])\n"
        "os.close(writer)\n"
        "os.read(reader, 1)  # ends when the child is a sleep: the pipe is closed then\n"
    )
    marker = f"{layout.root}:gpu7"
    subprocess.run([sys.executable, "-c", script, marker], check=True, timeout=30, stdout=subprocess.DEVNULL)

    _, found = installation(capsys, "--config", nobody, "--root", str(layout.root))

    servers = [item for item in found if item["subject"] == "servers" and "slot gpu7 " in item["sentence"]]
    pids = [int(pid) for item in servers for pid in item["remedy"].split()[1:]]
    mine = [pid for pid in pids if marker.encode() in Path(f"/proc/{pid}/environ").read_bytes()]
    for pid in mine:
        os.kill(pid, 9)
    assert len(mine) == 1
    assert servers[0]["severity"] == "warning"
