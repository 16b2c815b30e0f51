"""What an endpoint holds: its leases, how many it may have, what is known of its slots and its pace. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from obcd.core.concurrency import SlotFinder
from obcd.core.health import Health
from obcd.core.pace import Pace
from obcd.core.poison import RequestKey
from obcd.core.records import Signature


@dataclass(frozen=True, slots=True)
class Lease:
    """A request handed to an endpoint; `ticket` names it between coordinator and worker.

    Attributes:
        place: How many requests the endpoint held then, this one included.
        signature: Which of its job's signatures it needs, by number.
    """

    ticket: int
    job: str
    ordinal: int
    endpoint: str
    attempt: int
    sent_at: float
    place: int = 1
    signature: int = 0

    @property
    def request(self) -> RequestKey:
        """Which request it is."""
        return self.job, self.ordinal


@dataclass(slots=True)
class Holder:
    """An endpoint with what it holds."""

    name: str
    fixed_slots: int | None  # None: found by measurement
    health: Health
    models: frozenset[str] | None = None  # canonical names; None: never told
    loaded: Signature | None = None
    leases: dict[int, Lease] = field(default_factory=dict)
    #: {model: how many slots its runner has here}; Ollama gives some families of models one, whatever it was told
    finders: dict[str, SlotFinder] = field(default_factory=dict)
    #: of the signature that is loaded
    pace: Pace = field(default_factory=Pace)

    @property
    def finder(self) -> SlotFinder:
        """What is known of the slots for the model that is loaded."""
        model = self.loaded.model if self.loaded is not None else ""
        if model not in self.finders:
            self.finders[model] = SlotFinder()
        return self.finders[model]

    @property
    def slots(self) -> int:
        """Room for requests in flight, while all is well."""
        return self.finder.count if self.fixed_slots is None else self.fixed_slots

    def has(self, signature: Signature) -> bool:
        """Tell whether it told of the model."""
        return self.models is not None and signature.model in self.models

    def load(self, signature: Signature) -> None:
        """Take note of what it is to load next."""
        if self.loaded != signature:
            self.loaded, self.pace = signature, Pace()

    def free(self) -> int:
        """Return how many more requests it may hold."""
        return self.health.open_slots(self.slots) - len(self.leases)
