"""One line of the history: what the cluster did in about a minute, and its state at the end of it.

    {"time": 1795370060.0, "seconds": 60.0, "jobs": 2, "waiting": 812, "responses": 97, "failures": {"timeout": 1}, …,
     "idle_seconds": {"endpoint_down": 960.0},
     "endpoints": {"name": ["gpu1:11432", …], "state": ["UP", …], "slots": [16, …], …},
     "cards": {"uuid": ["GPU-…", …], "energy_joules": [81234567.0, …], …}, "active": {"job": ["20261122T…", …], …}}

What endpoints, cards and jobs have stands in columns: the first value of each belongs to the first name. Counts are
those of the line's seconds alone, so sums over lines are sums over time. A line holds counts and states, never a
prompt, a response, or the name of a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from obcd.core.documents import Document


class IdleReason(StrEnum):
    """Why a slot was idle while prompts waited."""

    DISK = "disk"  # the disk was almost full: no request was sent
    STOPPING = "stopping"  # the coordinator was ending: no request was sent
    ENDPOINT_DOWN = "endpoint_down"
    ENDPOINT_STARTING = "endpoint_starting"
    ENDPOINT_SUSPECT = "endpoint_suspect"  # after faults it gets one request at a time
    ENDPOINT_DRAINING = "endpoint_draining"
    LEFT_OUT = "left_out"  # it does not get some work, e.g. because it lacks the model
    NO_FITTING_REQUEST = "no_fitting_request"  # another model or lane, or requests that wait for their next attempt


#: {reason: it for people, after "slots were idle because"}
IDLE_WORDS: Mapping[str, str] = {
    IdleReason.DISK: "the disk was almost full",
    IdleReason.STOPPING: "the coordinator was ending",
    IdleReason.ENDPOINT_DOWN: "their endpoint was down",
    IdleReason.ENDPOINT_STARTING: "their endpoint was not reached yet",
    IdleReason.ENDPOINT_SUSPECT: "their endpoint got one request at a time after faults",
    IdleReason.ENDPOINT_DRAINING: "their endpoint was leaving, or its host was silent",
    IdleReason.LEFT_OUT: "their endpoint did not get some of the work (obcd status says why)",
    IdleReason.NO_FITTING_REQUEST: "no request that waited could go there: another model, a lane, or a later attempt",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointColumns(Document):
    """The endpoints.

    Attributes:
        host: The registered host that has it, "" for this machine, else the host in its URL; `gpu` is the index of its
            card there.
        state, slots, in_flight: At the end of the line's time.
        up_seconds: Seconds in which it was UP.
        slot_seconds, busy_seconds: The sums over time of its slots and of its requests in flight.
        answered, faults: Attempts that ended with a response or a fault.
        prompt_tokens, output_tokens: Tokens of its responses.
    """

    name: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    gpu: tuple[int, ...] = ()
    state: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    in_flight: tuple[int, ...] = ()
    up_seconds: tuple[float, ...] = ()
    slot_seconds: tuple[float, ...] = ()
    busy_seconds: tuple[float, ...] = ()
    answered: tuple[int, ...] = ()
    faults: tuple[int, ...] = ()
    prompt_tokens: tuple[int, ...] = ()
    output_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CardColumns(Document):
    """The cards of hosts; None for a value that a card does not report.

    Attributes:
        host: The registered host that reports it, "" for this machine.
        index: nvidia-smi's; MIG instances of one card share it.
        product: Its name.
        utilization: Share of the last moment in which it computed, 0 to 1.
        energy_joules: Used since its driver was loaded, brought forward by its power to the time of the line.
        xid_errors: Number of its faults (Xid) since the start of its host; `last_xid` is the last one.
    """

    uuid: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    index: tuple[int, ...] = ()
    product: tuple[str, ...] = ()
    utilization: tuple[float | None, ...] = ()
    memory_used_bytes: tuple[int | None, ...] = ()
    power_watts: tuple[float | None, ...] = ()
    energy_joules: tuple[float | None, ...] = ()
    temperature_celsius: tuple[int | None, ...] = ()
    xid_errors: tuple[int, ...] = ()
    last_xid: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobColumns(Document):
    """The jobs that had results, by id: their number, those that are failures, their tokens, and their server work."""

    job: tuple[str, ...] = ()
    done: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    prompt_tokens: tuple[int, ...] = ()
    output_tokens: tuple[int, ...] = ()
    work_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLine(Document):
    """A line.

    Attributes:
        time: Its end, in Unix seconds; `seconds` before that it began.
        jobs: Jobs that are accepted and neither published nor set aside.
        waiting: Requests that wait for a slot, of jobs that are not paused.
        responses, failures: Results on disk; failures by class.
        retries: Attempts after which the request was sent again, by class.
        cache_hits: Responses that came from obcd's cache.
        prompt_tokens, output_tokens: Tokens of the results, without those from the cache.
        slot_seconds, busy_seconds: The sums, over time, of slots and of requests in flight.
        idle_seconds: The sums, over time, of slots that were idle while prompts waited, by `IdleReason`.
        utilization, power_watts: Of all cards at the end: the mean and the sum; None if no card reports it.
        active: The jobs that had results.
    """

    time: float
    seconds: float
    jobs: int = 0
    waiting: int = 0
    responses: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    cache_hits: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    slot_seconds: float = 0.0
    busy_seconds: float = 0.0
    idle_seconds: Mapping[str, float] = field(default_factory=dict)
    utilization: float | None = None
    power_watts: float | None = None
    endpoints: EndpointColumns = field(default_factory=EndpointColumns)
    cards: CardColumns = field(default_factory=CardColumns)
    active: JobColumns = field(default_factory=JobColumns)

    @property
    def failed(self) -> int:
        """The number of failures of all classes."""
        return sum(self.failures.values())

    @property
    def idle(self) -> float:
        """Seconds that slots were idle while prompts waited, over all slots and reasons."""
        return sum(self.idle_seconds.values())
