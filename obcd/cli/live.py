"""Tables of a running coordinator, drawn from its view: jobs, endpoints, waiting files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from obcd.cli.tables import new_table
from obcd.clock import seconds_of
from obcd.coordinator.view import EndpointView, JobView, PublishedView, View
from obcd.core.forecasting.local_times import describe_moment
from obcd.text import duration

#: {suffix of a stand-in's version: label}
STAND_INS = {"embedded": "real inference on the CPU", "simulated": "simulated, made-up words"}
#: {endpoint state: colour}
COLOURS = {"UP": "green", "SUSPECT": "yellow", "DOWN": "red", "STARTING": "cyan", "DRAINING": "yellow"}

#: Width of the terminal, in characters, from which a job's id has its own column.
WIDE = 120
#: How many of the jobs published last are shown.
MOST_PUBLISHED = 5


def draw(view: View, speed: str = "") -> RenderableType:
    """Return tables of jobs and endpoints, and lines for waiting files and troubles.

    Args:
        speed: The speed of the last hour in one line, "" for none.
    """
    parts: list[RenderableType] = [_jobs(view), _endpoints(view.endpoints)]
    parts += [_one_line(speed, "cyan")] if speed else []
    parts += [_one_line(f"{job.name}: {job.context}", "") for job in view.jobs[:6] if job.context]
    parts += [_one_line(text, "") for text in map(_prefix_cache, view.jobs[:6]) if text]
    parts += [_one_line(_deadline(job, job.by, view.updated), "") for job in view.jobs[:20] if job.by is not None]
    parts += [_one_line(f"{job.name}: {job.remark}", "yellow") for job in view.jobs[:20] if job.remark]
    parts += [Text(f"fetching: {pull.model} by {pull.endpoint}, {pull.percent} %") for pull in view.pulls]
    parts += [Text(f"settling: {name}, accepted when it has not changed for a while") for name in view.settling[:3]]
    waiting = sorted(view.waiting, key=lambda item: item.file)
    parts += [_one_line(f"waits: {item.file}: {item.why}", "yellow") for item in waiting[:6]]
    if len(waiting) > 6:
        parts.append(Text(f"and {len(waiting) - 6} more wait: obcd status --json", style="yellow"))
    parts += [_one_line(f"rejected: {item.file}: {item.why}", "yellow") for item in view.rejected[-3:]]
    if len(view.rejected) > 3:
        parts.append(Text(f"and {len(view.rejected) - 3} more were rejected: see the outbox", style="yellow"))
    parts += [Text(f"note: {text}") for text in view.notes]
    parts += [Text(f"trouble: {text}", style="red") for text in view.troubles]
    return Group(*parts)


class LiveTables:
    """The tables, redrawn in place inside a `with` block; they stay on the screen at its end."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._live.stop()

    def show(self, view: View, speed: str = "") -> None:
        """Redraw; arguments as in `draw`."""
        self._live.update(draw(view, speed))


def _one_line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


@dataclass(frozen=True, slots=True)
class _Row:
    """One job as a row of the table."""

    name: str
    job: str
    state: str
    done: int
    total: int
    failed: int
    empty: int = 0
    speed: str = ""
    eta: str = ""

    @property
    def percent(self) -> str:
        return f"{100 * self.done // max(1, self.total)} %"


def _row_of_job(job: JobView) -> _Row:
    name = f"{job.profile}/{job.name}" if job.profile else job.name
    speed, eta = f"{job.tokens_per_second:.0f}", duration(job.eta_seconds)
    state = job.state.lower() + (f" ({job.priority:+d})" if job.priority else "")
    return _Row(name, job.job, state, job.done, job.total, job.failed, job.empty, speed, eta)


def _row_of_published(item: PublishedView) -> _Row:
    done = item.responses + item.failures
    return _Row(item.name, item.job, "published", done, done, item.failures, item.empty)


class _Jobs:
    """The table of jobs with their ids: in their own column where the width allows, else below the names."""

    def __init__(self, rows: list[_Row], more: int, earlier: int) -> None:
        self._rows = rows
        self._more = more
        self._earlier = earlier

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for a width, in characters."""
        is_wide = options.max_width >= WIDE
        has_empty = any(row.empty for row in self._rows)
        table = new_table(
            "job", *(["id"] if is_wide else []), "state", ">done", ">failed", *([">empty"] if has_empty else []),
            ">tokens/s", ">ETA",
        )  # fmt: skip
        table.collapse_padding = not is_wide
        if self._earlier:
            table.add_row(f"{self._earlier} published before")
        for row in self._rows:
            figures = (str(row.failed), *([str(row.empty)] if has_empty else []), row.speed, row.eta)
            if is_wide:
                done = f"{row.done}/{row.total} ({row.percent})"
                table.add_row(Text(row.name), Text(row.job, no_wrap=True), row.state, done, *figures)
            else:
                below = Text(f"{row.name}\n{row.job}", no_wrap=True, overflow="ellipsis")
                table.add_row(below, row.state, f"{row.done}/{row.total}\n{row.percent}", *figures)
        if self._more:
            table.add_row(f"and {self._more} more")
        yield table


def _jobs(view: View) -> RenderableType:
    published = view.published[-MOST_PUBLISHED:]
    if not view.jobs and not published:
        return Text("no job is running")
    earlier = len(view.published) - len(published)
    rows = [_row_of_published(item) for item in published] + [_row_of_job(job) for job in view.jobs[:20]]
    return _Jobs(rows, max(0, len(view.jobs) - 20) + len(view.further_jobs), earlier)


def _deadline(job: JobView, by: str, now: float) -> str:
    """Return when a job is due, and when it is expected to end."""
    label = f"{job.profile}/{job.name}" if job.profile else job.name
    try:
        due = describe_moment(seconds_of(by), now)
        ends = describe_moment(seconds_of(job.ends_at), now) if job.ends_at is not None else ""
    except (ValueError, TypeError):  # of another version
        return f"{label}: due {by}"
    return f"{label}: due {due}" + (f", expected to end at {ends}" if ends else "")


def _prefix_cache(job: JobView) -> str:
    """Return which part of a job's prompts came from the prefix caches of servers; "" where no reply says it."""
    if job.evaluated_tokens is None or job.cached_tokens is None:
        return ""
    share = 100 * job.cached_tokens // max(1, job.evaluated_tokens + job.cached_tokens)
    return f"{job.name}: {job.evaluated_tokens} prompt tokens evaluated, {job.cached_tokens} ({share} %) from the cache"


def _yields(endpoint: EndpointView) -> list[str]:
    """Return why an endpoint holds fewer requests than its slots."""
    return [f"yields: {endpoint.yields}"] if endpoint.yields else []


def _endpoints(endpoints: Sequence[EndpointView]) -> RenderableType:
    table = new_table("endpoint", ">GPU", "state", ">in flight", ">answered", ">tokens/s", "")
    for item in endpoints:
        label = STAND_INS.get(item.version.rpartition("-")[2], item.version)
        table.add_row(
            Text(item.name),
            str(item.gpu),
            Text(item.state, style=COLOURS.get(item.state, "")),
            f"{item.in_flight}/{item.slots}" + (" auto" if item.finds_slots else ""),
            str(item.answered),
            f"{item.tokens_per_second:.0f}",
            Text(item.reason or "; ".join([*_yields(item), *item.left_out]) or label),
        )
    return table
