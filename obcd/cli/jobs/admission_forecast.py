"""Whether files that were just dropped can be answered in time, as far as the status of the coordinator shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from obcd.coordinator.view import JobState, View
from obcd.core.endpoint.health import EndpointState
from obcd.core.forecasting.local_times import describe_moment, describe_span
from obcd.core.forecasting.queue_forecast import Capacity, Load, forecast
from obcd.core.forecasting.windows import Windows
from obcd.core.pending.fair_share import Rank
from obcd.spool.submit.dropping import Submitted

#: States of jobs that take slots from others.
GOING = (JobState.ACCEPTED, JobState.RUNNING)


def foresee_late(view: View, drops: Sequence[Submitted], uid: int, by: float, at: float) -> list[str]:
    """Return a sentence for each file that is not expected to be answered in time; none if that is not known.

    Args:
        view: The status of the coordinator.
        drops: The files, in their order.
        uid: Their submitter.
        by: The deadline, in Unix seconds.
        at: The present.
    """
    paces, windows = view.paces or {}, view.windows or {}
    found: list[str] = []
    for item in drops:
        opens = _windows(windows.get(item.profile))
        if opens and opens.open_seconds(at, by) <= 0:
            first = describe_moment(opens.opens_at(at), at)
            found.append(f"{item.name} will miss {describe_moment(by, at)}: its window opens at {first}")
    if found or not paces:
        return found
    usual = sum(paces.values()) / len(paces)
    loads = list(_others(view, {item.drop_id for item in drops}, usual))
    for item in drops:
        each = paces.get(item.profile, usual)
        loads.append(
            Load(
                job=item.drop_id,
                submitter=uid,
                requests=item.prompts,
                seconds=item.prompts * each,
                spread=each / 2,
                windows=_windows(windows.get(item.profile)),
            )
        )
    ends = forecast(loads, list(_capacities(view)), at)
    for item in drops:
        end = ends[item.drop_id]
        if end is not None and end > by:
            late = f"it is expected to end at {describe_moment(end, at)}"
            found.append(f"{item.name} will miss {describe_moment(by, at)} by about {describe_span(end - by)}: {late}")
    return found


def _others(view: View, drop_ids: set[str], usual: float) -> Iterator[Load]:
    paces, windows = view.paces or {}, view.windows or {}
    for job in view.jobs:
        if job.state in GOING and (not job.drop_id or job.drop_id not in drop_ids):
            left = job.total - job.done
            each = paces.get(job.profile, usual)
            yield Load(
                job=job.job,
                submitter=job.uid,
                rank=Rank(0, job.priority),
                requests=left,
                seconds=left * each,
                windows=_windows(windows.get(job.profile)),
            )


def _capacities(view: View) -> Iterator[Capacity]:
    for endpoint in view.endpoints:
        if endpoint.state in (EndpointState.UP, EndpointState.SUSPECT):
            yield Capacity(name=endpoint.name, slots=endpoint.slots, windows=_windows(endpoint.window))


def _windows(text: str | None) -> Windows:
    """Return windows that a status names; a newer version's that are not understood count as none."""
    try:
        return Windows.parse(text) if text else Windows()
    except ValueError:
        return Windows()
