"""The page of a report: one file, escaped, that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obcd.reports import gathering
from obcd.reports.gathering import POINTS, report_job, report_period
from obcd.reports.report import Report, ReportedCard, ReportedEndpoint, ReportedIdle, ReportedJob
from obcd.reports.report_page import MOST_ROWS, draw_page, show_energy
from obcd.reports.svg_plot import Series, draw_plot, show_number
from obcd.spool.history.history_line import IDLE_WORDS, IdleReason
from obcd.spool.history.thinning import HistoryPoint
from tests.unit.reports.support import NOW, SECRET, make_root

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x1b[2J\udc80{{x}}"
#: Attributes that load something, or run something.
LOADING = {"src", "href", "srcset", "data", "action", "poster", "style"}


class Elements(HTMLParser):
    """The elements of a page, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Report, Report]]:
    """Yield a report on a job and one on a time."""
    layout = make_root(tmp_path_factory.mktemp("root"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "wall", lambda: NOW)
        job = report_job(layout, "notes", None)
        assert job is not None
        yield job, report_period(layout, NOW - 1800, NOW, None)


def test_page_shows_what_the_report_has(reports: tuple[Report, Report]) -> None:
    on_job, on_time = (Elements(draw_page(report)) for report in reports)

    for text in ("notes.jsonl", "id-notes", "llama3.2", "no_json", "8.3 Wh", "H100", IDLE_WORDS["endpoint_down"]):
        assert text in on_job.text
    for text in ("notes.jsonl", "36\u202f000", "200 Wh", "GPU-1", "h"):
        assert text in on_time.text
    assert on_job.open == on_time.open == []


def test_page_loads_nothing_runs_nothing_and_has_no_prompt(reports: tuple[Report, Report]) -> None:
    for report in reports:
        page = draw_page(report)
        found = Elements(page)

        assert not found.names & {"script", "link", "iframe", "object", "img", "form", "base", "a"}
        assert not found.attributes & LOADING
        assert not [name for name in found.attributes if name.startswith("on")]
        assert not re.search(r"https?:|url\(|@import", page)
        assert SECRET not in page


def hostile(report: Report) -> Report:
    job = replace(
        report.jobs[0], name=HOSTILE, profile=HOSTILE, job=HOSTILE, state=HOSTILE, models=(HOSTILE,),
        failures_by_class={HOSTILE: 3},
    )  # fmt: skip
    return replace(
        report,
        jobs=(job,),
        failures_by_class={HOSTILE: 1},
        retries_by_class={HOSTILE: 1},
        idle=(ReportedIdle(reason=HOSTILE, slot_seconds=1.0, share=0.1),),
        endpoints=(ReportedEndpoint(name=HOSTILE, host=HOSTILE, product=HOSTILE),),
        cards=(ReportedCard(uuid=HOSTILE, host=HOSTILE, product=HOSTILE),),
        notes=(HOSTILE,),
    )


def test_hostile_names_are_text(reports: tuple[Report, Report]) -> None:
    for report in reports:
        page = draw_page(hostile(report))

        plain, found = Elements(draw_page(report)), Elements(page)
        assert found.names <= plain.names
        assert found.attributes <= plain.attributes
        assert "<script>alert(1)</script>" in found.text
        assert not {"\u202e", "\x1b", "\udc80"} & set(page)
        page.encode()


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(10**30), 10**30))
def test_no_name_and_no_number_breaks_the_page(text: str, number: float, count: int) -> None:
    report = Report(
        obcd=text, made_at="2026-11-22T18:01:05.250Z", subject="job", start=NOW, end=NOW + 60, start_at="", end_at="",
        jobs=(ReportedJob(job=text, name=text, responses=count, output_tokens_per_second=number, seconds=number),),
        points=(HistoryPoint(time=NOW + 30, responses=number, slots=number, power_watts=number),),
        cards=(ReportedCard(uuid=text, joules=number, power_watts=number, memory_used_bytes=count),),
        notes=(text or "-",),
    )  # fmt: skip

    assert Elements(draw_page(report)).open == []


def test_page_of_a_large_cluster_is_small(reports: tuple[Report, Report]) -> None:
    points = tuple(
        HistoryPoint(
            time=NOW + 60.123 * n, responses=12345.678 + n, failures=1.234, prompt_tokens=98765.432,
            output_tokens=n * 1.1, waiting=1.0, slots=448.0, busy=447.123, idle=17.123, utilization=0.987,
            power_watts=12345.6,
        )
        for n in range(POINTS)
    )  # fmt: skip
    report = replace(
        reports[0], points=points, job_points=points, start=NOW, end=NOW + 61.0 * POINTS,
        idle=tuple(ReportedIdle(reason=reason, slot_seconds=1e6, share=0.1) for reason in IdleReason),
        endpoints=tuple(ReportedEndpoint(name=f"gpu-host-{n}", host="gpu", product="H" * 40) for n in range(500)),
        cards=tuple(ReportedCard(uuid=f"GPU-{n:032}", host="gpu", product="H" * 40) for n in range(500)),
    )  # fmt: skip
    jobs = tuple(ReportedJob(job=f"{n}", name="x" * 250, profile="p" * 50) for n in range(200))

    for made in (report, replace(report, subject="period", jobs=jobs)):
        assert len(draw_page(made).encode()) <= 300_000
    assert draw_page(report).count("gpu-host-") == MOST_ROWS


def test_gap_divides_a_line_and_a_lonely_point_shows() -> None:
    times = [float(n) for n in range(6)]
    drawn = draw_plot("T", "u", times, [Series("a", [1.0, 2.0, None, 3.0, None, 2.0])], (0.0, 5.0))

    (path,) = re.findall(r'class="line s0" d="(M[^"]*h0[^"]*)"', drawn)
    assert (path.count("M"), path.count("L")) == (3, 1)


def test_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    drawn = draw_plot("T", "u", [0.0, 10.0], [Series("a", [0.0, 4.0])], (0.0, 10.0))

    assert 'd="M68.0 164.0h0L752.0 12.0"' in drawn


def test_plot_without_a_value_says_so() -> None:
    assert "<svg" not in draw_plot("T", "u", [0.0], [Series("a", [None])], (0.0, 1.0))


def test_plot_is_described_in_words_for_those_who_do_not_see_it() -> None:
    drawn = draw_plot("Tokens", "each second", [0.0, 1.0], [Series("output", [10.0, 30.0])], (0.0, 1.0))

    assert 'role="img" aria-label="Tokens. output: mean 20, most 30 each second"' in drawn


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.0123, "0.012"), (1.44, "1.4"), (2.0, "2"), (36.6, "37"), (12345.0, "12\u202f345")],
)
def test_number_is_short(value: float, shown: str) -> None:
    assert show_number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.52, "0.52 Wh"), (37.2, "37 Wh"), (1190.0, "1.19 kWh")])
def test_energy_has_its_unit(value: float, shown: str) -> None:
    assert show_energy(value) == shown


def test_every_reason_has_words() -> None:
    assert set(IDLE_WORDS) == set(IdleReason)
