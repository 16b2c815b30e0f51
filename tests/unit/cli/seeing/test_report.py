"""`obcd report`: which report is written where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.cli.seeing import report as report_command
from obcd.errors import ExitCode
from obcd.reports import gathering
from tests.golden.wording import wording
from tests.unit.reports.support import NOW, SECRET, make_root

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, beside a root with a history and one published job."""
    make_root(tmp_path / "root")
    monkeypatch.setenv("OBCD_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(gathering, "wall", lambda: NOW)
    monkeypatch.setattr(report_command, "wall", lambda: NOW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_is_written_and_its_figures_are_said(place: Path, capsys: Capture) -> None:
    assert run(["report", "notes", "-o", "notes.html"]) == ExitCode.DONE

    page = (place / "notes.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "id-notes" in page
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[0]) == ("", wording("report-is-written"))
    assert SECRET not in page + said.err


def test_without_a_job_the_report_is_on_the_last_days(capsys: Capture) -> None:
    assert run(["report", "--since", "20m", "--json"]) == ExitCode.DONE

    document = json.loads(capsys.readouterr().out)
    assert (document["subject"], document["responses"]) == ("period", 1200)
    assert document["start"] == NOW - 1200


def test_page_and_figures_come_together_and_standard_output_takes_the_page(place: Path, capsys: Capture) -> None:
    assert run(["report", "notes", "-o", "-"]) == ExitCode.DONE
    page = capsys.readouterr().out
    assert run(["report", "notes", "-o", "both.html", "--json"]) == ExitCode.DONE

    assert json.loads(capsys.readouterr().out)["jobs"][0]["job"] == "id-notes"
    assert (place / "both.html").read_text("utf-8")[:15] == page[:15]


def test_existing_file_is_replaced_only_on_request(place: Path) -> None:
    (place / "mine.html").write_text("mine", "utf-8")

    assert run(["report", "notes", "-o", "mine.html"]) == ExitCode.INPUT
    assert (place / "mine.html").read_text("utf-8") == "mine"
    assert run(["report", "notes", "-o", "mine.html", "--overwrite"]) == ExitCode.DONE
    assert (place / "mine.html").read_text("utf-8") != "mine"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], ExitCode.USAGE),
        (["notes", "--since", "7d", "--json"], ExitCode.USAGE),
        (["--json", "-o", "-"], ExitCode.USAGE),
        (["--since", "yesterday", "--json"], ExitCode.USAGE),
        (["--since", "0d", "--json"], ExitCode.USAGE),
        (["--since", "7\u0661d", "--json"], ExitCode.USAGE),
        (["absent", "--json"], ExitCode.INPUT),
        (["notes", "-o", "no-folder/notes.html"], ExitCode.INPUT),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: list[str], code: ExitCode, capsys: Capture) -> None:
    assert run(["report", *arguments]) == code
    assert capsys.readouterr().err.count("\n") >= 1


def test_folder_that_is_not_a_published_job_is_refused(place: Path) -> None:
    (place / "root" / "outbox" / "notes" / "manifest.json").write_text("{}", "utf-8")

    assert run(["report", "notes", "--json"]) == ExitCode.INPUT
