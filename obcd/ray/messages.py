"""The values between the keeper, the actors and the guards of the servers; each is a JSON object, of one version.

keeper ── ServerWish, lease, drain ──► actor (Ray) ── the same, one JSON line each ──► guard ──► ollama serve
       ◄── ServerReport ─────────────             ◄── ServerReport, one a line ──────
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from obcd.config.settings import Settings
from obcd.core.documents import Document
from obcd.hosts.record import CardReading

#: Seconds that an actor serves without a keeper: as long as the coordinator keeps one whose record stands still.
LEASE_SECONDS = 120.0
#: Seconds in which a report comes even if nothing has changed: the rhythm of the records.
REPORT_SECONDS = 10.0
#: Ports from `[host] base_port` on of which each server of a node gets a free one.
MANY_PORTS = 255
#: Seconds that a draining server stays at least: the coordinator reads of it only at its next scan.
SETTLE_SECONDS = 15.0


class GuardState(StrEnum):
    """What a guard does with its server."""

    STARTING = "starting"  # it has not answered yet, or not again
    SERVING = "serving"
    DRAINING = "draining"  # it finishes what is in flight
    ENDED = "ended"  # it has ended, and will not be started again


class DrainCause(StrEnum):
    """Why a server drains."""

    SCALING = "scaling"  # the keeper needs fewer, or replaces it
    DOWN = "down"  # obcd ray down: the keeper ends too
    LEASE = "lease"  # no keeper has renewed its lease


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerWish(Document):
    """How each server is to be started; the rest is decided on its node.

    Attributes:
        host: The `[host]` table of the keeper's configuration.
        load_timeout_seconds, context: The values of `[requests]` that a server has to know.
        ports: Of the servers, as `obcd.host.servers.binding.parse_ports` reads them.
        lease_seconds: How long a server runs without a keeper.
        settle_seconds: How long a draining server stays at least.
    """

    host: Mapping[str, object]
    load_timeout_seconds: float
    context: int
    ports: str
    lease_seconds: float = LEASE_SECONDS
    settle_seconds: float = SETTLE_SECONDS

    @classmethod
    def of(cls, settings: Settings, ports: str | None = None) -> ServerWish:
        """Return the wish of a configuration.

        Args:
            ports: Instead of some from `[host] base_port` on.
        """
        first = settings.host.base_port
        return cls(
            ports=ports or f"{first}-{min(first + MANY_PORTS, 65535)}",
            host=json.loads(settings.host.model_dump_json(by_alias=True)),
            load_timeout_seconds=settings.requests.load_timeout_seconds,
            context=settings.requests.usual_context,
        )

    def settings(self) -> Settings:
        """Return the configuration from which a node makes its plan; that of the node itself does not matter."""
        host = {key: value for key, value in self.host.items() if value is not None and key not in ("gpus", "name")}
        requests = {"load_timeout_seconds": self.load_timeout_seconds, "num_ctx": self.context}
        return Settings.model_validate({"host": host, "requests": requests})

    @property
    def mark(self) -> str:
        """Return a short name of this wish: a server of another wish is replaced."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport(Document):
    """What a guard reports of its server.

    Attributes:
        state: A `GuardState`; `cause` says why it drains or has ended (a `DrainCause`), "" while it serves.
        url: Where it listens; "" until its card and port are known.
        gpu, gpu_uuid, card: Its card, as in `obcd.hosts.record`.
        slots: Requests in flight at once.
        version: Of its Ollama.
        trouble: What is wrong with it, for people; "" if nothing is.
        restarts: How often it was started again.
        connections: Open connections to its port, while it drains.
        mark: That of its wish.
        machine: The machine that it runs on (`obcd.hosts.machine`).
        node: The host name of that machine.
        cards: What its card reports.
    """

    state: str = GuardState.STARTING
    cause: str = ""
    url: str = ""
    gpu: int = 0
    gpu_uuid: str = ""
    slots: int = 0
    version: str = ""
    trouble: str = ""
    restarts: int = 0
    connections: int = 0
    mark: str = ""
    machine: str = ""
    node: str = ""
    cards: tuple[CardReading, ...] = ()
