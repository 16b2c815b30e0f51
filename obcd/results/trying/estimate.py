"""What a whole file will take, from a few of its lines that were tried and from the cluster's state. Pure.

The lines were tried on slots of which many were free. Busy slots are slower, because they share a card: by how much,
nobody knows before it is measured. `SLOWDOWN` is what batches of Ollama's servers cost on common cards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from obcd.coordinator.view import EndpointView, JobState, View
from obcd.core.documents import Document
from obcd.core.endpoint.health import EndpointState
from obcd.core.forecasting.queue_forecast import Capacity, Load, forecast
from obcd.core.forecasting.windows import Windows
from obcd.core.forecasting.work_left import estimate_work
from obcd.core.pending.fair_share import Rank
from obcd.core.request.records import canonical_model
from obcd.results.trying.tried_lines import TriedLine
from obcd.spool.history.history_line import HistoryLine

#: By which share each further busy slot of a server makes the others slower at writing tokens.
SLOWDOWN = 0.1
#: The id of the file among the jobs.
_FILE = ""
#: More than any card draws: a counter that grew faster is wrong.
_MOST_WATTS = 5000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Document):
    """What the whole file will take.

    Attributes:
        requests: How many lines it has.
        tried: How many of them were measured.
        seconds: Until it is done, if it is dropped now and nothing else comes; None if that is not foreseeable.
        alone_seconds: The same without the other jobs.
        prompt_tokens, output_tokens: What is read and written.
        joules: What the cards use for it; None where no card reports it.
    """

    requests: int
    tried: int
    seconds: float | None
    alone_seconds: float | None
    prompt_tokens: int
    output_tokens: int
    joules: float | None = None


@dataclass(frozen=True, slots=True)
class Energy:
    """What is known about the energy that work takes here.

    Attributes:
        joules_per_token: What a written token costs, if that was measured.
        watts: What the cards draw while they work, if they report that; of use where the other is not known.
    """

    joules_per_token: float | None = None
    watts: float | None = None

    def of(self, tokens: float, seconds: float) -> float | None:
        """Return the joules for so many written tokens, with all slots at work for so long; None if not known."""
        if self.joules_per_token is not None and tokens:
            return self.joules_per_token * tokens
        return None if self.watts is None else self.watts * seconds


UNKNOWN = Energy()


def estimate(
    tried: Sequence[TriedLine],
    lengths: Sequence[int],
    view: View,
    *,
    uid: int,
    at: float,
    profile: str = "",
    energy: Energy = UNKNOWN,
) -> Estimate | None:
    """Return what a file will take; None if no line was answered, or no endpoint serves it.

    Args:
        tried: The lines that were tried.
        lengths: The length in bytes of every line of the file.
        view: The coordinator's state when they were dropped.
        uid: The submitter.
        at: The present, in Unix seconds: windows open and close.
        profile: The profile of the file.
    """
    measured = [line for line in tried if not line.failed and line.seconds is not None]
    models = {canonical_model(str(line.request["model"])) for line in measured}
    serving = [item for item in view.endpoints if _serves(item, models)]
    slots = sum(item.slots for item in serving)
    if not measured or not slots:
        return None
    near = _busy_slots(serving, len(tried), is_before=True)
    far = _busy_slots(serving, len(lengths), is_before=False)
    factor = _slowness(far) / _slowness(near)
    samples = [(line.length, (line.seconds or 0.0) + (factor - 1.0) * line.eval_seconds) for line in measured]
    work = estimate_work(samples, lengths)
    own = Load(
        job=_FILE, submitter=uid, requests=len(lengths), seconds=work.seconds, spread=work.spread(),
        windows=_windows_of(view, profile), sites=frozenset(item.name for item in serving),
    )  # fmt: skip
    capacities = [
        Capacity(name=item.name, slots=item.slots, windows=_windows(item.window))
        for item in view.endpoints
        if _is_open(item)
    ]
    alone = forecast([own], capacities, at)[_FILE]
    ends = forecast([*_others(view, own.mean), own], capacities, at)[_FILE]
    tokens = [(line.length, line.tokens) for line in measured if line.tokens is not None]
    read, written = (
        estimate_work([(length, float(counts[part])) for length, counts in tokens], lengths).seconds for part in (0, 1)
    )
    joules = energy.of(written, work.seconds / slots)
    return Estimate(
        requests=len(lengths),
        tried=len(measured),
        seconds=None if ends is None else round(ends - at, 1),
        alone_seconds=None if alone is None else round(alone - at, 1),
        prompt_tokens=round(read),
        output_tokens=round(written),
        joules=None if joules is None else round(joules, 1),
    )


def needs_load(view: View, model: str, num_ctx: int | None) -> bool:
    """Return whether no endpoint is known to have a model in memory as requests need it.

    Args:
        model: E.g. `llama3.2`.
        num_ctx: The context length; None: it is chosen later.
    """
    return not any(
        canonical_model(item.loaded) == canonical_model(model) and num_ctx in (None, item.loaded_num_ctx)
        for item in view.endpoints
        if _is_open(item) and item.loaded
    )


def is_busy(view: View) -> bool:
    """Return whether other jobs run."""
    return any(item.state == JobState.RUNNING for item in view.jobs)


def joules_per_token(lines: Iterable[HistoryLine]) -> float | None:
    """Return what a written token cost over some lines of the history, by the cards' counters; None if none counts.

    Only lines in which tokens were written count, with all that the cards used meanwhile.
    """
    joules, tokens = 0.0, 0
    before: dict[str, float] = {}
    for line in lines:
        now = {
            uuid: value
            for uuid, value in zip(line.cards.uuid, line.cards.energy_joules, strict=True)
            if value is not None
        }
        used = sum(
            value - before[uuid]
            for uuid, value in now.items()
            if uuid in before and 0 <= value - before[uuid] <= _MOST_WATTS * line.seconds
        )
        if used and line.output_tokens:
            joules, tokens = joules + used, tokens + line.output_tokens
        before = now
    return joules / tokens if tokens else None


def drawn_watts(view: View) -> float | None:
    """Return what the cards of the hosts draw now; None if none reports it."""
    drawn = [card.power_watts for host in view.hosts for card in host.cards if card.power_watts is not None]
    return sum(drawn) if drawn else None


def _is_open(item: EndpointView) -> bool:
    return item.state in {EndpointState.UP, EndpointState.SUSPECT}


def _serves(item: EndpointView, models: set[str]) -> bool:
    return _is_open(item) and models <= {canonical_model(model) for model in item.models}


def _busy_slots(serving: Sequence[EndpointView], requests: int, *, is_before: bool) -> float:
    """Return how many slots of an endpoint are busy with so many requests, on average over those requests.

    Args:
        is_before: Whether what was in flight when they were dropped counts too.
    """
    each = requests / max(1, len(serving))
    busy = [min(item.slots, each + (item.in_flight if is_before else 0)) for item in serving]
    return max(1.0, sum(busy) / len(busy))


def _slowness(busy: float) -> float:
    return 1.0 + SLOWDOWN * max(0.0, busy - 1.0)


def _others(view: View, usual: float) -> list[Load]:
    """Return the jobs that share the slots, running or in line; one without results is taken to be as `usual`."""
    loads = []
    for job in view.jobs:
        if job.state not in {JobState.RUNNING, JobState.ACCEPTED} or job.total <= job.done:
            continue
        left = job.total - job.done
        mean = job.work_seconds / job.done if job.done else usual
        loads.append(
            Load(
                job=job.job, submitter=job.uid, rank=Rank(among_own=job.priority), requests=left, seconds=left * mean,
                spread=0.5 * mean, windows=_windows_of(view, job.profile), is_active=job.state == JobState.RUNNING,
            )
        )  # fmt: skip
    return sorted(loads, key=lambda load: not load.is_active)


def _windows_of(view: View, profile: str) -> Windows:
    return _windows((view.windows or {}).get(profile))


def _windows(text: str | None) -> Windows:
    """Return windows that a status names; a newer version's that are not understood count as none."""
    try:
        return Windows.parse(text) if text else Windows()
    except ValueError:
        return Windows()


def watt_hours(joules: float) -> str:
    """Return an energy for people, e.g. `34 Wh`, `1.2 kWh`."""
    hours = joules / 3600
    if hours >= 1000:
        return f"{hours / 1000:.1f} kWh"
    digits = max(0, 1 - math.floor(math.log10(hours))) if hours > 0 else 0
    return f"{hours:.{digits}f} Wh"
