"""The speed of the last hour in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from obcd.cli import sparkline
from obcd.cli.live import draw
from obcd.cli.sparkline import LastHour, draw_sparkline
from obcd.spool.history.history_files import FOLDER, write_history
from obcd.spool.history.history_line import HistoryLine
from tests.unit.coordinator.history.test_minutes import VIEW

NOW = 1_795_370_000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that have passed."""
    passed = [0.0]
    monkeypatch.setattr(sparkline, "wall", lambda: NOW + passed[0])
    monkeypatch.setattr(sparkline, "monotonic", lambda: 1000.0 + passed[0])
    return passed


def test_each_value_is_a_block_and_what_is_not_known_a_space() -> None:
    assert draw_sparkline([0.0, 1.0, None, 4.0, 7.9, 8.0]) == "▁▂ ▅██"
    assert draw_sparkline([0.0, 0.0]) == "▁▁"
    assert draw_sparkline([]) == ""


def test_last_hour_has_a_block_for_each_minute_and_the_largest_speed(tmp_path: Path) -> None:
    for minute in range(90):
        write_history(tmp_path, HistoryLine(time=NOW - 60 * minute, seconds=60.0, output_tokens=60 * (100 - minute)))

    text = LastHour(tmp_path).text()

    blocks = text.partition(": ")[2].partition(" most")[0]
    assert (len(blocks), blocks[-1], " " in blocks) == (60, "█", False)
    assert text.endswith("most 100")


def test_history_is_read_again_after_half_a_minute(tmp_path: Path, clock: list[float]) -> None:
    last_hour = LastHour(tmp_path)
    assert last_hour.text() == ""
    write_history(tmp_path, HistoryLine(time=NOW, seconds=60.0, output_tokens=600))

    clock[0] = 29.0
    assert last_hour.text() == ""
    clock[0] = 31.0
    assert last_hour.text().endswith("most 10")


def test_history_that_may_not_be_read_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    (tmp_path / FOLDER).mkdir()
    monkeypatch.setattr(sparkline, "read_history", refuse)

    assert LastHour(tmp_path).text() == ""


def test_tables_have_the_line() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(draw(VIEW, "last hour, tokens/s: ▁█ most 10"))

    assert "▁█ most 10" in capture.get()
