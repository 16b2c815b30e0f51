"""Work that no endpoint can take: its model is nowhere, or not with the weights that its job began with. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from obcd.core.endpoint.health import EndpointState
from obcd.core.request.records import plain_model
from obcd.core.scheduling.groups import Group
from obcd.core.scheduling.leases import Holder
from obcd.core.scheduling.weights import could_ask

#: Seconds that work for a model which no endpoint has waits before it fails: when all endpoints told their models,
#: and when some were never reached.
MODEL_WAIT_SECONDS, MODEL_WAIT_UNREACHED_SECONDS = 30.0, 300.0


class MissingModel(NamedTuple):
    """What no endpoint has.

    Attributes:
        model: Its canonical name.
        digest: Of the weights that are wanted, where endpoints have others under this name; "" where none has any.
    """

    model: str
    digest: str = ""


class Unserved(NamedTuple):
    """A request that fails since nobody can take it."""

    job: str
    ordinal: int
    missing: MissingModel


class Shortage:
    """How long work has waited for what is missing.

    Args:
        waits: How long it may: when all endpoints told their models, and when some were never reached.
    """

    def __init__(self, waits: tuple[float, float] | None) -> None:
        self._waits = waits or (MODEL_WAIT_SECONDS, MODEL_WAIT_UNREACHED_SECONDS)

    def is_over(self, group: Group, holders: Iterable[Holder], now: float) -> bool:
        """Look at what is there for a group; return whether it has waited for long enough."""
        staying = _staying(holders)
        if group.is_at_rest or any(could_ask(group.backlog, group.signature, item) for item in staying):
            group.unservable_since = None
            return False
        if not any(item.digests is not None for item in staying):  # nobody was ever reached: that is another trouble
            return False
        if group.unservable_since is None:
            group.unservable_since = now
        all_told = all(item.digests is not None for item in staying)
        return now - group.unservable_since > self._waits[0 if all_told else 1]


def missing_of(group: Group, holders: Iterable[Holder]) -> MissingModel:
    """Return what a group waits for that nobody can take."""
    model = group.signature.model
    has_others = any(item.has(group.signature) for item in _staying(holders))
    return MissingModel(model, (group.backlog.weights or {}).get(model, "") if has_others else "")


def describe_unfit(group: Group, holders: Iterable[Holder]) -> str:
    """Return in one sentence that all endpoints which have what a group needs serve it badly, "" where one does not."""
    able = [item for item in _staying(holders) if could_ask(group.backlog, group.signature, item)]
    reasons = [f"{item.name}: {reason}" for item in able if (reason := item.fitness.reason(group.signature))]
    if not reasons or len(reasons) < len(able) or group.is_at_rest:
        return ""
    more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"no endpoint serves {plain_model(group.signature.model)} as it should: {reasons[0]}{more}"


def _staying(holders: Iterable[Holder]) -> list[Holder]:
    return [item for item in holders if item.health.state is not EndpointState.DRAINING]
