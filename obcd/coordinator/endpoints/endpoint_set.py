"""The endpoints and their workers: send leased requests, receive responses and faults, and track endpoint states.

coordinator ◄─events─ endpoints ◄─► scheduler (which endpoint gets which request)
                          ▲
                          └─► pool (one worker process per endpoint)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from obcd.config.endpoints import Endpoint
from obcd.config.settings import Settings
from obcd.coordinator.endpoints.changes import Change
from obcd.coordinator.endpoints.fetching import Fetcher, PullSite
from obcd.coordinator.endpoints.left_out_log import LeftOutLog, Sentences
from obcd.coordinator.endpoints.public_endpoints import warn_of_peer
from obcd.coordinator.endpoints.state_messages import describe_outage, describe_state
from obcd.coordinator.view import EndpointView
from obcd.core.endpoint.faults import Fault, host_gone, worker_lost
from obcd.core.endpoint.health import EndpointState
from obcd.core.endpoint.rates import Rate
from obcd.core.request.records import JobSettings, plain_model
from obcd.core.scheduling.leases import Lease
from obcd.core.scheduling.scheduler import Scheduler
from obcd.core.scheduling.weights import shorten
from obcd.hosts.roster import HostedEndpoint, Standing, Taken
from obcd.ollama.control import Probe
from obcd.spool.outbox.publication import EndpointFacts
from obcd.text import plural
from obcd.workers.messages import (
    Answered,
    Ask,
    AskGroup,
    Cancel,
    Faulted,
    Grouped,
    LookAround,
    LookedAround,
    Probed,
    ProbeNow,
    Stepped,
    Uncached,
    Weighed,
)
from obcd.workers.pool import Lost, Pool, Received
from obcd.workers.worker import WorkerSpec

logger = logging.getLogger(__name__)

#: Seconds between control calls to an endpoint: while it is not serving, and while it is.
PROBE_SOON, PROBE_IDLE = 1.0, 30.0
#: Seconds between looks at what others do at an endpoint that yields: while it does, and else.
LOOK_SOON, LOOK_IDLE = 1.0, 5.0
#: Seconds that a worker may exceed its own limits before it counts as frozen.
OVERDUE_GRACE = 30.0
#: The number of removed endpoints whose facts are kept for manifests.
DEPARTED = 500


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


@dataclass(frozen=True, slots=True)
class RequestAnswered:
    """A request has its response, which is to be recorded."""

    lease: Lease
    answer: Answered


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt at a request failed.

    Attributes:
        line: The request's line number, 0 when the worker could not read it.
        fault: The fault as it counts for the request.
        is_final: Whether the request has failed for good, which is to be recorded; otherwise it is sent again.
    """

    lease: Lease
    line: int
    fault: Fault
    is_final: bool


#: The outcome of an attempt at an endpoint.
RequestEvent = RequestAnswered | AttemptFailed


class Endpoints:
    """All endpoints. Main thread only; `now` is in monotonic seconds.

    Args:
        jobs: The folder from which workers read requests.
    """

    def __init__(self, settings: Settings, jobs: Path, scheduler: Scheduler, now: float) -> None:
        self.figures: dict[str, Figures] = {}
        self.pool = Pool()
        self.fetcher = Fetcher()
        #: Grows when an endpoint changes its state, or when what it is left out of changes.
        self.revision = 0
        #: Names of endpoints that leave when their requests in flight are finished.
        self.leaving: set[str] = set()
        #: {endpoint's name: it}, those of registered hosts.
        self._hosted: dict[str, HostedEndpoint] = {}
        self._members: dict[str, Endpoint] = {}
        #: Names of endpoints whose server still serves under another name, which is leaving.
        self._held: set[str] = set()
        self._departed: dict[str, EndpointFacts] = {}
        #: {endpoint that waits for its window: the sentence about it}, the first to open first
        self._window_waits: Mapping[str, str] = {}
        #: Grows when an endpoint comes, or when its configuration changes.
        self.changes = 0
        self._jobs = jobs
        self.scheduler = scheduler
        self._requests, self._hosts = settings.requests, settings.cluster.hosts
        self._left_out_log, self._logged_revision = LeftOutLog(), 0
        #: The reasons already logged why the cache of answers could not be used.
        self._uncached: set[str] = set()
        self._oldest = 0.0
        scheduler.expect_hosts(self._hosts is not None)
        #: When the next control call is due; an event that may make one due earlier sets it to 0: all are checked then.
        self.next_probe = 0.0
        for item in settings.endpoints():
            self._add(item, now)

    @property
    def members(self) -> tuple[Endpoint, ...]:
        """The endpoints in the order of the configuration; then those of hosts; those that are leaving come last."""
        return tuple(self._members.values())

    @property
    def open_url(self) -> str:
        """The URL of an endpoint that needs no token, for advice that people copy; "" if all need one."""
        return next((member.url for member in self.members if member.token is None), "")

    def apply(self, change: Change, settings: Settings, now: float) -> None:
        """Add, change and remove endpoints; those to be removed finish their requests in flight first."""
        if settings.requests.require_gpu != self._requests.require_gpu:
            self.scheduler.forgive_unfit()
        self._requests, self._hosts = settings.requests, settings.cluster.hosts
        self.scheduler.expect_hosts(self._hosts is not None)
        for name in change.left:
            self.scheduler.drain_endpoint(name, now)
            self._log_state(name)
            self.leaving.add(name)
        for item in change.back:
            self._reopen(item.name, now)
        self._let_leave(now)
        for item in change.came:
            if self._hosted.pop(item.name, None) is None:
                self._add(item, now)
            else:  # a host has registered it: it stays, and its requests in flight too
                self._reopen(item.name, now)
                self.scheduler.limit_endpoint(item.name, None, None)
        old, wanted = self._members, settings.endpoints()
        self._members = {item.name: item for item in wanted}
        self._members.update((name, old[name]) for name in old if name in self._hosted or name in self.leaving)
        self.changes += 1
        for item in wanted:
            self.scheduler.set_slots(item.name, item.slots)
            self.scheduler.set_yielding(item.name, item.yields)
            if item.name not in self._held:
                self.pool.configure(self._spec(item))

    def offer(self, offered: Iterable[HostedEndpoint], now: float) -> list[RequestEvent]:
        """Take the endpoints in that hosts offer now, drain those that are not OPEN, and remove all others at once.

        Returns:
            The outcomes of requests in flight at those that are removed: they are sent again.
        """
        wanted = {item.endpoint.name: item for item in offered}
        events: list[RequestEvent] = []
        for name in [name for name in self._hosted if name not in wanted]:
            events += self._remove_hosted(name, now)
        for name, item in wanted.items():
            if self._hosted.get(name) != item:
                self._offer(name, item, now)
        self._let_leave(now)
        return events

    def _offer(self, name: str, item: HostedEndpoint, now: float) -> None:
        is_ending = item.standing is Standing.ENDING
        if name in self._members and name not in self._hosted and name not in self.leaving:
            return  # the configuration has it
        if name not in self._members:
            if is_ending:
                return
            self._add(item.endpoint, now)
        self._hosted[name], self._members[name] = item, item.endpoint
        if name not in self._held:  # it may have been in the configuration, with a token
            self.pool.configure(self._spec(item.endpoint))
        self.scheduler.set_slots(name, item.endpoint.slots)
        self.scheduler.set_yielding(name, item.endpoint.yields)
        self.scheduler.limit_endpoint(name, item.only_for, item.ends_at)
        if item.standing is Standing.OPEN:
            self._reopen(name, now)
        else:
            self.scheduler.drain_endpoint(name, now, item.reason)
            self._log_state(name)
        if is_ending:
            self.leaving.add(name)

    def _reopen(self, name: str, now: float) -> None:
        """Let an endpoint get requests again if it drains."""
        self.leaving.discard(name)
        if self.scheduler.health(name).state is EndpointState.DRAINING:
            self.scheduler.undrain_endpoint(name, now)
            self._log_state(name)
            self._probe_now(name)

    def _remove_hosted(self, name: str, now: float) -> list[RequestEvent]:
        """Remove an endpoint of a host; its worker cancels what is in flight."""
        self.scheduler.drain_endpoint(name, now, "its host is gone")
        self._log_state(name)
        self.leaving.add(name)
        found = [self._on_faulted(name, lease.ticket, 0, host_gone(), now) for lease in self.scheduler.leases(name)]
        self._let_leave(now)
        return [event for event in found if event is not None]

    def drain_hosted(self, now: float) -> None:
        """Let all endpoints of hosts leave when their requests in flight are finished: another folder is configured."""
        for name in self._hosted:
            self.scheduler.drain_endpoint(name, now)
            self._log_state(name)
            self.leaving.add(name)
        self._hosted.clear()
        self._let_leave(now)

    @property
    def configured(self) -> list[Endpoint]:
        """The endpoints that the configuration names."""
        return [item for name, item in self._members.items() if name not in self._hosted and name not in self.leaving]

    def taken(self) -> Taken:
        """Return the servers that the configuration names, which no host can take from it."""
        configured = self.configured
        return Taken(
            urls=frozenset(item.url for item in configured),
            places=frozenset((self.figures[item.name].peer, item.port) for item in configured),
            local_ports=frozenset(item.port for item in configured if item.is_loopback),
        )

    def on_limits(self, settings: JobSettings) -> None:
        """Allow for the time limits of a job's requests; a job keeps its limits when the configuration changes."""
        longest = settings.load_timeout_seconds + settings.request_timeout_seconds + OVERDUE_GRACE
        self._oldest = max(self._oldest, longest)

    def _spec(self, item: Endpoint) -> WorkerSpec:
        requests = self._requests
        return WorkerSpec(
            item.name, item.url, self._jobs, requests.connect_timeout_seconds, item.token, requests.require_gpu
        )

    def _add(self, item: Endpoint, now: float) -> None:
        """Add an endpoint; its worker waits while the same server still serves under another name."""
        self.changes += 1
        self.scheduler.add_endpoint(item.name, item.slots, now)
        self.scheduler.set_yielding(item.name, item.yields)
        self.figures[item.name] = Figures(Rate(now))
        if any(self._members[name].url == item.url for name in self.leaving):
            self._held.add(item.name)
        else:
            self.pool.add(self._spec(item))
        self._members[item.name] = item

    def _let_leave(self, now: float) -> None:
        """Remove endpoints that are leaving and have nothing in flight any more."""
        for name in [name for name in self.leaving if not self.scheduler.in_flight(name)]:
            self._departed[name] = self._facts(self._members[name])
            while len(self._departed) > DEPARTED:
                del self._departed[next(iter(self._departed))]
            self.scheduler.remove_endpoint(name)
            if name in self._held:
                self._held.remove(name)
            else:
                self.pool.remove(name, now)
            self.leaving.remove(name)
            self._hosted.pop(name, None)
            del self._members[name], self.figures[name]
            logger.info("endpoint %s is removed", name, extra={"action": "endpoint_left", "endpoint": name})
        taken = {self._members[name].url for name in self.leaving}
        for name in [name for name in self._held if self._members[name].url not in taken]:
            self._held.remove(name)
            self.pool.add(self._spec(self._members[name]))

    @property
    def waits_for_host(self) -> bool:
        """Whether there is no endpoint, which is a state and not a fault: hosts may register."""
        return self._hosts is not None and all(name in self.leaving for name in self._members)

    @property
    def outage(self) -> str:
        """Why no endpoint can take a request; "" when one can, or when it is not known yet."""
        names = [name for name in self._members if name not in self.leaving]
        return describe_outage([self.scheduler.health(name) for name in names], self._hosts)

    def wait_for_windows(self, waits: Mapping[str, str]) -> None:
        """Show that exactly these endpoints wait for their windows.

        Args:
            waits: `{endpoint: the sentence about it}`, the first to open first.
        """
        if waits != self._window_waits:
            self._window_waits = waits
            self.revision += 1

    @property
    def window_wait(self) -> str:
        """Until when every endpoint waits for its window; "" when one need not."""
        names = self._members.keys() - self.leaving
        if not self._window_waits or not names <= self._window_waits.keys():
            return ""
        return next(iter(self._window_waits.values()))

    def break_off_closed(self) -> None:
        """Abort the requests in flight outside their windows: they are sent again in the next one."""
        late = self.scheduler.break_off_closed()
        for lease in late:
            self.pool.send(lease.endpoint, Cancel(lease.ticket))
        if late:
            text = "%s aborted at the end of a window: sent again in the next one, which costs no attempt"
            logger.info(text, plural(len(late), "request"), extra={"action": "window_ended"})

    def lost(self) -> dict[str, str]:
        """Return `{endpoint that does not serve: why, for people}`, without those that are leaving or draining."""
        serves = (EndpointState.UP, EndpointState.DRAINING)
        found = {name: self.scheduler.health(name) for name in self._members if name not in self.leaving}
        return {
            name: health.probe_failure or f"it is {health.state}, and obcd status says why"
            for name, health in found.items()
            if health.state not in serves
        }

    @property
    def in_flight(self) -> int:
        """The number of requests at the endpoints now."""
        return self.scheduler.all_in_flight

    @property
    def calls_in_flight(self) -> float:
        """The number of calls that these requests make, about: several requests for vectors go out in one."""
        return self.scheduler.calls_in_flight

    def views(self, now: float) -> tuple[EndpointView, ...]:
        """Return the views of the endpoints."""
        odd, unfit = self.scheduler.odd(), self.scheduler.unfit()
        return tuple(self._view(item, self._left_out(item.name, odd, unfit, now), now) for item in self.members)

    def _left_out(self, name: str, odd: Sentences, unfit: Sentences, now: float) -> list[str]:
        """Return the work that an endpoint does not get, and why."""
        found = {*odd.get(name, ()), *unfit.get(name, ())}
        if name in self._window_waits:
            return [self._window_waits[name]]
        hosted = self._hosted.get(name)
        if hosted is not None and not self.scheduler.can_finish(name, now):
            found.add("its allocation ends: no request could finish before")
        if hosted is not None and hosted.only_for is not None:
            found.add("it serves only the jobs of its host's user (per_user)")
        return sorted(found)

    def _view(self, item: Endpoint, left_out: Sequence[str], now: float) -> EndpointView:
        name, scheduler = item.name, self.scheduler
        health, figures, loaded = scheduler.health(name), self.figures[name], scheduler.loaded(name)
        return EndpointView(
            name=name,
            url=item.url,
            gpu=item.gpu,
            slots=scheduler.slots(name),
            finds_slots=item.slots is None,
            in_flight=scheduler.in_flight(name),
            state=health.state,
            reason=health.reason,
            version=figures.version,
            models=tuple(sorted(scheduler.models(name) or ())),
            answered=figures.answered,
            faults=figures.faults,
            tokens_per_second=round(figures.tokens.per_second(now), 1),
            left_out=tuple(left_out),
            host=item.host,
            digests={plain_model(model): digest for model, digest in shorten(figures.digests).items()},
            loaded=plain_model(loaded.model) if loaded is not None else "",
            loaded_num_ctx=loaded.num_ctx if loaded is not None else 0,
            prompt_tokens=figures.prompt_tokens,
            output_tokens=figures.output_tokens,
            window="; ".join(item.window) or None,
            yields=scheduler.yields(name) if item.yields else None,
        )

    def facts(self) -> dict[str, EndpointFacts]:
        """Return `{endpoint: its entry in manifests}`."""
        return {**self._departed, **{item.name: self._facts(item) for item in self.members}}

    def _facts(self, item: Endpoint) -> EndpointFacts:
        figures = self.figures[item.name]
        return EndpointFacts(version=figures.version, gpu=item.gpu, digests=figures.digests)

    def dispatch(self, now: float) -> None:
        """Fill every free slot."""
        for endpoint, message in self._messages_of(self.scheduler.assign(now)):
            self.pool.send(endpoint, message)
        self._log_yielding()
        if self.scheduler.revision != self._logged_revision:
            self._log_left_out()

    def _messages_of(self, leases: Iterable[Lease]) -> Iterator[tuple[str, Ask | AskGroup]]:
        """Yield what is sent to which endpoint; texts for vectors of one job go out in groups."""
        groups: dict[tuple[str, str, int, str], list[Ask]] = {}
        for lease in leases:
            about = lease.job, lease.ordinal, lease.attempt, lease.digest, lease.signature, lease.is_hedged
            ask = Ask(lease.ticket, *about)
            if not lease.may_share:
                yield lease.endpoint, ask
                continue
            key = lease.endpoint, lease.job, lease.signature, lease.digest
            group = groups.setdefault(key, [])
            group.append(ask)
            if len(group) >= self.scheduler.group_size(lease.endpoint):
                yield lease.endpoint, AskGroup(tuple(groups.pop(key)))
        for (endpoint, *_), group in groups.items():
            yield endpoint, AskGroup(tuple(group))

    def receive(self, now: float, readable: Iterable[int] = ()) -> list[RequestEvent]:
        """Receive the workers' messages and return the outcomes of attempts.

        Args:
            readable: Descriptors that can be read; those of others than workers are ignored.
        """
        events: list[RequestEvent] = []
        for endpoint in self.pool.find_ready(readable):
            for event in self.pool.receive(endpoint, now):
                if isinstance(event, Lost):
                    events += self._on_worker_lost(event, now)
                elif isinstance(event.message, Grouped):
                    events += self._on_grouped(event.endpoint, event.message, now)
                elif (found := self._on_message(event, now)) is not None:
                    events.append(found)
        if self.leaving:
            self._let_leave(now)
        self.pool.reap(now)
        return events

    def probe(self, now: float) -> None:
        """Have the workers make the control calls that are due."""
        if now < self.next_probe:
            return
        dues = [math.inf]
        for item in self.members:
            figures, health = self.figures[item.name], self.scheduler.health(item.name)
            if figures.is_probing or health.state is EndpointState.DRAINING:
                continue
            pause = PROBE_IDLE if health.state in (EndpointState.UP, EndpointState.SUSPECT) else PROBE_SOON
            dues.append(max(figures.probed_at + pause, health.retry_at))
            if dues[-1] <= now:
                dues.pop()
                figures.is_probing = True
                self.pool.send(item.name, ProbeNow())
        self.next_probe = min(dues)

    def look_around(self, now: float) -> None:
        """Ask the endpoints that yield for the models in memory, which shows what others do there."""
        for item in self.members:
            figures = self.figures[item.name]
            if not item.yields or figures.is_looking or self.scheduler.health(item.name).state is not EndpointState.UP:
                continue
            pause = LOOK_SOON if self.scheduler.yields(item.name) else LOOK_IDLE
            if now - figures.looked_at >= pause or self.scheduler.has_look_due(item.name, now):
                figures.looked_at, figures.is_looking = now, True
                self.pool.send(item.name, LookAround())

    def _on_seen(self, name: str, seen: LookedAround, now: float) -> None:
        self.figures[name].is_looking = False
        if seen.ends is not None:
            self.scheduler.on_models(name, seen.ends, now - seen.seconds, now)

    def _log_yielding(self) -> None:
        """Log which endpoints begin or end to yield."""
        for item in self.members:
            figures, reason = self.figures[item.name], self.scheduler.yields(item.name)
            if bool(reason) == bool(figures.yields):
                continue
            figures.yields = reason
            self.revision += 1
            text = f"endpoint {item.name} yields: {reason}" if reason else f"endpoint {item.name} has all slots again"
            logger.info("%s", text, extra={"action": "endpoint_yields", "endpoint": item.name})

    def _probe_now(self, name: str) -> None:
        self.figures[name].probed_at = -math.inf
        self.next_probe = 0.0

    def fetch(self, settings: Settings, now: float) -> None:
        """Fetch models that jobs need and a host lacks, if the configuration allows it."""
        wanted = self.scheduler.wanted_models() & settings.models() if settings.requests.pull else frozenset[str]()
        sites = [
            PullSite(item, models)
            for item in self.members
            if (models := self.scheduler.models(item.name)) is not None
            and self.scheduler.health(item.name).state is EndpointState.UP
        ]
        news = self.fetcher.tick(wanted, sites, now)
        for item in self.members:
            if item.host in news:
                self._probe_now(item.name)

    def replace_frozen(self, now: float) -> list[RequestEvent]:
        """Replace workers that exceed their own limits or were stopped; return the outcomes of their requests."""
        frozen = self.scheduler.overdue(self._oldest, now) | set(self.pool.find_stopped())
        return [event for name in frozen for event in self._on_worker_lost(self.pool.replace(name, now), now)]

    def cancel_in_flight(self, job: str | None = None) -> None:
        """Cancel the requests in flight, of one job or of all, so that no server computes a result in vain."""
        for item in self.members:
            for lease in self.scheduler.leases(item.name):
                if job in (None, lease.job):
                    self.pool.send(item.name, Cancel(lease.ticket))

    def _on_message(self, event: Received, now: float) -> RequestEvent | None:
        found: RequestEvent | None = None
        match event.message:
            case Answered():
                found = self._on_answered(event.endpoint, event.message, now)
            case Faulted(ticket, line, fault):
                found = self._on_faulted(event.endpoint, ticket, line, fault, now)
            case Probed(probe):
                self._on_probed(event.endpoint, probe, now)
            case LookedAround():
                self._on_seen(event.endpoint, event.message, now)
            case Uncached(reason):
                self._log_uncached(reason)
            case Weighed(ticket):
                self.scheduler.on_weighed(ticket, event.endpoint)
            case Stepped(text):
                self._on_recovery_step(event.endpoint, text, now)
            case _:
                raise TypeError(type(event.message).__name__)
        self._log_state(event.endpoint)
        return found

    def _on_answered(self, endpoint: str, answer: Answered, now: float) -> RequestAnswered | None:
        lease = self.scheduler.answered(answer.ticket, endpoint, now, answer.span)
        self._break_off_overtaken()
        if lease is None:  # late: another attempt has finished this request, or its job is gone
            return None
        figures = self.figures[endpoint]
        figures.answered += 1
        if answer.span is not None:
            figures.tokens.add(answer.counts.eval_tokens, now)
            figures.prompt_tokens += answer.counts.prompt_tokens
            figures.output_tokens += answer.counts.eval_tokens
        return RequestAnswered(lease, answer)

    def _on_faulted(self, endpoint: str, ticket: int, line: int, fault: Fault, now: float) -> AttemptFailed | None:
        settled = self.scheduler.faulted(ticket, endpoint, fault, now)
        self._break_off_overtaken()
        if settled is None:
            return None
        self.figures[endpoint].faults += 1
        lease, is_final, judged = settled
        return AttemptFailed(lease, line, judged, is_final)

    def _on_grouped(self, endpoint: str, group: Grouped, now: float) -> list[RequestEvent]:
        found: list[RequestEvent | None] = []
        for outcome in group.outcomes:
            if isinstance(outcome, Answered):
                found.append(self._on_answered(endpoint, outcome, now))
            else:
                found.append(self._on_faulted(endpoint, *outcome, now))
        for call in group.calls:
            self.scheduler.on_group_call(endpoint, *call)
        if any(isinstance(item, Faulted) and item.fault.is_late_group for item in group.outcomes):
            self.scheduler.on_group_timeout(endpoint)
        self._log_state(endpoint)
        return [event for event in found if event is not None]

    def _on_recovery_step(self, endpoint: str, text: str, now: float) -> None:
        health = self.scheduler.health(endpoint)
        before = health.state
        self.scheduler.on_recovery_step(endpoint, text, now)
        if health.state is before:  # a change of state is logged anyway, with its reason
            logger.warning("endpoint %s: %s", endpoint, text, extra={"action": "endpoint_rescue", "endpoint": endpoint})

    def _log_uncached(self, reason: str) -> None:
        """Log each reason once: every worker reports it."""
        if reason not in self._uncached:
            self._uncached.add(reason)
            text = "the cache of answers is not used: %s; obcd continues without it (to reset it: obcd cache clear)"
            logger.warning(text, reason, extra={"action": "cache_failed"})

    def _break_off_overtaken(self) -> None:
        """Cancel hedged requests whose response has come from another endpoint."""
        for lease, is_overdue in self.scheduler.take_overtaken():
            self.pool.send(lease.endpoint, Cancel(lease.ticket, is_overdue))
            self._log_state(lease.endpoint)

    def _on_worker_lost(self, lost: Lost, now: float) -> list[RequestEvent]:
        endpoint = lost.endpoint
        self.figures[endpoint].is_looking = False
        self.scheduler.on_probe(endpoint, None, lost.reason, now)
        leases = self.scheduler.leases(endpoint)
        found = [self._on_faulted(endpoint, lease.ticket, 0, worker_lost(), now) for lease in leases]
        self._log_state(endpoint)
        return [event for event in found if event is not None]

    def _on_probed(self, endpoint: str, found: Probe, now: float) -> None:
        figures = self.figures[endpoint]
        figures.is_probing, figures.probed_at = False, now
        self.next_probe = 0.0
        if found.failure is None:
            figures.version, figures.digests = found.version, found.digests
            if found.peer != figures.peer:
                figures.peer = found.peer
                warn_of_peer(self._members[endpoint], found.peer)
        digests = shorten(found.digests) if found.failure is None else None
        self.scheduler.on_probe(endpoint, digests, found.failure, now)

    def _log_left_out(self) -> None:
        self._logged_revision = self.scheduler.revision
        if self._left_out_log.log_news(self.scheduler.odd(), self.scheduler.unfit()):
            self.revision += 1

    def _log_state(self, name: str) -> None:
        """Log an endpoint's state if it has changed; called after every event."""
        figures, health = self.figures[name], self.scheduler.health(name)
        if health.state is figures.state:
            return
        level, text = describe_state(figures.state, health)
        figures.state = health.state
        self.revision += 1
        self.next_probe = 0.0
        logger.log(level, "endpoint %s %s", name, text, extra={"action": "endpoint_state", "endpoint": name})
