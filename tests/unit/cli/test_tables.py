"""Rows of figures where no person watches, and where one does."""

from __future__ import annotations

import io
import sys

import pytest

from obcd.cli.tables import print_rows

ROWS = [("gpu1:11432", "1", "60.5", ""), ("gpu1:11432", "16", "287.5", "knee"), ("[b]:1", "1", "9.0", "")]


class Terminal(io.StringIO):
    """What takes text for a person."""

    def isatty(self) -> bool:
        return True


def test_lines_are_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("endpoint", ">in flight", ">tokens/s", ""), ROWS)

    assert capsys.readouterr().out.splitlines() == [
        "endpoint    in flight  tokens/s",
        "gpu1:11432          1      60.5",
        "gpu1:11432         16     287.5  knee",
        "[b]:1               1       9.0",
    ]


def test_terminal_gets_the_same_figures_and_no_name_is_taken_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", Terminal())

    print_rows(("endpoint", ">in flight", ">tokens/s", ""), ROWS)

    shown = screen.getvalue()
    assert "287.5" in shown
    assert "[b]:1" in shown


def test_no_rows_are_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(("endpoint",), [])

    assert capsys.readouterr().out == ""
