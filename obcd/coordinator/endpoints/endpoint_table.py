"""The state of the endpoints that membership, control calls, receiving and the views share."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from obcd.config.endpoints import Endpoint
from obcd.coordinator.endpoints.state_messages import describe_outage, describe_state
from obcd.core.endpoint.health import EndpointState, Health
from obcd.core.endpoint.rates import Rate
from obcd.core.scheduling.holder import Holder
from obcd.core.scheduling.scheduler import Scheduler
from obcd.hosts.roster import HostedEndpoint
from obcd.workers.pool import Pool

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Figures:
    """The counts of one endpoint since the start, and the findings of its last successful probe."""

    tokens: Rate
    answered: int = 0
    faults: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    version: str = ""
    digests: dict[str, str] = field(default_factory=dict)
    peer: str = ""
    probed_at: float = -math.inf
    is_probing: bool = True  # a worker probes at its start
    state: EndpointState = EndpointState.STARTING  # the state logged last
    yields: str = ""  # why it yields, as logged last
    looked_at: float = -math.inf
    is_looking: bool = False


class EndpointTable:
    """The endpoints by name. Main thread only; `now` is in monotonic seconds.

    Attributes:
        members: In the order of the configuration; then those of hosts; those that are leaving come last.
        figures: `{endpoint: its counts and last findings}`.
        leaving: Names of endpoints that leave when their requests in flight are finished.
        hosted: `{endpoint: it}`, those of registered hosts.
        hosts: The hosts folder; None: hosts do not register endpoints.
        window_waits: `{endpoint that waits for its window: the sentence about it}`, the first to open first.
        revision: Grows when an endpoint changes its state, or when what it is left out of changes.
        next_probe: When the next control call is due; an event that may make one due earlier sets it to 0: all are
            checked then.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.pool = Pool()
        self.members: dict[str, Endpoint] = {}
        self.figures: dict[str, Figures] = {}
        self.leaving: set[str] = set()
        self.hosted: dict[str, HostedEndpoint] = {}
        self.window_waits: Mapping[str, str] = {}
        self.hosts: str | None = None
        self.revision = 0
        self.next_probe = 0.0

    @property
    def staying(self) -> list[str]:
        """The names of the endpoints that are not leaving."""
        return [name for name in self.members if name not in self.leaving]

    @property
    def waits_for_host(self) -> bool:
        """Whether there is no endpoint, which is a state and not a fault: hosts may register."""
        return self.hosts is not None and not self.staying

    @property
    def outage(self) -> str:
        """Why no endpoint can take a request; "" when one can, or when it is not known yet."""
        return describe_outage([self.health(name) for name in self.staying], self.hosts)

    @property
    def window_wait(self) -> str:
        """Until when every endpoint waits for its window; "" when one need not."""
        if not self.window_waits or not self.window_waits.keys() >= set(self.staying):
            return ""
        return next(iter(self.window_waits.values()))

    def holder(self, name: str) -> Holder:
        """Return an endpoint as the scheduler knows it."""
        return self.scheduler.endpoint(name)

    def health(self, name: str) -> Health:
        """Return the live health of an endpoint, for reading."""
        return self.scheduler.endpoint(name).health

    def probe_soon(self, name: str) -> None:
        """Have an endpoint's control call made at the next turn."""
        self.figures[name].probed_at = -math.inf
        self.next_probe = 0.0

    def log_state(self, name: str) -> None:
        """Log an endpoint's state if it has changed; called after every event."""
        figures, health = self.figures[name], self.scheduler.endpoint(name).health
        if health.state is figures.state:
            return
        level, text = describe_state(figures.state, health)
        figures.state = health.state
        self.revision += 1
        self.next_probe = 0.0
        logger.log(level, "endpoint %s %s", name, text, extra={"action": "endpoint_state", "endpoint": name})
