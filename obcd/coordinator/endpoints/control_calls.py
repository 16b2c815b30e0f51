"""Control calls: which models endpoints have, and what others do at those that yield."""

from __future__ import annotations

import logging
import math

from obcd.coordinator.endpoints.endpoint_table import EndpointTable
from obcd.coordinator.endpoints.public_endpoints import warn_of_peer
from obcd.core.endpoint.health import EndpointState
from obcd.core.scheduling.weights import shorten
from obcd.ollama.control import Probe
from obcd.workers.messages import LookAround, LookedAround, ProbeNow

logger = logging.getLogger(__name__)

#: Seconds between control calls to an endpoint: while it is not serving, and while it is.
PROBE_SOON, PROBE_IDLE = 1.0, 30.0
#: Seconds between looks at what others do at an endpoint that yields: while it does, and else.
LOOK_SOON, LOOK_IDLE = 1.0, 5.0


class ControlCalls:
    """The control calls that the workers make."""

    def __init__(self, table: EndpointTable) -> None:
        self._table = table

    def probe(self, now: float) -> None:
        """Have the workers make the control calls that are due."""
        if now < self._table.next_probe:
            return
        dues = [math.inf]
        for item in self._table.members.values():
            figures, health = self._table.figures[item.name], self._table.health(item.name)
            if figures.is_probing or health.state is EndpointState.DRAINING:
                continue
            pause = PROBE_IDLE if health.state in (EndpointState.UP, EndpointState.SUSPECT) else PROBE_SOON
            dues.append(max(figures.probed_at + pause, health.retry_at))
            if dues[-1] <= now:
                dues.pop()
                figures.is_probing = True
                self._table.pool.send(item.name, ProbeNow())
        self._table.next_probe = min(dues)

    def look_around(self, now: float) -> None:
        """Ask the endpoints that yield for the models in memory, which shows what others do there."""
        for item in self._table.members.values():
            figures = self._table.figures[item.name]
            if not item.yields or figures.is_looking or self._table.health(item.name).state is not EndpointState.UP:
                continue
            pause = LOOK_SOON if self._table.holder(item.name).yields else LOOK_IDLE
            if now - figures.looked_at >= pause or self._table.holder(item.name).has_look_due(now):
                figures.looked_at, figures.is_looking = now, True
                self._table.pool.send(item.name, LookAround())

    def on_seen(self, name: str, seen: LookedAround, now: float) -> None:
        """Record what a worker saw others do at an endpoint that yields."""
        self._table.figures[name].is_looking = False
        if seen.ends is not None:
            self._table.holder(name).on_models(seen.ends, now - seen.seconds, now)

    def log_yielding(self) -> None:
        """Log which endpoints begin or end to yield."""
        for item in self._table.members.values():
            figures, reason = self._table.figures[item.name], self._table.holder(item.name).yields
            if bool(reason) == bool(figures.yields):
                continue
            figures.yields = reason
            self._table.revision += 1
            text = f"endpoint {item.name} yields: {reason}" if reason else f"endpoint {item.name} has all slots again"
            logger.info("%s", text, extra={"action": "endpoint_yields", "endpoint": item.name})

    def on_probed(self, endpoint: str, found: Probe, now: float) -> None:
        """Record what a control call found."""
        figures = self._table.figures[endpoint]
        figures.is_probing, figures.probed_at = False, now
        self._table.next_probe = 0.0
        if found.failure is None:
            figures.version, figures.digests = found.version, found.digests
            if found.peer != figures.peer:
                figures.peer = found.peer
                warn_of_peer(self._table.members[endpoint], found.peer)
        digests = shorten(found.digests) if found.failure is None else None
        self._table.scheduler.on_probe(endpoint, digests, found.failure, now)
