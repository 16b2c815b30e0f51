"""Messages have one line, whatever other programs wrote down and whatever is wrong on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from obcd.cli import main
from obcd.cli.daemon import reload
from obcd.cli.jobs import wait
from obcd.coordinator.view import ReloadView
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox import publication
from obcd.spool.submit.dropping import Submitted


@pytest.mark.parametrize("is_ok", [True, False])
def test_outcome_of_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_ok: bool
) -> None:
    outcome = ReloadView(number=1, began=0.0, is_ok=is_ok, text="one\ntwo\x1b[2J", exit_code=4)
    monkeypatch.setattr(reload, "ask_to_reload", lambda *_: outcome)

    code = main.run(["reload", "--root", str(tmp_path)])

    assert code == (0 if is_ok else 4)
    assert (
        capsys.readouterr().err == ("" if is_ok else "obcd: ") + "one\ntwo\\x1b[2J\n"
    )  # each fault of a configuration has its line


def test_reason_of_a_rejection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: tuple[Path, dict[str, Any]] = (tmp_path, {"rejected": "one\ntwo\x1b[2J"})
    monkeypatch.setattr(publication, "find_published", lambda *_: found)
    drop = Submitted(name="a.jsonl", profile="", drop_id="", prompts=1, bad=0, bad_lines=())

    code = wait.wait_for_all([drop], Layout.at(tmp_path), None, quiet=True)

    assert code == 5
    assert capsys.readouterr().err == f"a.jsonl was rejected: one\\ntwo\\x1b[2J; see {tmp_path}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["verify"], "obcd: Missing argument 'FOLDER...' (see obcd verify --help)\n"),
        (["statu"], "obcd: No such command 'statu' (see obcd --help)\n"),
        (
            ["submit"],
            "obcd: nothing to drop: give FILE…, - for standard input, or --from DIR (see obcd submit --help)\n",
        ),
        (["completion"], None),
    ],
)
def test_wrong_command_line(arguments: list[str], text: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert text in (said.err, None)


def test_command_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    main.run([])

    said = capsys.readouterr()
    assert (said.out + said.err).startswith("Usage: obcd [OPTIONS] COMMAND")
