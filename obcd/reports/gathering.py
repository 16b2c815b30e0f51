"""Gather a report: jobs from manifests and the status, everything else from the history.

manifests, status.json ─► FoundJob ─┐
root/history/ ─► LineSums ──────────┴─► Report ─► page, JSON
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from obcd import __version__
from obcd.clock import seconds_of, timestamp, wall
from obcd.coordinator.view import JobView, View
from obcd.reports.job_figures import EndpointShare, FoundJob, jobs_between, read_published, unpublished
from obcd.reports.line_sums import LineSums, sum_lines
from obcd.reports.report import Report, ReportedEndpoint, ReportedEnergy, ReportedJob
from obcd.results.running.finding import NamedJob, Stage, find_job, read_progress
from obcd.spool.folders.layout import Layout
from obcd.spool.history.history_files import KEEP_DAYS, read_history
from obcd.spool.outbox.publish_rename import MANIFEST

#: Points of a plot, unless lines are fewer, and the least seconds of one.
POINTS, LEAST_SECONDS = 240, 60.0
#: Seconds before the time of a report from which lines are read: a counter's first difference needs one.
LEAD_SECONDS = 600.0
#: The most jobs that a report lists.
MOST_JOBS = 200
#: Least part of the time that the history has to cover; below it a note says so.
LEAST_COVER = 0.9

NO_HISTORY = f"the history of this time is missing: it is kept for {KEEP_DAYS} days, and only while a coordinator runs"
PART_OF_HISTORY = "the coordinator did not run all the time: rates and sums are those of the time that the history has"
UNREADABLE = "this user may not read the history: join the daemon's group (usermod -aG obcd NAME), or use sudo"
NO_ENERGY = "no card reports its energy: register its host with a hosts folder, or run the servers on this machine"
ESTIMATED = "a part of the energy is estimated from readings of power, because cards have no counter or were seen once"
SHARED = "other jobs ran at the same time: the job's energy is its part of the server work"
UNFINISHED = "the job is not published: its figures are those so far"


def report_job(layout: Layout, word: str, view: View | None) -> Report | None:
    """Return the report on a job, by its folder, id or name; None if there is no such job.

    Raises:
        ValueError: If it has no figures, or its manifest cannot be read, with the reason.
    """
    found = _find(layout, word, view)
    if found is None:
        return None
    now = wall()
    accepted = _time_of(found.job.accepted_at) or _time_of_id(found.job.job) or now
    start = _time_of(found.job.started_at) or accepted
    end = _time_of(found.job.finished_at) or now
    end = max(end, start + 1.0)
    sums, notes = _sum(layout.root, start, end, found.job.job)
    job = found.job
    if job.state != "published":
        notes.append(UNFINISHED)
        job = replace(job, accepted_at=timestamp(accepted), seconds=round(end - start, 1))
        job = _with_tokens(job, sums)
    energy = _energy(sums, sums.job_share, job.prompt_tokens, job.output_tokens, _places(sums, found.shares))
    if sums.job_share is not None and sums.job_share < 0.99:
        notes.append(SHARED)
    return _report("job", [job], sums, energy, notes, found.shares)


def report_period(layout: Layout, start: float, end: float, view: View | None) -> Report:
    """Return the report on a time, in Unix seconds."""
    jobs = [item.job for item in jobs_between(layout.outbox, start, end, view)]
    sums, notes = _sum(layout.root, start, end, "")
    _, _, prompt, output = sums.amounts
    return _report("period", jobs, sums, _energy(sums, 1.0, prompt, output, None), notes, {})


def _find(layout: Layout, word: str, view: View | None) -> FoundJob | None:
    """Return the job that a person names, also by its folder; None if there is none."""
    named = find_job(layout, view, word)
    if named is not None and named.stage is Stage.UNFINISHED:
        return _find_unpublished(layout, named, view)
    folder = Path(word)
    if not (folder / MANIFEST).is_file():
        if named is None:
            return None
        if named.folder is None:
            raise ValueError("its file is in the inbox, and it is not a job yet")
        if named.stage is Stage.REJECTED:
            raise ValueError(f"it was rejected: {named.why}")
        folder = named.folder
    found = read_published(folder)
    if found is None:
        raise ValueError("its manifest is not that of a published job")
    return found


def _find_unpublished(layout: Layout, named: NamedJob, view: View | None) -> FoundJob:
    item = view.find_job(named.job) if view is not None else None
    if item is None and (progress := read_progress(layout, named)) is not None:
        item = JobView.from_json(progress[1])
    if item is None:
        raise ValueError("it has no figures before it runs")
    return unpublished(item)


def _time_of(text: str | None) -> float | None:
    try:
        return seconds_of(text) if text else None
    except ValueError:
        return None


def _time_of_id(job: str) -> float | None:
    """Return when a job was accepted, by its id: `20261122T180105-…`."""
    try:
        return datetime.strptime(job[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _sum(root: Path, start: float, end: float, job: str) -> tuple[LineSums, list[str]]:
    """Return the sums over the history, and what is missing in it."""
    points = max(1, min(POINTS, int((end - start) / LEAST_SECONDS)))
    try:
        sums = sum_lines(read_history(root, start - LEAD_SECONDS), start, end, points, job)
    except PermissionError:
        return LineSums(start, end, points, job), [UNREADABLE]
    if not sums.seconds:
        return sums, [NO_HISTORY]
    return sums, [PART_OF_HISTORY] if sums.seconds < LEAST_COVER * (end - start) else []


def _with_tokens(job: ReportedJob, sums: LineSums) -> ReportedJob:
    """Return a job that runs with the tokens that the history has of it: only a manifest has them all."""
    prompt, output = sums.job_tokens
    return replace(job, prompt_tokens=prompt, output_tokens=output)


def _places(sums: LineSums, shares: Mapping[str, EndpointShare]) -> Collection[tuple[str, int]] | None:
    """Return `(host, index)` of the cards of a job's endpoints; None: all cards, because they are not known."""
    found = {(item.host, item.gpu) for item in sums.endpoints() if item.name in shares}
    known = {(card.host, card.index) for card in sums.cards.cards()}
    return found if found and found <= known else None


def _energy(
    sums: LineSums, share: float | None, prompt: int, output: int, places: Collection[tuple[str, int]] | None
) -> ReportedEnergy:
    cards = [card for card in sums.cards.cards(places) if card.joules is not None]
    if not cards:
        return ReportedEnergy()
    joules = sum(card.joules or 0.0 for card in cards)
    hours = None if share is None else joules * share / 3600
    return ReportedEnergy(
        cards=len(cards),
        joules=round(joules, 1),
        estimated_joules=round(sum(card.estimated_joules for card in cards), 1),
        share=None if share is None else round(share, 4),
        watt_hours=None if hours is None else round(hours, 3),
        output_tokens_per_watt_hour=round(output / hours, 1) if hours else None,
        tokens_per_watt_hour=round((prompt + output) / hours, 1) if hours else None,
    )


def _report(
    subject: str, jobs: Sequence[ReportedJob], sums: LineSums, energy: ReportedEnergy, notes: list[str],
    shares: Mapping[str, EndpointShare],
) -> Report:  # fmt: skip
    if sums.seconds and energy.joules is None:
        notes.append(NO_ENERGY)
    if energy.joules and energy.estimated_joules > 0.01 * energy.joules:
        notes.append(ESTIMATED)
    plot, job_plot = sums.points()
    responses, hits, prompt, output = sums.amounts
    return Report(
        obcd=__version__,
        made_at=timestamp(wall()),
        subject=subject,
        start=round(sums.start, 3),
        end=round(sums.end, 3),
        start_at=timestamp(sums.start),
        end_at=timestamp(sums.end),
        covered_seconds=round(sums.seconds, 1),
        jobs=tuple(jobs[:MOST_JOBS]),
        more_jobs=max(0, len(jobs) - MOST_JOBS),
        responses=responses,
        failures=round(sum(sums.failures.values())),
        failures_by_class=_rounded(sums.failures),
        retries_by_class=_rounded(sums.retries),
        cache_hits=hits,
        prompt_tokens=prompt,
        output_tokens=output,
        slot_seconds=round(sums.slot_seconds, 1),
        busy_seconds=round(sums.busy_seconds, 1),
        idle=sums.idle(),
        energy=energy,
        endpoints=_endpoints(sums.endpoints(), shares),
        cards=sums.cards.cards(),
        points=tuple(plot.points()) if sums.seconds else (),
        job_points=tuple(job_plot.points()) if sums.seconds and subject == "job" else (),
        notes=tuple(notes),
    )


def _rounded(amounts: Mapping[str, float]) -> dict[str, int]:
    """Return the counts, the most first."""
    return {name: round(amount) for name, amount in sorted(amounts.items(), key=lambda item: -item[1]) if amount >= 0.5}


def _endpoints(seen: Sequence[ReportedEndpoint], shares: Mapping[str, EndpointShare]) -> tuple[ReportedEndpoint, ...]:
    """Return the endpoints; in a report on a published job those of its manifest, with its parts."""
    if not shares:
        return tuple(seen)
    known = {item.name: item for item in seen}
    return tuple(
        replace(
            known.get(name, ReportedEndpoint(name=name, gpu=share.gpu)),
            responses=share.responses,
            job_output_tokens=share.eval_tokens,
        )
        for name, share in shares.items()
    )
