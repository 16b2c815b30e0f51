"""An endpoint's states as sentences for people. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from obcd.core.endpoint.health import EndpointState, Health
from obcd.core.request.model_names import how_to_get
from obcd.core.request.records import plain_model
from obcd.core.scheduling.missing_models import MissingModel

#: States in which an endpoint is asked, or may be soon.
_HOPEFUL = (EndpointState.STARTING, EndpointState.UP, EndpointState.SUSPECT)


def describe_state(before: EndpointState, health: Health) -> tuple[int, str]:
    """Return how another state is logged: the level, and what follows `endpoint gpu0 `.

    Example: `(logging.WARNING, "is DOWN: not reachable: Connection refused")`.
    """
    level = logging.INFO
    match health.state:
        case EndpointState.DOWN:
            level, text = logging.WARNING, f"is DOWN: {health.reason}"
        case EndpointState.SUSPECT if before is EndpointState.DOWN:
            text = "is being tried again, one request at a time (SUSPECT)"
        case EndpointState.SUSPECT:
            level, text = logging.WARNING, f"gets one request at a time from now on (SUSPECT): {health.reason}"
        case EndpointState.UP:
            text = "is UP" if before is EndpointState.STARTING else "is UP again"
        case EndpointState.DRAINING:
            text = "is on its way out of the configuration: it finishes what it has (DRAINING)"
        case _:  # STARTING
            text = "is back in the configuration: it is asked when it is reached (STARTING)"
    return level, text


def describe_outage(healths: Sequence[Health]) -> str:
    """Return in one sentence that no endpoint is up, and why; "" when one is or has not been reached yet.

    Example: `no endpoint is up: gpu0: not reachable: Connection refused; and 3 more`.
    """
    if any(health.state in _HOPEFUL for health in healths):
        return ""
    if not healths:
        return "no endpoint is up"
    more = f"; and {len(healths) - 1} more" if len(healths) > 1 else ""
    return f"no endpoint is up: {healths[0].name}: {healths[0].reason}{more}"


def describe_shortage(missing: MissingModel, url: str = "") -> str:
    """Return in one sentence what work waits for, and what to do about it.

    Args:
        url: Of an endpoint that could have it.
    """
    model = plain_model(missing.model)
    if missing.digest:
        return (
            f"no endpoint has the '{model}' any more that a job was begun with (digest {missing.digest}): "
            "put it back, or wait: what is left of the job will be in retry.jsonl, to be dropped again"
        )
    return f"no endpoint has the model '{missing.model}': {how_to_get(missing.model, url)}"
