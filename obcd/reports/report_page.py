"""The page of a report: one file of HTML that needs no script and nothing from elsewhere. Pure.

All text passes through `obcd.core.markup`, which escapes it: names of jobs are chosen by people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from obcd.clock import seconds_of
from obcd.core.markup import Child, Markup, join, tag
from obcd.reports.report import Report, ReportedEnergy, ReportedJob
from obcd.reports.svg_plot import Series, Values, draw_plot, local_time, show_number
from obcd.spool.history.history_line import IDLE_WORDS
from obcd.spool.history.thinning import HistoryPoint
from obcd.text import duration, plural

#: The most endpoints and cards that a page lists; the JSON has all.
MOST_ROWS = 128
GIB = 2**30
#: A figure that is not known.
UNKNOWN = "–"

STYLE = Markup(
    """
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --soft: #59636e; --edge: #d1d9e0; --box: #f6f8fa;
 --s0: #0060a8; --s1: #b34700; --s2: #00684a; }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --text: #e6edf3; --soft: #9ea7b3; --edge: #3d444d;
 --box: #161b22; --s0: #58b4f5; --s1: #ff9e57; --s2: #4cc9a0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--back); color: var(--text);
 font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.when, p.none, footer { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .5rem; margin: 1rem 0; }
dl div { background: var(--box); border: 1px solid var(--edge); border-radius: 6px; padding: .4rem .7rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--edge); vertical-align: top; }
th.n, td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.name { overflow-wrap: anywhere; min-width: 8rem; }
figure { margin: 1rem 0 1.5rem; } figcaption { font-weight: 600; }
figure svg { max-width: 100%; vertical-align: middle; }
svg text { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--edge); stroke-width: 1; fill: none; }
.line { fill: none; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); stroke-dasharray: 7 4; }
.s2 { stroke: var(--s2); stroke-dasharray: 1 5; stroke-width: 3; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; margin: 0; padding: 0;
 font-size: .92rem; }
ul.notes { padding-left: 1.2rem; } a { color: var(--s0); }
@media (max-width: 40rem) { svg text { font-size: 18px; } }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } }
"""
)

Row = Sequence[Child]


def draw_page(report: Report) -> str:
    """Return the page, without a line about what it does not know."""
    title = f"obcd: {report.jobs[0].label}" if report.subject == "job" else "obcd: what ran"
    sections = (
        _notes(report),
        _figures(report),
        _plots(report),
        _failures(report),
        _idle(report),
        _jobs(report) if report.subject == "period" else None,
        _endpoints(report),
        _cards(report),
    )
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "referrer", "content": "no-referrer"}),
        tag("title", None, title),
        tag("style", None, STYLE),
    )
    when = f"{local_time(report.start)} to {local_time(report.end, '%Y-%m-%d %H:%M %Z')}"
    body = tag(
        "body",
        None,
        tag(
            "main",
            None,
            tag("h1", None, report.jobs[0].label if report.subject == "job" else "What ran"),
            tag("p", {"class": "when"}, when, f", {_job_line(report.jobs[0])}" if report.subject == "job" else None),
            sections,
        ),
        tag("footer", None, f"Made by obcd {report.obcd}, {local_time(seconds_of(report.made_at))}."),
    )
    return f"<!DOCTYPE html>\n{tag('html', {'lang': 'en'}, head, body)}\n"


def _job_line(job: ReportedJob) -> str:
    models = f", {', '.join(job.models)}" if job.models else ""
    return f"job {job.job}, {job.state.lower()}{models}"


def _notes(report: Report) -> Markup | None:
    if not report.notes:
        return None
    return tag("ul", {"class": "notes"}, (tag("li", None, f"{text[0].upper()}{text[1:]}.") for text in report.notes))


# --- figures ----------------------------------------------------------------------------------------------------------


def _figures(report: Report) -> Markup:
    figures = _job_figures(report) if report.subject == "job" else _period_figures(report)
    items = (tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in figures if value)
    return tag("dl", None, items)


def _job_figures(report: Report) -> list[tuple[str, str]]:
    job = report.jobs[0]
    return [
        ("requests", show_number(job.requests)),
        ("responses", show_number(job.responses)),
        ("failures", show_number(job.failures)),
        ("cut short", show_number(job.cut_short) if job.cut_short else ""),
        ("empty", show_number(job.empty) if job.empty else ""),
        ("from the cache", show_number(job.cached) if job.cached else ""),
        ("time", duration(job.seconds) if job.seconds else ""),
        ("responses/s", _number(job.responses_per_second)),
        ("output tokens/s", _number(job.output_tokens_per_second)),
        ("output tokens", show_number(job.output_tokens)),
        ("prompt tokens", show_number(job.prompt_tokens)),
        ("at once, mean", _number(job.speedup)),
        *_energy_figures(report.energy),
    ]


def _period_figures(report: Report) -> list[tuple[str, str]]:
    seconds = report.covered_seconds
    return [
        ("jobs", show_number(len(report.jobs) + report.more_jobs)),
        ("responses", show_number(report.responses)),
        ("failures", show_number(report.failures)),
        ("from the cache", show_number(report.cache_hits) if report.cache_hits else ""),
        ("responses/s", _number(report.responses / seconds if seconds else None)),
        ("output tokens/s", _number(report.output_tokens / seconds if seconds else None)),
        ("output tokens", show_number(report.output_tokens)),
        ("prompt tokens", show_number(report.prompt_tokens)),
        ("slots in use", _percent(report.busy_seconds / report.slot_seconds if report.slot_seconds else None)),
        *_energy_figures(report.energy),
    ]


def _energy_figures(energy: ReportedEnergy) -> list[tuple[str, str]]:
    if energy.watt_hours is None:
        return []
    about = "about " if energy.joules and energy.estimated_joules > 0.01 * energy.joules else ""
    return [
        (f"energy of {plural(energy.cards, 'card')}", about + show_energy(energy.watt_hours)),
        ("output tokens/Wh", _number(energy.output_tokens_per_watt_hour)),
        ("all tokens/Wh", _number(energy.tokens_per_watt_hour)),
    ]


def show_energy(watt_hours: float) -> str:
    """Return e.g. `0.52 Wh`, `37 Wh`, `1.19 kWh`."""
    return f"{watt_hours / 1000:.2f} kWh" if watt_hours >= 1000 else f"{show_number(watt_hours)} Wh"


def _number(value: float | None) -> str:
    return show_number(value) if value is not None else ""


def _percent(value: float | None) -> str:
    return f"{100 * value:.0f} %" if value is not None else ""


# --- plots ------------------------------------------------------------------------------------------------------------


def _plots(report: Report) -> Markup | None:
    if not report.points:
        return None
    times, span = [point.time for point in report.points], (report.start, report.end)

    def column(take: Callable[[HistoryPoint], float | None], points: Sequence[HistoryPoint] = report.points) -> Values:
        return [take(point) for point in points]

    own = report.job_points
    of_all = " of all jobs" if own else ""
    tokens = [Series(f"output{of_all}", column(lambda point: point.output_tokens))]
    responses = [Series(f"responses{of_all}", column(lambda point: point.responses))]
    if own:
        tokens.insert(0, Series("output of this job", column(lambda point: point.output_tokens, own)))
        responses.insert(0, Series("responses of this job", column(lambda point: point.responses, own)))
    else:
        tokens.append(Series("prompts", column(lambda point: point.prompt_tokens)))
    responses.append(Series(f"failures{of_all}", column(lambda point: point.failures)))
    slots = [
        Series("in use", column(lambda point: point.busy)),
        Series("slots", column(lambda point: point.slots)),
        Series("idle while prompts waited", column(lambda point: point.idle)),
    ]
    busy = [Series("mean of the cards", column(lambda point: _times(100, point.utilization)))]
    drawn = [
        draw_plot("Tokens", "each second", times, tokens, span),
        draw_plot("Responses", "each second", times, responses, span),
        draw_plot("Slots", "", times, slots, span),
    ]
    if any(point.utilization is not None for point in report.points):
        drawn.append(draw_plot("Utilisation of the cards", "%", times, busy, span))
    if any(point.power_watts is not None for point in report.points):
        power = [Series("all cards together", column(lambda point: point.power_watts))]
        drawn.append(draw_plot("Power of the cards", "W", times, power, span))
    return tag("section", None, tag("h2", None, "How fast"), drawn)


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(title: str, headings: Sequence[str], rows: Iterable[Row], after: str = "") -> Markup | None:
    """Return a section with a table; None without rows. A heading that begins with `>` is a column of numbers."""
    classes = ["n" if heading.startswith(">") else None for heading in headings]
    classes[0] = "name"
    head = tag(
        "tr",
        None,
        (
            tag("th", {"scope": "col", "class": "n" if heading.startswith(">") else None}, heading.lstrip(">"))
            for heading in headings
        ),
    )
    body = [
        tag("tr", None, (tag("td", {"class": kind}, cell) for kind, cell in zip(classes, row, strict=True)))
        for row in rows
    ]
    if not body:
        return None
    table = tag("table", None, tag("thead", None, head), tag("tbody", None, body))
    return tag(
        "section",
        None,
        tag("h2", None, title),
        tag("div", {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": title}, table),
        tag("p", None, after) if after else None,
    )


def _failures(report: Report) -> Markup | None:
    job = report.jobs[0] if report.subject == "job" else None
    classes = job.failures_by_class if job is not None else report.failures_by_class
    total = sum(classes.values())
    rows = ((name, show_number(count), _percent(count / total)) for name, count in _by_number(classes))
    failures = _table("Failures", ("class", ">requests", ">share"), rows)
    retries = ((name, show_number(count)) for name, count in _by_number(report.retries_by_class))
    repeated = _table("Attempts that were repeated, of all jobs", ("class", ">attempts"), retries)
    return join((failures, repeated))


def _by_number(counts: dict[str, int] | object) -> list[tuple[str, int]]:
    assert isinstance(counts, dict)
    return sorted(counts.items(), key=lambda item: -item[1])


def _idle(report: Report) -> Markup | None:
    rows = (
        (IDLE_WORDS.get(item.reason, item.reason), f"{item.slot_seconds / 3600:.2f}", f"{100 * item.share:.1f} %")
        for item in report.idle
    )
    return _table("Slots that were idle while prompts waited", ("because", ">slot hours", ">of all slots"), rows)


def _jobs(report: Report) -> Markup | None:
    rows = (
        (
            job.label,
            job.state.lower(),
            local_time(seconds_of(job.finished_at)) if job.finished_at else UNKNOWN,
            show_number(job.responses),
            show_number(job.failures),
            show_number(job.output_tokens) if job.state == "published" else UNKNOWN,
            duration(job.seconds),
            _number(job.output_tokens_per_second) or UNKNOWN,
        )
        for job in report.jobs
    )
    headings = ("job", "state", "finished", ">responses", ">failures", ">output tokens", ">time", ">tokens/s")
    return _table("Jobs", headings, rows, f"And {plural(report.more_jobs, 'earlier job')}." if report.more_jobs else "")


def _endpoints(report: Report) -> Markup | None:
    is_job = any(item.responses for item in report.endpoints)
    shown = report.endpoints[:MOST_ROWS]
    rows = (
        (
            item.name,
            item.host or UNKNOWN,
            f"{item.gpu} {item.product}".strip(),
            show_number(item.responses if is_job else item.answered),
            show_number(item.job_output_tokens if is_job else item.output_tokens),
            show_number(item.faults),
            _percent(item.up) or UNKNOWN,
            _percent(item.busy) or UNKNOWN,
        )
        for item in shown
    )
    headings = ("endpoint", "host", "card", ">responses", ">output tokens", ">faults", ">up", ">slots in use")
    return _table("Endpoints", headings, rows, _more(len(report.endpoints) - len(shown)))


def _cards(report: Report) -> Markup | None:
    shown = report.cards[:MOST_ROWS]
    rows = (
        (
            item.uuid,
            item.host or "this machine",
            f"{item.index if item.index >= 0 else ''} {item.product}".strip() or UNKNOWN,
            _percent(item.utilization) or UNKNOWN,
            f"{item.memory_used_bytes / GIB:.1f} GiB" if item.memory_used_bytes is not None else UNKNOWN,
            _number(item.power_watts) or UNKNOWN,
            show_number(item.joules / 3600) if item.joules is not None else UNKNOWN,
            _number(item.temperature_celsius) or UNKNOWN,
            f"{item.xid_errors} (last {item.last_xid})" if item.xid_errors else "0",
        )
        for item in shown
    )
    headings = ("card", "host", "product", ">busy", ">memory, most", ">W, mean", ">Wh", ">°C, most", ">Xid")
    return _table("Cards", headings, rows, _more(len(report.cards) - len(shown)))


def _more(count: int) -> str:
    return f"And {count} more: obcd report --json." if count > 0 else ""
