"""An endpoint's states as sentences for people. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from obcd.core.endpoint.health import LEAVING, UNREACHED, EndpointState, Health
from obcd.core.request.model_names import how_to_get
from obcd.core.request.records import plain_model
from obcd.core.scheduling.missing_models import MissingModel
from obcd.text import printable

#: States in which an endpoint gets requests, or may get some soon.
_HOPEFUL = (EndpointState.STARTING, EndpointState.UP, EndpointState.SUSPECT)


#: The state of a coordinator without an endpoint that has a hosts folder.
WAITING = "waiting for a host"


def describe_state(before: EndpointState, health: Health) -> tuple[int, str]:
    """Return how a change of state is logged: the level, and the text after `endpoint gpu0 `.

    Example: `(logging.WARNING, "is DOWN: not reachable: Connection refused")`.
    """
    level = logging.INFO
    match health.state:
        case EndpointState.DOWN:
            level, text = logging.WARNING, f"is DOWN: {health.reason}"
        case EndpointState.SUSPECT if before is EndpointState.DOWN:
            text = "is being tried again with one request at a time (SUSPECT)"
        case EndpointState.SUSPECT:
            level, text = logging.WARNING, f"now gets one request at a time (SUSPECT): {health.reason}"
        case EndpointState.UP:
            text = "is UP" if before is EndpointState.STARTING else "is UP again"
        case EndpointState.DRAINING if health.reason != LEAVING:
            text = f"gets no new requests: {health.reason} (DRAINING)"
        case EndpointState.DRAINING:
            text = "is no longer in the configuration: it finishes its requests in flight (DRAINING)"
        case _ if health.reason == UNREACHED:  # STARTING
            text = "may get requests again as soon as it responds (STARTING)"
        case _:
            text = "is back in the configuration: it gets requests as soon as it responds (STARTING)"
    return level, text


def describe_outage(healths: Sequence[Health], hosts: str | None = None) -> str:
    """Return one sentence why no endpoint is up; "" when one is up or has not been reached yet.

    Example: `no endpoint is up: gpu0: not reachable: Connection refused; and 3 more`.

    Args:
        hosts: The hosts folder: with one, no endpoint is a state and not a fault.
    """
    if any(health.state in _HOPEFUL for health in healths):
        return ""
    if not healths:
        return (
            f"{WAITING}: no host in {printable(hosts)} offers an endpoint (obcd hosts)"
            if hosts
            else "no endpoint is up"
        )
    more = f"; and {len(healths) - 1} more" if len(healths) > 1 else ""
    return f"no endpoint is up: {healths[0].name}: {healths[0].reason}{more}"


def describe_shortage(missing: MissingModel, url: str = "") -> str:
    """Return one sentence that says what the work waits for and what to do about it.

    Args:
        url: The URL of an endpoint that could get the model.
    """
    model = plain_model(missing.model)
    if missing.digest:
        return (
            f"no endpoint still has the '{model}' that a job started with (digest {missing.digest}): "
            "put it back, or wait: the rest of the job will be in retry.jsonl, to be dropped again"
        )
    return f"no endpoint has the model '{missing.model}': {how_to_get(missing.model, url)}"
