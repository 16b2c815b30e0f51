"""Progress where somebody watches: a notebook, a terminal, a log."""

from __future__ import annotations

import html
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from obcd.client.watching import progress
from obcd.client.watching.progress import NOT_YET, NotebookBar, PlainLines, Silent, find_progress_view
from obcd.coordinator.jobs.running_job import idle_view
from obcd.coordinator.view import JobState, JobView
from obcd.core.request.records import JobSettings
from obcd.spool.job.job_folder import JobHeader


def view(trouble: str = "") -> JobView:
    header = JobHeader(id="j", name="q.jsonl", requests=10, settings=JobSettings(model="m"))
    return idle_view(header, JobState.RUNNING, trouble)


class Cell:
    """The output of a cell: what is displayed there, and how often it is redrawn."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []

    def __call__(self, shown: Any, *, display_id: bool) -> Cell:
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.drawn.append(shown)


def test_notebook_shows_one_bar_that_is_redrawn_only_when_something_changed() -> None:
    cell = Cell()

    with NotebookBar("<q>", 10, cell, NOT_YET) as bar:
        bar.show(None)
        bar.show(view())
        bar.show(view())

    assert [repr(item) for item in cell.drawn] == [
        "<q>: waiting for the coordinator", "<q>: 0/10, 0 failed, 0 tokens/s, ETA -", "<q>: finished",
    ]  # fmt: skip
    shown = cell.drawn[-1]._repr_html_()
    assert 'value="10" max="10"' in shown
    assert html.escape("<q>") in shown


def test_trouble_is_shown_as_text() -> None:
    cell = Cell()

    bar = NotebookBar("q", 0, cell, NOT_YET)
    bar.__enter__()
    bar.show(view("no endpoint is up: <gpu0>"))
    bar.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    assert "&lt;gpu0&gt;" in cell.drawn[-1]._repr_html_()  # and it does not say that it is finished


def test_bar_of_a_notebook_is_for_a_kernel_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(kernel=object())
    display = SimpleNamespace(display=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)

    assert isinstance(find_progress_view("q", 1, wanted=None), NotebookBar)
    assert isinstance(find_progress_view("q", 1, wanted=False), Silent)
    shell.kernel = None
    assert type(find_progress_view("q", 1, wanted=None)) is Silent


def test_lines_of_a_log_come_only_on_request_and_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter((0.0, 1.0, 11.0, 11.0, 12.0, 22.0, 22.0))
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    assert type(find_progress_view("q", 1, wanted=None)) is Silent
    lines = find_progress_view("q", 1, wanted=True)
    assert isinstance(lines, PlainLines)

    for _ in range(4):
        lines.show(view())

    assert capsys.readouterr().err == "q: 0/10, 0 failed, 0 tokens/s, ETA -\n" * 2
