"""An endpoint with its leases: its limit, and what is known of its slots and its pace. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.concurrency import MOST, SlotFinder, Span
from obcd.core.endpoint.faults import Fault, Harm
from obcd.core.endpoint.group_size import GroupSize
from obcd.core.endpoint.health import LEAVING, EndpointState, Health
from obcd.core.endpoint.latency import MeanLatency
from obcd.core.endpoint.signature_health import SignatureHealth
from obcd.core.endpoint.yielding import Yielding
from obcd.core.request.records import Signature
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.poison import RequestKey

#: Most requests of an endpoint that occupy no slot because their fault is being examined.
MOST_WEIGHED = 64
#: Calls in flight while they hold groups: an embedding model has one slot, so one is at work and one waits ready.
GROUP_CALLS = 2
#: A request is expected to finish within this many times the mean of its endpoint, or within so many seconds while that
#: is not known.
FINISH_MEANS, FINISH_SECONDS = 2.0, 60.0
#: The end of the window of an endpoint or a job that has none open.
CLOSED = -math.inf


@dataclass(slots=True)
class Holder:
    """An endpoint with its leases.

    Attributes:
        only_for: The user id whose requests it serves; None: those of all.
        ends_at: When its allocation ends, in monotonic seconds; None: it has no end.
        closes_at: When its window closes; `CLOSED` if all are closed; None: it never closes.
        yielding: How it makes room for people; None: it is obcd's alone.
    """

    name: str
    fixed_slots: int | None  # None: found by measurement
    health: Health
    digests: dict[str, str] | None = None  # {canonical name of a model it has: digest}; None: never reached
    loaded: Signature | None = None
    makes_vectors: bool = False  # whether what is loaded does
    leases: dict[int, Lease] = field(default_factory=dict)
    #: Tickets of leases that occupy no slot: the server has replied, and the worker examines whose fault that was.
    weighed: set[int] = field(default_factory=set)
    #: {model: the slots of its runner here}; Ollama gives some families of models one slot, whatever its settings say
    finders: dict[str, SlotFinder] = field(default_factory=dict)
    #: {embedding model: how many texts it gets in one call}
    group_sizes: dict[str, GroupSize] = field(default_factory=dict)
    #: How many requests may still go out now in groups: whole calls, because a part of one would stay a part for ever.
    quota: int = 0
    #: For the signature that is loaded.
    pace: MeanLatency = field(default_factory=MeanLatency)
    fitness: SignatureHealth = field(default_factory=SignatureHealth)
    #: Whether lanes wait for it: then it holds no more than its slots (see `concurrency`).
    has_lanes: bool = False
    #: (job, number of a signature) for each lane whose slot is free, as far as is known, the newest at the end.
    freed: list[tuple[str, int]] = field(default_factory=list)
    only_for: int | None = None
    ends_at: float | None = None
    #: False while it is known to have no room. Whatever may give it room sets this: a full endpoint at which nothing
    #: has happened is not looked at again.
    may_have_room: bool = True
    closes_at: float | None = None
    yielding: Yielding | None = None

    @property
    def yields(self) -> str:
        """Why it holds fewer requests than its slots, for people; "" if it does not."""
        return "" if self.yielding is None else self.yielding.reason

    def has_look_due(self, now: float) -> bool:
        """Return whether `on_models` is wanted at once: an endpoint that yields rests until then."""
        due = None if self.yielding is None else self.yielding.look_due
        return due is not None and due <= now

    @property
    def finder(self) -> SlotFinder:
        """The known slots for the model that is loaded."""
        model = self.loaded.model if self.loaded is not None else ""
        if model not in self.finders:
            is_limited = self.yielding is not None and self.fixed_slots is not None  # found up to that number
            self.finders[model] = SlotFinder(most=min(MOST, self.fixed_slots or MOST) if is_limited else MOST)
        return self.finders[model]

    @property
    def group(self) -> GroupSize | None:
        """How many texts go into one call; None unless the model that is loaded makes vectors."""
        if self.loaded is None or not self.makes_vectors:
            return None
        return self.group_sizes.setdefault(self.loaded.model, GroupSize())

    @property
    def group_size(self) -> int:
        """How many requests go out in one call now; 0 unless the model that is loaded makes vectors."""
        group = self.group
        return 0 if group is None else group.now

    @property
    def calls(self) -> int:
        """Room for calls in flight, of one request each, while the endpoint is UP."""
        if self.yielding is not None:  # at least one: it pauses, it does not go
            target = self.yielding.target
            return self.finder.slots if target is None else max(1, min(self.finder.slots, target))
        return self.finder.count if self.fixed_slots is None else self.fixed_slots

    @property
    def has_surplus(self) -> bool:
        """Whether it holds more requests than its slots, so that the next one waits ready in the server."""
        return not self.has_lanes and self.yielding is None

    @property
    def slots(self) -> int:
        """Room for requests in flight, while the endpoint is UP."""
        if self.makes_vectors and self.group_size > 1:
            return min(self.calls, GROUP_CALLS) * self.group_size
        return self.calls

    @property
    def calls_in_flight(self) -> float:
        """How many calls its requests make, about."""
        group = self.group
        return len(self.leases) / (1 if group is None else min(group.now, len(self.leases) or 1))

    def has(self, signature: Signature) -> bool:
        """Return whether the endpoint has the model."""
        return self.digests is not None and signature.model in self.digests

    def digest(self, signature: Signature) -> str | None:
        """Return the digest of a signature's model, or None if the endpoint has no such model."""
        return (self.digests or {}).get(signature.model)

    def can_finish(self, now: float) -> bool:
        """Return whether a request that is sent now should finish before the endpoint ends or closes, by its pace."""
        return self.can_finish_by(self.ends_at, now) and self.can_finish_by(self.closes_at, now)

    def can_finish_by(self, end: float | None, now: float) -> bool:
        """Return whether a request that is sent now should finish before a moment; None: there is no end."""
        if end is None:
            return True
        expected = FINISH_SECONDS if self.pace.mean is None else FINISH_MEANS * self.pace.mean
        return now + expected < end

    def is_for(self, submitter: int) -> bool:
        """Return whether the endpoint serves the requests of a user."""
        return self.only_for is None or self.only_for == submitter

    def fits(self, signature: Signature, now: float) -> bool:
        """Return whether the endpoint has the model, no fault for the signature, and time for a request."""
        if self.digests is None or signature.model not in self.digests or not self.can_finish(now):
            return False
        if self.fitness.has_no_faults:  # the usual case: this is called for each lease, of each job
            return True
        is_tried = self.loaded == signature and bool(self.leases)
        return self.fitness.admits(signature, now, is_tried=is_tried)

    def load(self, signature: Signature) -> None:
        """Record the signature that the endpoint loads next."""
        if self.loaded != signature:
            self.loaded, self.pace = signature, MeanLatency()
            self.note_other_work()
            self.makes_vectors = signature.embeds
            self.quota = self.slots
            self.may_have_room = True

    @property
    def in_flight(self) -> int:
        """How many requests it holds."""
        return len(self.leases)

    @property
    def held(self) -> list[Lease]:
        """Its leases now."""
        return list(self.leases.values())

    def requests(self) -> list[RequestKey]:
        """Return the requests that the endpoint holds."""
        return [lease.request for lease in self.leases.values()]

    def has_room(self) -> bool:
        """Return whether the endpoint may hold more requests, and note if it may not."""
        if self.free() > 0:
            return True
        self.may_have_room = self.makes_vectors  # its room depends on how many requests go into a call, too
        return False

    def open_calls(self) -> None:
        """Decide how many requests may go out now in groups; called before leases are made."""
        group = self.group
        if group is not None:
            self.quota = self.slots
            room = self.free()
            self.quota = room - room % group.now if self.health.state is EndpointState.UP else room

    def _slots_now(self) -> int:
        if self.yielding is not None:
            return self.slots if self.makes_vectors or self.yielding.target is not None else self.finder.limit
        return self.finder.limit if self.has_lanes and self.fixed_slots is None else self.slots

    def on_span(self, sent_at: float, span: Span, now: float) -> None:
        """Learn from an answer, which is no longer among the leases, what the endpoint may hold."""
        held = len(self.leases) + 1
        if self.yielding is not None:
            oldest = min((lease.sent_at for lease in self.leases.values()), default=math.inf)
            self.yielding.on_answer(sent_at, held, span, self.finder, now, oldest)
            if self.yielding.target is not None:
                return
        self.finder.on_answer(sent_at, held, span, now, has_surplus=self.has_surplus)

    def note_other_work(self) -> None:
        """Record that the server did something for us that no answer reports."""
        if self.yielding is not None:
            self.yielding.on_change()

    def free(self) -> int:
        """Return how many more requests the endpoint may hold."""
        if self.yielding is not None and self.yielding.is_paused:
            return -len(self.leases)
        slots = self._slots_now()
        open_slots = slots if self.health.state is EndpointState.UP else self.health.open_slots(slots)
        held = len(self.leases)
        if self.makes_vectors and self.group_size > 1:
            # A request that goes alone takes as much room as leaves room for `calls` of them.
            held += sum(not lease.may_share for lease in self.leases.values()) * max(0, slots // self.calls - 1)
            open_slots = min(open_slots, held + self.quota)
        if self.weighed:
            self.weighed &= self.leases.keys()
            if self.health.state is EndpointState.UP:
                held -= min(len(self.weighed), MOST_WEIGHED)
        return open_slots - held

    # --- changes: each of them may give it room ------------------------------------------------------------------

    def set_slots(self, slots: int | None) -> None:
        """Change its slots; requests above a smaller number finish."""
        if slots != self.fixed_slots:
            self.fixed_slots = slots
            self.may_have_room = True
            if self.yielding is not None:
                self.finders.clear()  # they were found up to the old number

    def limit(self, only_for: int | None, ends_at: float | None) -> None:
        """Set whose requests it serves, and when it ends."""
        self.only_for, self.ends_at = only_for, ends_at

    def set_yielding(self, is_yielding: bool) -> None:
        """Set whether it makes room for people who use it too; see `Yielding`."""
        if is_yielding != (self.yielding is not None):
            self.yielding = Yielding() if is_yielding else None
            self.finders.clear()
            self.may_have_room = True

    def on_models(self, ends: Mapping[str, float], asked_at: float, now: float) -> None:
        """Record what it has in memory if it yields: `{model: the end of its keep-alive time}`."""
        if self.yielding is not None:
            ours = "" if self.loaded is None else self.loaded.model
            self.yielding.on_models(ours, ends, asked_at, now, len(self.leases))
            self.may_have_room = True

    def look_at_others(self, now: float) -> None:
        """Let it have more or fewer requests if it yields, as it is time."""
        if self.yielding is not None and self.yielding.look(len(self.leases), now):
            self.may_have_room = True

    def on_group_call(self, requests: int, texts: int, seconds: float) -> None:
        """Record a call of vectors that was answered; see `GroupSize`."""
        group = self.group
        if group is not None:
            before = group.now
            group.on_call(requests, texts, seconds)
            self.may_have_room = True
            if group.now != before:
                self.pace = MeanLatency()

    def on_group_timeout(self) -> None:
        """Record that a group exceeded its time limit."""
        group = self.group
        if group is not None:
            group.on_timeout()
            self.may_have_room = True

    def drain(self, now: float, reason: str = LEAVING) -> None:
        """Get nothing new; the requests in flight finish."""
        self.health.drain(now, reason)

    def undrain(self, now: float) -> None:
        """Come back from draining; it gets work after its next good probe."""
        self.health.undrain(now)
        self.may_have_room = True

    def forgive_crashes(self, now: float) -> None:
        """Forget crashes that a request caused; see `Health`."""
        self.health.forgive_crashes(now)
        self.may_have_room = True

    def on_weighed(self, ticket: int) -> None:
        """Record that the server has replied to a request with a fault that is being examined: its slot is free."""
        if ticket in self.leases:
            self.weighed.add(ticket)
            self.may_have_room = True

    def take(self, ticket: int) -> Lease | None:
        """End a lease; None if the ticket is no longer known."""
        self.may_have_room = True
        return self.leases.pop(ticket, None)

    def on_unable(self, signature: Signature, fault: Fault, sent_at: float, now: float) -> bool:
        """Record a fault which shows that it cannot serve a signature; it may serve others.

        Returns:
            Whether it is left out for the signature from now on.
        """
        if fault.kind is FaultKind.MODEL_MISSING and self.digests is not None:
            self.digests.pop(signature.model, None)
        if fault.harm is not Harm.UNFIT:
            return False
        self.fitness.on_fault(signature, fault.message, sent_at, now, self.name)
        return True
