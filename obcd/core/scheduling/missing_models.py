"""Work that no endpoint can take: no endpoint has its model, or the weights with which its job started. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from obcd.core.endpoint.health import EndpointState
from obcd.core.request.records import plain_model
from obcd.core.scheduling.groups import Group
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.state import SchedulingState
from obcd.core.scheduling.weights import could_ask

#: Seconds that work waits for a model which no endpoint has before it fails: if all endpoints have reported their
#: models, and if some were never reached.
MODEL_WAIT_SECONDS, MODEL_WAIT_UNREACHED_SECONDS = 30.0, 300.0
#: The same while hosts may register: the next one may have the model.
MODEL_WAIT_HOSTS_SECONDS = 3600.0


class MissingModel(NamedTuple):
    """A model that no endpoint has.

    Attributes:
        model: Its canonical name.
        digest: Of the required weights, if endpoints have others under this name; "" if no endpoint has the model.
    """

    model: str
    digest: str = ""


class Unserved(NamedTuple):
    """A request that fails because no endpoint can take it."""

    job: str
    ordinal: int
    missing: MissingModel


class Shortage:
    """How long work has waited for a missing model.

    Args:
        waits: The limits: if all endpoints have reported their models, and if some were never reached.

    Attributes:
        hosts_may_come: Whether hosts register endpoints.
    """

    def __init__(self, waits: tuple[float, float] | None) -> None:
        self._waits = waits or (MODEL_WAIT_SECONDS, MODEL_WAIT_UNREACHED_SECONDS)
        self.hosts_may_come = False

    def take_unservable(
        self, state: SchedulingState, limit: int, now: float, coming: Collection[str] = ()
    ) -> list[Unserved]:
        """Take at most `limit` requests that have waited long enough for a model that no endpoint has, and end them.

        Args:
            coming: Models that are being fetched: requests that need them wait.

        Returns:
            The requests; each is to be recorded as a failure.
        """
        taken: list[Unserved] = []
        for group in state.groups:
            is_over = self._is_over(group, state.holders.values(), now)
            if is_over and group.signature.model not in coming:
                missing = _missing_of(group, state.holders.values())
                for ordinal in group.backlog.take_unservable(group.number, limit - len(taken), now):
                    group.backlog.end(ordinal)
                    state.suspects.clear((group.backlog.job, ordinal))
                    taken.append(Unserved(group.backlog.job, ordinal, missing))
        return taken

    def _is_over(self, group: Group, holders: Iterable[Holder], now: float) -> bool:
        """Look at the endpoints for a group; return whether it has waited long enough."""
        staying = _staying(group, holders)
        if group.is_at_rest or any(could_ask(group.backlog, group.signature, item) for item in staying):
            group.unservable_since = None
            return False
        if not any(item.digests is not None for item in staying):  # none was ever reached: that is another problem
            return False
        if group.unservable_since is None:
            group.unservable_since = now
        all_told = all(item.digests is not None for item in staying)
        limit = MODEL_WAIT_HOSTS_SECONDS if self.hosts_may_come else self._waits[0 if all_told else 1]
        return now - group.unservable_since > limit


def missing(state: SchedulingState) -> set[MissingModel]:
    """Return what waiting work needs and no endpoint has."""
    waiting = [group for group in state.groups if group.unservable_since is not None]
    return {_missing_of(group, state.holders.values()) for group in waiting}


def stuck(state: SchedulingState) -> dict[str, MissingModel]:
    """Return `{job: what it needs}` for jobs of which nothing can be sent because no endpoint has it."""
    waiting: dict[str, list[Group]] = {}
    for group in state.groups:
        if not group.is_at_rest:
            waiting.setdefault(group.backlog.job, []).append(group)
    return {
        job: _missing_of(groups[0], state.holders.values())
        for job, groups in waiting.items()
        if all(group.unservable_since is not None for group in groups)
    }


def unserved(state: SchedulingState) -> set[str]:
    """Return why work waits that no endpoint serves as it should, for people."""
    holders = state.holders.values()
    found = [(_describe_unfit(group, holders), _describe_unopened(group, holders)) for group in state.groups]
    return {text for pair in found for text in pair} - {""}


def _missing_of(group: Group, holders: Iterable[Holder]) -> MissingModel:
    """Return what a group needs and no endpoint has."""
    model = group.signature.model
    has_others = any(item.has(group.signature) for item in _staying(group, holders))
    return MissingModel(model, (group.backlog.weights or {}).get(model, "") if has_others else "")


def _describe_unfit(group: Group, holders: Iterable[Holder]) -> str:
    """Return one sentence if all endpoints that have a group's model serve it badly, "" if one serves it well."""
    able = [item for item in _staying(group, holders) if could_ask(group.backlog, group.signature, item)]
    reasons = [f"{item.name}: {reason}" for item in able if (reason := item.fitness.reason(group.signature))]
    if not reasons or len(reasons) < len(able) or group.is_at_rest:
        return ""
    more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return f"no endpoint serves {plain_model(group.signature.model)} as it should: {reasons[0]}{more}"


def _describe_unopened(group: Group, holders: Collection[Holder]) -> str:
    """Return one sentence if no endpoint serves the user of a group, and some serve others; else ""."""
    if group.is_at_rest or not holders or any(item.is_for(group.backlog.submitter) for item in holders):
        return ""
    return (
        f"the jobs of user {group.backlog.submitter} wait for a host: with per_user = true, the host of another user "
        "serves only that user's jobs"
    )


def _staying(group: Group, holders: Iterable[Holder]) -> list[Holder]:
    """Return the endpoints that serve the user of a group and are not leaving."""
    is_for = group.backlog.submitter
    return [item for item in holders if item.is_for(is_for) and item.health.state is not EndpointState.DRAINING]
