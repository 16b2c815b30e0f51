"""What people and manifests get to know of the endpoints."""

from __future__ import annotations

from collections.abc import Sequence

from obcd.config.endpoints import Endpoint
from obcd.coordinator.endpoints.endpoint_table import EndpointTable
from obcd.coordinator.endpoints.left_out_log import Sentences
from obcd.coordinator.view import EndpointView
from obcd.core.endpoint.health import EndpointState
from obcd.core.request.records import plain_model
from obcd.core.scheduling.weights import shorten
from obcd.spool.outbox.publication import EndpointFacts


def lost(table: EndpointTable) -> dict[str, str]:
    """Return `{endpoint that does not serve: why, for people}`, without those that are leaving or draining."""
    serves = (EndpointState.UP, EndpointState.DRAINING)
    found = {name: table.health(name) for name in table.staying}
    return {
        name: health.probe_failure or f"it is {health.state}, and obcd status says why"
        for name, health in found.items()
        if health.state not in serves
    }


def views(table: EndpointTable, now: float) -> tuple[EndpointView, ...]:
    """Return the views of the endpoints."""
    odd, unfit = table.scheduler.odd(), table.scheduler.unfit()
    return tuple(
        _view(table, item, _left_out(table, item.name, odd, unfit, now), now) for item in table.members.values()
    )


def _left_out(table: EndpointTable, name: str, odd: Sentences, unfit: Sentences, now: float) -> list[str]:
    """Return the work that an endpoint does not get, and why."""
    found = {*odd.get(name, ()), *unfit.get(name, ())}
    if name in table.window_waits:
        return [table.window_waits[name]]
    hosted = table.hosted.get(name)
    if hosted is not None and not table.holder(name).can_finish(now):
        found.add("its allocation ends: no request could finish before")
    if hosted is not None and hosted.only_for is not None:
        found.add("it serves only the jobs of its host's user (per_user)")
    return sorted(found)


def _view(table: EndpointTable, item: Endpoint, left_out: Sequence[str], now: float) -> EndpointView:
    holder, figures = table.holder(item.name), table.figures[item.name]
    return EndpointView(
        name=item.name,
        url=item.url,
        gpu=item.gpu,
        slots=holder.slots,
        finds_slots=item.slots is None,
        in_flight=holder.in_flight,
        state=holder.health.state,
        reason=holder.health.reason,
        version=figures.version,
        models=tuple(sorted(holder.digests or ())),
        answered=figures.answered,
        faults=figures.faults,
        tokens_per_second=round(figures.tokens.per_second(now), 1),
        left_out=tuple(left_out),
        host=item.host,
        digests={plain_model(model): digest for model, digest in shorten(figures.digests).items()},
        loaded=plain_model(holder.loaded.model) if holder.loaded is not None else "",
        loaded_num_ctx=holder.loaded.num_ctx if holder.loaded is not None else 0,
        prompt_tokens=figures.prompt_tokens,
        output_tokens=figures.output_tokens,
        window="; ".join(item.window) or None,
        yields=holder.yields if item.yields else None,
    )


def facts_of(table: EndpointTable, item: Endpoint) -> EndpointFacts:
    """Return an endpoint's entry in manifests."""
    figures = table.figures[item.name]
    return EndpointFacts(version=figures.version, gpu=item.gpu, digests=figures.digests)
