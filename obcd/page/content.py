"""The sections of the page, made from what was seen. Pure.

    SeenStatus ─► sections ─► {"state": markup, "jobs": markup, …} ─► document (whole page), state.json (what changes)

Shown are names, states, counts, and obcd's own sentences on hosts and endpoints. Never shown are prompts, responses and
messages of failures, which may quote them. Without names (`Privacy.COUNTS`) nothing is shown that comes from a
submitter: no name of a job, a file, a user or a folder, and no sentence that may hold one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

from obcd.coordinator.view import DaemonState, JobState, JobView, PublishedView, View
from obcd.core.endpoint.health import EndpointState
from obcd.core.markup import Child, Markup, join, tag
from obcd.page import figures
from obcd.page.fleet import show_cards, show_endpoints
from obcd.page.signs import BAD, BUSY, GOOD, JOBS, QUIET, WARN, Sign, faint, gauge, progress, show, state
from obcd.page.status_source import SeenStatus, StatusCondition
from obcd.page.tables import RowGroup, TableColumn, TableRow, table
from obcd.text import plural
from obcd.users import user_name

#: A directory server may be slow to say a name, and it rarely changes.
_user_name = lru_cache(1024)(user_name)

#: The most rows of jobs, of published jobs and of files, and the most sentences.
MOST_JOBS, MOST_PUBLISHED, MOST_FILES, MOST_TROUBLES = 150, 8, 8, 12


class Privacy(StrEnum):
    """What a visitor may see."""

    NAMES = "names"  # also the names of jobs and submitters
    COUNTS = "counts"  # no more than their numbers


def sections(seen: SeenStatus, privacy: Privacy) -> dict[str, Markup]:
    """Return the sections that change, by the id of their elements; an empty one is hidden."""
    view, has_names = seen.view, privacy is Privacy.NAMES
    if view is None:
        empty = dict.fromkeys(("figures", "jobs", "endpoints", "cards", "files"), Markup())
        return {"state": _state(seen), "troubles": _troubles(seen, has_names=has_names), **empty}
    return {
        "state": _state(seen),
        "troubles": _troubles(seen, has_names=has_names),
        "figures": _figures(view),
        "jobs": _jobs(view, has_names=has_names),
        "endpoints": show_endpoints(view, has_names=has_names),
        "cards": show_cards(view),
        "files": _files(view) if has_names else Markup(),
    }


def title(seen: SeenStatus) -> str:
    """Return the title of the browser's tab, e.g. `3 jobs, 41 %, 12 min 00 s – obcd`."""
    if seen.condition is not StatusCondition.LIVE or seen.view is None:
        return "not running – obcd"
    view = seen.view
    jobs = len(view.all_jobs)
    if not jobs:
        return "idle – obcd"
    parts = [plural(jobs, "job"), figures.percent(figures.share(view.done, sum(job.total for job in view.jobs)))]
    parts += [figures.span(view.eta_seconds)] if view.eta_seconds is not None else []
    return f"{', '.join(parts)} – obcd"


# --- the headline ----------------------------------------------------------------------------------------------------


def _state(seen: SeenStatus) -> Markup:
    """Return the state of the coordinator, and when it stopped."""
    sign = _sign(seen)
    if seen.condition is StatusCondition.LIVE and seen.view is not None:
        return join([show(sign), faint(f"obcd {seen.view.version}")])
    since = tag("span", {"class": "faint"}, "since ", time_of(seen.since)) if seen.since is not None else None
    return join([show(sign), since])


def _sign(seen: SeenStatus) -> Sign:
    view = seen.view
    if seen.condition is not StatusCondition.LIVE or view is None:
        return (
            Sign("✕", "not running", BAD)
            if seen.condition is not StatusCondition.CLOSED
            else Sign("?", "unknown", WARN)
        )
    if view.state == DaemonState.STARTING:
        return Sign("○", "starting", BUSY)
    if view.state == DaemonState.DRAINING:
        return Sign("▽", "stopping", WARN)
    return Sign("●", "working", GOOD) if view.all_jobs else Sign("●", "idle", QUIET)


def time_of(seconds: float | None) -> Markup:
    """Return a time in UTC that machines can read too."""
    if seconds is None:
        return Markup(figures.UNKNOWN)
    return tag("time", {"datetime": figures.machine_time(seconds)}, figures.moment(seconds))


def _figures(view: View) -> Markup:
    """Return the row of the most important figures."""
    states = Counter(job.state for job in view.all_jobs)
    running = states[JobState.RUNNING]
    slots = sum(item.slots for item in view.endpoints)
    total = sum(job.total for job in view.jobs)
    answers = sum(job.requests_per_second for job in view.jobs)
    failed = sum(job.failed for job in view.jobs)
    in_flight = f"{figures.count(view.in_flight)} of {figures.count(slots)} slots"
    tiles = (
        ("Jobs", figures.count(len(view.all_jobs)), f"{figures.count(running)} running"),
        ("Requests waiting", figures.count(view.requests_waiting), f"{in_flight} in use"),
        ("Answers a second", figures.rate(answers), f"{figures.count(failed)} failed so far"),
        ("Tokens a second", figures.rate(view.tokens_per_second), "generated now"),
        ("Done", figures.percent(figures.share(view.done, total)) if total else figures.UNKNOWN,
         f"of {figures.count(total)} requests"),
        ("Time left", figures.span(view.eta_seconds), f"{view.up} of {len(view.staying)} endpoints up"),
    )  # fmt: skip
    return tag("dl", {"class": "tiles"}, [_tile(*item) for item in tiles])


def _tile(name: str, value: str, note: str) -> Markup:
    values = [tag("dd", {"class": "value"}, value), tag("dd", {"class": "faint"}, note)]
    return tag("div", {}, tag("dt", {}, name), values)


def _troubles(seen: SeenStatus, *, has_names: bool) -> Markup:
    found = [*_about_the_coordinator(seen)]
    view = seen.view
    if view is not None and seen.condition is StatusCondition.LIVE:
        found += [(Sign("▲", "trouble", BAD), text) for text in view.troubles] if has_names else []
        found += _from_counts(view, has_names=has_names)
        found += [(Sign("○", "note", QUIET), text) for text in view.notes] if has_names else []
    if not found:
        return tag("p", {"class": "calm"}, show(Sign("✓", "no troubles", GOOD)))
    more = len(found) - MOST_TROUBLES
    rows = [tag("li", {}, show(sign), " ", text) for sign, text in found[:MOST_TROUBLES]]
    rows += [tag("li", {}, f"and {more} more: obcd status names them")] if more > 0 else []
    return tag("ul", {"class": "troubles"}, rows)


#: {condition: what it means, and what to do}
CONDITIONS = {
    StatusCondition.STOPPED: "The coordinator is not running, and no request is sent. What is below is its last state.",
    StatusCondition.ABSENT: "The coordinator is not running: its status file is not there.",
    StatusCondition.CLOSED: "The page may not read the coordinator's status: its user has to be in the daemon's group.",
    StatusCondition.FOREIGN: "The coordinator's status cannot be read: it may be from another version of obcd.",
}


def _about_the_coordinator(seen: SeenStatus) -> Iterator[tuple[Sign, str]]:
    if text := CONDITIONS.get(seen.condition):
        yield Sign("✕", "stopped" if seen.condition is not StatusCondition.CLOSED else "unknown", BAD), text


def _from_counts(view: View, *, has_names: bool) -> Iterator[tuple[Sign, str]]:
    """Yield what the counts alone say: for visitors without names it is all there is."""
    down = [item.name for item in view.staying if item.state == EndpointState.DOWN]
    if down and len(down) < len(view.staying):
        verb = "is" if len(down) == 1 else "are"
        yield Sign("▲", "endpoints", WARN), f"{len(down)} of {len(view.staying)} endpoints {verb} down"
    odd = sum(bool(card.is_lost or card.xid_errors) for host in view.hosts for card in host.cards)
    if odd:
        yield Sign("▲", "cards", WARN), f"{plural(odd, 'card')} reported a fault or is lost"
    for pull in view.pulls[:MOST_FILES]:
        yield Sign("○", "fetching", BUSY), f"{pull.model} by {pull.endpoint}, {figures.count(pull.percent)} %"
    if has_names:
        return
    if view.troubles:
        yield Sign("▲", "trouble", BAD), f"{plural(len(view.troubles), 'trouble')}: obcd status says more"
    if aside := sum(job.state == JobState.QUARANTINED for job in view.all_jobs):
        yield Sign("▲", "jobs", WARN), f"{plural(aside, 'job')} set aside"
    if view.waiting:
        yield Sign("○", "files", QUIET), f"{plural(len(view.waiting), 'file')} of the inbox not accepted yet"


# --- the jobs --------------------------------------------------------------------------------------------------------


def _jobs(view: View, *, has_names: bool) -> Markup:
    heading = tag("h2", {"id": "jobs-title"}, "Jobs")
    if not view.all_jobs:
        return join(
            [heading, tag("p", {"class": "faint"}, "No job is running."), _published(view, has_names=has_names)]
        )
    if not has_names:
        return join([heading, _job_counts(view)])
    shown = view.jobs[:MOST_JOBS]
    more = len(view.all_jobs) - len(shown)
    listed = table(JOB_COLUMNS, [RowGroup(None, [_job(job) for job in shown])], "jobs-title")
    rest = tag("p", {"class": "faint"}, f"and {figures.count(more)} more wait behind them") if more > 0 else None
    return join([heading, listed, rest, _published(view, has_names=has_names)])


JOB_COLUMNS = (
    TableColumn("Job"), TableColumn("State"), TableColumn("Progress", "progress"), TableColumn("Failed"),
    TableColumn("Answers/s", "num"), TableColumn("Tokens/s", "num"), TableColumn("Time left", "num"),
)  # fmt: skip


def _job(job: JobView) -> TableRow:
    name = f"{job.profile}/{job.name}" if job.profile else job.name
    priority = f", priority {job.priority:+d}" if job.priority and abs(job.priority) < 100 else ""
    is_running = job.state == JobState.RUNNING
    return TableRow(
        (
            [tag("bdi", {}, name), faint(f"{_user_name(job.uid)}{priority}")],
            [state(JOBS, job.state), *(tag("span", {"class": "why"}, why) for why in (job.trouble, job.remark) if why)],
            gauge(
                progress(job.done - job.failed, job.failed, job.total),
                figures.percent(figures.share(job.done, job.total)),
                f"{figures.count(job.done)} of {figures.count(job.total)}",
            ),
            _failures(job.failed, job.failed_by_class),
            figures.rate(job.requests_per_second) if is_running else figures.UNKNOWN,
            figures.rate(job.tokens_per_second) if is_running else figures.UNKNOWN,
            figures.span(job.eta_seconds),
        ),
        f"job-{job.job}",
    )


#: The most classes of failures that one job shows.
MOST_CLASSES = 4


def _failures(total: int, classes: Mapping[str, int]) -> Child:
    """Return the number of failures, and those of the most frequent classes."""
    if not total:
        return "0"
    ranked = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{figures.count(number)} {kind}" for kind, number in ranked[:MOST_CLASSES]]
    if rest := total - sum(number for _, number in ranked[:MOST_CLASSES]):
        shown += [f"{figures.count(rest)} other"] if shown and rest > 0 else []
    return [tag("span", {"class": "missed"}, figures.count(total)), faint(", ".join(shown)) if shown else None]


def _job_counts(view: View) -> Markup:
    """Return the jobs of a cluster as numbers by state, with the failures of all of them by class."""
    states = Counter(job.state for job in view.all_jobs)
    classes: Counter[str] = Counter()
    for job in view.jobs:
        classes.update(job.failed_by_class)
    total, done, failed = (sum(getattr(job, name) for job in view.jobs) for name in ("total", "done", "failed"))
    rows = [TableRow((state(JOBS, name), figures.count(number))) for name, number in sorted(states.items())]
    listed = table((TableColumn("State"), TableColumn("Jobs", "num")), [RowGroup(None, rows)], "jobs-title")
    text = f"{figures.count(done)} of {figures.count(total)} requests have a result, {figures.count(failed)} failed"
    kinds = "; ".join(f"{figures.count(number)} {kind}" for kind, number in classes.most_common(MOST_CLASSES))
    return join([listed, tag("p", {}, text + (f": {kinds}" if kinds else "") + ".")])


def _published(view: View, *, has_names: bool) -> Markup | None:
    if not view.published:
        return None
    if not has_names:
        return tag("p", {"class": "faint"}, f"{plural(len(view.published), 'job')} published lately.")
    latest = view.published[::-1][:MOST_PUBLISHED]
    return join(
        [tag("h3", {}, "Published lately"), tag("ul", {"class": "plain"}, [_published_job(item) for item in latest])]
    )


def _published_job(item: PublishedView) -> Markup:
    failed = f", {figures.count(item.failures)} failed" if item.failures else ""
    empty = f", {figures.count(item.empty)} empty" if item.empty else ""
    sign = Sign("▲", "published", WARN) if item.failures else Sign("✓", "published", GOOD)
    text = f"{figures.count(item.responses)} answered{failed}{empty}"
    return tag("li", {}, show(sign), " ", tag("bdi", {}, item.name), " ", faint(text))


# --- the files of the inbox ------------------------------------------------------------------------------------------


def _files(view: View) -> Markup:
    """Return the files that are not jobs. Why one was rejected may quote its lines: that stands in the outbox alone."""
    if not (view.waiting or view.rejected or view.settling):
        return Markup()
    rows: list[Child] = [
        tag("li", {}, show(Sign("○", "waits", QUIET)), " ", tag("bdi", {}, item.file), " ", faint(item.why))
        for item in view.waiting[:MOST_FILES]
    ]
    rows += _and_more(len(view.waiting) - MOST_FILES, "wait")
    rows += [
        tag(
            "li",
            {},
            show(Sign("✕", "rejected", WARN)),
            " ",
            tag("bdi", {}, item.file),
            " ",
            faint("see its folder in the outbox"),
        )
        for item in view.rejected[::-1][:MOST_FILES]
    ]
    rows += _and_more(len(view.rejected) - MOST_FILES, "were rejected")
    if view.settling:
        rows.append(
            tag("li", {}, show(Sign("○", "settling", QUIET)), f" {plural(len(view.settling), 'file')} may still change")
        )
    return join([tag("h2", {"id": "files-title"}, "Files of the inbox"), tag("ul", {"class": "plain"}, rows)])


def _and_more(number: int, what: str) -> Sequence[Markup]:
    return [tag("li", {}, f"and {figures.count(number)} more {what}")] if number > 0 else []
