"""The report of `obcd report` in a real browser: nothing is loaded, and axe-core finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.reports import gathering
from obcd.reports.gathering import report_job, report_period
from obcd.reports.report_page import draw_page
from tests.unit.reports.support import NOW, make_root
from tests.web.browser import Visit, browse

pytestmark = [pytest.mark.web, pytest.mark.timeout(300)]

PLOTS = "document.querySelectorAll('figure > svg').length"
#: Whether the page itself, and not only its tables, is wider than the screen.
OVERFLOW = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def test_report_loads_nothing_and_axe_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "wall", lambda: NOW)
    layout = make_root(tmp_path / "root")
    job = report_job(layout, "notes", None)
    assert job is not None
    pages = {"job": draw_page(job), "days": draw_page(report_period(layout, NOW - 1800, NOW, None))}
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page, "utf-8")
    visits = [
        Visit(
            url=(tmp_path / f"{name}.html").as_uri(), name=f"report-{name}-{scheme}-{width}", scheme=scheme,
            script=script, width=width, axe=True, actions=[("run", PLOTS), ("run", OVERFLOW)] if script else [],
        )
        for name, scheme, script, width in (
            ("job", "light", True, 1280), ("days", "dark", True, 375), ("days", "light", False, 1280),
        )
    ]  # fmt: skip

    found = browse(visits)

    assert {name: item.violations for name, item in found.items() if item.violations} == {}
    assert {name: item.messages for name, item in found.items() if item.messages} == {}
    assert {url for item in found.values() for url in item.requests} == {visit.url for visit in visits}
    assert [item.results for item in found.values() if item.results] == [[5, False]] * 2
