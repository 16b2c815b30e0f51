"""Why a slot is idle while prompts wait. Pure."""

from __future__ import annotations

from obcd.coordinator.view import DaemonState, EndpointView, LiveView
from obcd.core.endpoint.health import EndpointState
from obcd.spool.history.history_line import IdleReason

#: {state of an endpoint: why its slots are idle}
_REASONS: dict[str, IdleReason] = {
    EndpointState.DOWN: IdleReason.ENDPOINT_DOWN,
    EndpointState.STARTING: IdleReason.ENDPOINT_STARTING,
    EndpointState.SUSPECT: IdleReason.ENDPOINT_SUSPECT,
    EndpointState.DRAINING: IdleReason.ENDPOINT_DRAINING,
}


def find_idle_reason(view: LiveView, endpoint: EndpointView) -> IdleReason:
    """Return why an endpoint has idle slots, the most general reason first."""
    if view.state == DaemonState.DRAINING:
        return IdleReason.STOPPING
    if view.is_short_of_disk:
        return IdleReason.DISK
    if (reason := _REASONS.get(endpoint.state)) is not None:
        return reason
    return IdleReason.LEFT_OUT if endpoint.left_out else IdleReason.NO_FITTING_REQUEST
