"""The worker, a process for one endpoint: a thread and a kept-alive connection per slot, a main thread for time limits.

A slot is made when a request comes for which no slot is free: the coordinator decides how many there are.

    coordinator ──Ask──► main thread ──► slot thread ──HTTP──► Ollama
                ◄─Answered / Faulted──── slot thread ◄──────┘
                ◄─Probed, Stepped─────── probe thread (control calls, and recovery of a silent server)

A worker reads requests from the job's folder and returns results over the channel; the only file that it writes is the
cache of answers. Its knowledge (the loaded model, measured speeds, settings of the last jobs) may be lost at any time:
the worker ends when the channel closes, whatever it is doing.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from obcd.clock import monotonic, wall
from obcd.core.answer.counts import Counts
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import ModelAnswer, Response
from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.endpoint.embedding_turns import EmbeddingTurns
from obcd.core.endpoint.faults import Fault, Remedy, attempt_cancelled, job_unreadable, server_ended, worker_fault
from obcd.core.request.records import Kind, canonical_model, num_predict_of, whole_option
from obcd.core.request.request_key import key_of
from obcd.errors import LineError
from obcd.logs.setup import fault_text
from obcd.ollama.client import HUNG, TIMED_OUT
from obcd.ollama.control import ControlError, Probe, ask_loaded, probe
from obcd.ollama.repetition import with_other_seed
from obcd.ollama.structured import ask_fitting
from obcd.ollama.transport import Transport
from obcd.secret import Secret
from obcd.spool.folders.layout import CACHE_NAME
from obcd.spool.job.cache import AnswerCache
from obcd.workers.channel import Channel, ClosedError
from obcd.workers.embedding_groups import Member, is_divisible, kept_share, merged, send, size_of
from obcd.workers.job_requests import Asked, JobRequests
from obcd.workers.loader import LOADED_LOAD_SECONDS, Loader, Preflight
from obcd.workers.messages import (
    Answered,
    Ask,
    AskGroup,
    Cancel,
    Configure,
    Faulted,
    GroupCall,
    Grouped,
    LookAround,
    LookedAround,
    Probed,
    ProbeNow,
    Stepped,
    Uncached,
    Weighed,
    tickets_of,
)
from obcd.workers.recovery_driver import REPLACED, RecoveryDriver

#: Added to the fault of a cancelled request if no other request got a response meanwhile.
SILENCE = "nor to any other request meanwhile"
#: Added to what happened, before the advice, to the fault of a request whose answer repeated itself again.
TWICE = ", with another seed too"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The facts that a worker gets at its start."""

    endpoint: str
    url: str
    jobs: Path
    connect_timeout_seconds: float
    token: Secret | None = None
    require_gpu: bool = False


def run_worker(sock: socket.socket, spec: WorkerSpec) -> None:
    """Run a worker until the channel closes; the target of the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the coordinator decides when workers end: by closing the channel
    try:
        _Worker(Channel(sock), spec).run()
    finally:
        os._exit(0)  # slot threads wait in the kernel; their connections close with the process


class _Worker:
    def __init__(self, channel: Channel, spec: WorkerSpec) -> None:
        self._channel = channel
        self._spec = spec
        self._probes: queue.SimpleQueue[ProbeNow | LookAround] = queue.SimpleQueue()
        self._loader = Loader(spec.url, Preflight(spec.token, spec.require_gpu))
        self._recovery = RecoveryDriver(
            spec.url, self._loader, Deadlines(), self._break_off, lambda text: self._reply(Stepped(text))
        )
        answers = AnswerCache(spec.jobs.with_name(CACHE_NAME), lambda reason: self._reply(Uncached(reason)))
        self._common = _Common(self._loader, self._recovery, JobRequests(spec.jobs), answers)
        self._slots: list[_Slot] = []
        #: Tickets received that have no result yet.
        self._in_flight: set[int] = set()
        #: The first ticket of each request or group received that has no result yet.
        self._calls: set[int] = set()

    def run(self) -> None:
        """Pass requests to slots, and cancel those that take too long, until the channel closes."""
        threading.Thread(target=self._probe_forever, daemon=True).start()
        while True:
            select.select([self._channel], [], [], self._until_next_limit())
            try:
                messages = self._channel.receive()
            except ClosedError:
                return
            for message in messages:
                self._take(message)
            now = monotonic()
            for slot in self._slots:
                slot.enforce_limit(now)

    def _take(self, message: object) -> None:
        match message:
            case Ask() | AskGroup():
                self._on_ask(message)
            case Cancel(ticket, is_overdue):
                if ticket in self._in_flight:
                    self._common.withdrawn.add(ticket)  # first: a slot that takes it just now checks this set
                for slot in self._slots:
                    slot.cancel(ticket, is_overdue=is_overdue)
            case ProbeNow() | LookAround():
                self._probes.put(message)
            case Configure():
                self._configure(message)
            case _:
                raise TypeError(type(message).__name__)

    def _on_ask(self, message: Ask | AskGroup) -> None:
        """Queue a request, or a group, for any free slot; add a slot if none would be free."""
        tickets = tickets_of(message)
        self._in_flight.update(tickets)
        self._calls.add(tickets[0])
        if len(self._calls) > len(self._slots):
            slot = _Slot(self._common, self._spec, self._give_back)
            self._slots.append(slot)
            threading.Thread(target=slot.run, daemon=True).start()
        self._common.asks.put(message)

    def _give_back(self, result: Answered | Faulted | Grouped | Weighed) -> None:
        """Send the outcome of a request, or that it will come; called by the threads of all slots."""
        if isinstance(result, Weighed):
            self._reply(result)
            return
        outcomes = result.outcomes if isinstance(result, Grouped) else (result,)
        for outcome in outcomes:
            self._in_flight.discard(outcome.ticket)  # first: a later cancellation is not kept
            self._calls.discard(outcome.ticket)
            self._common.withdrawn.discard(outcome.ticket)
        if not self._in_flight:
            self._common.jobs.close()
        self._reply(result)
        faults = [outcome.fault for outcome in outcomes if isinstance(outcome, Faulted)]
        if faults and (
            any(fault.kind is FaultKind.OTHER_WEIGHTS for fault in faults) or self._loader.doubted is not None
        ):
            self._probes.put(ProbeNow())  # the coordinator's view of the endpoint is out of date

    def _break_off(self) -> None:
        """Cancel the requests at the server; called by the probe thread."""
        for slot in self._slots:
            slot.break_off()

    def _configure(self, wanted: Configure) -> None:
        connect_timeout = wanted.connect_timeout_seconds
        self._spec = replace(self._spec, connect_timeout_seconds=connect_timeout, token=wanted.token)
        self._loader.configure(Preflight(wanted.token, wanted.require_gpu))
        for slot in self._slots:
            slot.set_connection(connect_timeout, wanted.token)

    def _until_next_limit(self) -> float:
        limits = [slot.limit for slot in self._slots if slot.limit is not None]
        return min(1.0, max(0.0, min(limits) - monotonic())) if limits else 1.0

    def _probe_forever(self) -> None:
        wanted: set[type[ProbeNow | LookAround]] = {ProbeNow}
        while True:
            if LookAround in wanted:
                self._reply(self._look_around())
            if ProbeNow in wanted:
                self._reply(Probed(self._try_to_probe()))
            wanted = {type(self._probes.get())}
            while not self._probes.empty():  # one probe serves all requests for a probe so far
                wanted.add(type(self._probes.get()))

    def _look_around(self) -> LookedAround:
        began = monotonic()
        try:
            models = ask_loaded(self._spec.url, self._spec.token)
        except ControlError:  # a probe finds out what that means
            return LookedAround(None, monotonic() - began)
        return LookedAround({canonical_model(item.name): item.expires_at for item in models}, monotonic() - began)

    def _try_to_probe(self) -> Probe:
        try:
            found = probe(self._spec.url, self._spec.token)
            return replace(found, failure=found.failure or self._recovery.try_to_help(self._spec.token))
        except Exception as error:  # noqa: BLE001 - a thread that ends would leave the endpoint without probes
            return Probe(f"the worker failed while it probed it ({fault_text(error)})")

    def _reply(
        self, message: Answered | Faulted | Grouped | Probed | LookedAround | Stepped | Uncached | Weighed
    ) -> None:
        try:
            self._channel.send(message)
        except ClosedError:
            os._exit(0)


@dataclass(frozen=True, slots=True)
class _Common:
    """The objects that all slots share.

    Attributes:
        asks: The requests that wait for a free slot.
        withdrawn: Tickets that have no result yet and are no longer needed.
    """

    loader: Loader
    recovery: RecoveryDriver
    jobs: JobRequests
    answers: AnswerCache
    asks: queue.SimpleQueue[Ask | AskGroup] = field(default_factory=queue.SimpleQueue)
    withdrawn: set[int] = field(default_factory=set)
    turns: EmbeddingTurns = field(default_factory=EmbeddingTurns)


class _Slot:
    """Room for one request in flight. Its own thread sends requests; the main thread may cancel them."""

    def __init__(
        self, common: _Common, spec: WorkerSpec, give_back: Callable[[Answered | Faulted | Grouped | Weighed], None]
    ) -> None:
        self._asks, self._withdrawn = common.asks, common.withdrawn
        self._loader, self._recovery = common.loader, common.recovery
        self._jobs, self._answers, self._turns = common.jobs, common.answers, common.turns
        self._refusals, self._cuts = common.recovery.refusals, common.recovery.cuts
        self._spec = spec
        self._give_back = give_back
        self._transport = Transport(spec.url, spec.connect_timeout_seconds, spec.token)
        self._lock = threading.Lock()
        self._ticket: int | None = None
        #: Those of its tickets that were not cancelled: a group has several.
        self._wanted: set[int] = set()
        #: Whether its request is at the server, and whether it was cancelled because it took too long.
        self._is_sent = self._is_overdue = False
        self.limit: float | None = None  # monotonic seconds; read by the main thread

    def run(self) -> None:
        """Execute requests for ever."""
        while True:
            message = self._asks.get()
            tickets = tickets_of(message)
            with self._lock:
                self._ticket, self._is_overdue = tickets[0], False
                self._transport.arm()
                self._wanted = {ticket for ticket in tickets if ticket not in self._withdrawn}
                if not self._wanted:  # cancelled while it waited for a slot
                    self._transport.abort("cancelled")
            result = self._try_to_ask(message)
            self._cuts.end(id(self))
            with self._lock:
                self._ticket = self.limit = None
                self._wanted = set()
                self._is_sent = False
            self._give_back(result)

    def set_connection(self, connect_timeout: float, token: Secret | None) -> None:
        """Use this time limit for the next connection, and this token for the next request."""
        self._transport.connect_timeout, self._transport.token = connect_timeout, token

    def cancel(self, ticket: int, *, is_overdue: bool) -> None:
        """Cancel a request if it is this slot's; a request that no slot has yet is in `withdrawn`.

        A group goes on for the others until all are cancelled.
        """
        with self._lock:
            if ticket in self._wanted:
                self._wanted.remove(ticket)
                if not self._wanted:
                    self._is_overdue = is_overdue
                    self._transport.abort("cancelled")

    def break_off(self) -> None:
        """Cancel the request at the server, which hangs."""
        with self._lock:
            if self._is_sent:
                self._transport.abort(HUNG)

    def enforce_limit(self, now: float) -> None:
        """Cancel the request if its time limit is over."""
        limit = self.limit
        if limit is None or now < limit:  # the usual case: all slots are checked at every message
            return
        with self._lock:
            if self.limit is not None and now >= self.limit:
                self.limit = None
                self._is_overdue = True
                self._transport.abort(TIMED_OUT)

    def _try_to_ask(self, message: Ask | AskGroup) -> Answered | Faulted | Grouped:
        """Send a request, or several; whatever goes wrong, each ticket gets a result and the thread continues."""
        try:
            return self._ask_group(message) if isinstance(message, AskGroup) else self._ask(message)
        except Exception as error:  # noqa: BLE001 - a thread that ends would take its slot and its ticket with it
            self._loader.forget()
            fault = worker_fault(fault_text(error))
            if isinstance(message, Ask):
                return Faulted(message.ticket, 0, fault)
            if len(message.asks) > 1:
                fault = replace(fault, costs_attempt=False, is_shared=True)
            return Grouped(tuple(Faulted(item.ticket, 0, fault) for item in message.asks))

    def _ask(self, message: Ask) -> Answered | Faulted:
        member = self._read(message)
        if not isinstance(member, Member):
            return member
        request = member.asked.request
        asked, result = self._exchange(message, member.asked)
        if isinstance(result, Fault):
            return Faulted(message.ticket, request.line, result)
        if asked.request is request:
            self._keep(member, result)
        return self._answered(message, asked, result)

    def _read(self, message: Ask) -> Member | Answered | Faulted:
        """Read a request; return its outcome if it need not be sent, because an earlier job has its answer."""
        try:
            asked = self._jobs.read(message.job, message.ordinal, message.signature, message.attempt)
        except (OSError, ValueError, LookupError, TypeError, LineError) as error:
            return Faulted(message.ticket, 0, job_unreadable(error))
        key = key_of(asked.request, asked.settings, message.digest) if asked.settings.cache and message.digest else None
        known = self._find_known(key, asked)
        if known is None:
            return Member(message, asked, key)
        answer = known._replace(cost=known.cost.untimed(), finished=round(wall(), 3))
        return self._answered(message, asked, answer, is_cached=True)

    def _ask_group(self, group: AskGroup) -> Grouped:
        """Send requests for vectors in groups; those that were cancelled meanwhile are left out."""
        outcomes: list[Answered | Faulted] = []
        members: list[Member] = []
        calls: list[GroupCall] = []
        for message in group.asks:
            found = self._read(message) if message.ticket in self._wanted else _cancelled(message)
            if isinstance(found, Member):
                members.append(found)
            else:
                outcomes.append(found)

        def call(part: Sequence[Member]) -> ModelAnswer | Fault:
            asked, result = self._exchange(part[0].ask, merged(part), len(part))
            if isinstance(result, ModelAnswer):
                cost = result.cost
                loading = cost.load_seconds if cost.load_seconds > LOADED_LOAD_SECONDS else 0.0
                work = cost.seconds - cost.wait_seconds - loading
                calls.append(GroupCall(len(part), len(asked.request.inputs), work))
            return result

        for member, result in send(members, call):
            if isinstance(result, Fault):
                outcomes.append(Faulted(member.ask.ticket, member.asked.request.line, result))
            else:
                self._keep(member, kept_share(result))
                outcomes.append(self._answered(member.ask, member.asked, result))
        return Grouped(tuple(outcomes), tuple(calls))

    def _exchange(self, message: Ask, asked: Asked, requests: int = 1) -> tuple[Asked, ModelAnswer | Fault]:
        """Load the model, send a request, and judge the outcome.

        Args:
            message: The request that is sent; the first one, if several go out in one call.
            requests: How many requests are sent in one; their fault is not examined if they are sent in halves.

        Returns:
            The request that was sent last, and its answer, or its fault as it counts.
        """
        signature = asked.signature
        fault = self._recovery.refusal() or self._loader.refusal(
            asked.request, asked.settings, signature, message.digest
        )
        if fault is None:
            self._is_sent = True
            fault = self._load(asked)
        if fault is None:
            sent_at = monotonic()
            asked, result = self._send(message, asked)
            if isinstance(result, ModelAnswer):
                loading, repeats = result.cost.load_seconds, 1 + result.repairs
                fault = self._loader.note_used(signature, message.digest, loading, repeats)
                if fault is None:
                    self._recovery.deadlines.note(signature, result.cost)
                    return asked, self._turns.with_wait(result, sent_at, monotonic())
            elif requests > 1 and is_divisible(result):
                return asked, result
            else:
                fault = self._weigh(message, result, asked, sent_at)
        if fault.remedy is not Remedy.NEVER and not fault.is_refusal:
            self._loader.forget()
        return asked, fault

    def _find_known(self, key: bytes | None, asked: Asked) -> ModelAnswer | None:
        """Return the answer of an earlier job; None if it lacks what this job needs: a text, or its own tokens."""
        known = self._answers.find(key) if key is not None else None
        if known is None or (known.is_empty and asked.settings.empty != "keep"):
            return None
        return None if asked.needs_usage and known.group_size > 1 else known

    def _keep(self, member: Member, answer: ModelAnswer) -> None:
        """Store an answer for later jobs."""
        if member.key is not None:
            self._answers.keep(member.key, answer, replaces=member.asked.needs_usage)

    def _load(self, asked: Asked) -> Fault | None:
        """Load the model for a request; its fault is not that of the request, which was not sent."""
        self.limit = monotonic() + asked.settings.load_timeout_seconds
        fault = self._loader.ensure(self._transport, asked.signature)
        if fault is not None and fault.kind is FaultKind.CUT:
            fault = server_ended() if self._cuts.is_server_gone(id(self), None, self._spec.token) else fault
        return fault and replace(fault, reached_model=False)

    def _send(self, message: Ask, asked: Asked) -> tuple[Asked, ModelAnswer | Fault]:
        """Send a request; if its answer repeats itself, once more with another seed.

        Returns:
            The request that was sent last, and its result.
        """
        sent_at = monotonic()
        seconds = self._seconds(asked, message.attempt)
        self.limit = sent_at + seconds
        last = sent_at + asked.settings.request_timeout_seconds

        def has_time(took: float) -> bool:
            return self._extend(message.ticket, took, seconds, last)

        self._cuts.begin(id(self))
        result = ask_fitting(self._transport, asked.request, asked.settings, has_time)
        if isinstance(result, Fault) and result.kind is FaultKind.REPETITION:
            other = with_other_seed(asked.request, asked.settings)
            if other is not None and has_time(monotonic() - sent_at):
                asked = asked._replace(request=other)
                result = ask_fitting(self._transport, other, asked.settings, has_time)
                if isinstance(result, Fault) and result.kind is FaultKind.REPETITION:
                    happened, colon, advice = result.message.partition(":")
                    result = replace(result, message=happened + TWICE + colon + advice)
        return asked, result

    def _weigh(self, message: Ask, fault: Fault, asked: Asked, sent_at: float) -> Fault:
        """Return a fault as it counts, once it is known whether the server ended, hung, or refuses this request."""
        token, signature = self._spec.token, asked.signature
        with self._lock:
            self.limit, is_overdue = None, self._is_overdue  # the request is over
        if is_overdue:
            if not self._recovery.on_silence(signature, sent_at) or fault.kind is not FaultKind.TIMEOUT:
                return fault
            # Only a last attempt needs to know: others are sent again in any case.
            if message.attempt >= asked.settings.attempts and self._recovery.wait_for_reload(signature):
                return REPLACED
            return replace(fault, message=f"{fault.message}, {SILENCE}")
        if fault.kind is FaultKind.CUT:
            listed = signature if self._loader.was_listed else None
            return server_ended() if self._cuts.is_server_gone(id(self), listed, token) else fault
        self._cuts.end(id(self))
        if self._refusals.needs_proof(fault, signature, sent_at):
            self._give_back(Weighed(message.ticket))
        return self._refusals.weigh(fault, signature, sent_at, asked.settings.load_timeout_seconds, token)

    def _seconds(self, asked: Asked, attempt: int) -> float:
        """Return how long a request may take, in seconds."""
        request, settings, signature = asked.request, asked.settings, asked.signature
        texts = [settings.system or "", *(str(message.get("content", "")) for message in request.messages)]
        if request.kind is not Kind.CHAT:
            texts += request.inputs or (request.prompt, request.suffix or "")
        longest, most = num_predict_of(request, settings), settings.request_timeout_seconds
        count = max(1, len(request.inputs))
        return self._recovery.deadlines.limit(signature, size_of(texts), longest, attempt, most, count)

    def _extend(self, ticket: int, took: float, seconds: float, last: float) -> bool:
        """Give a repair its own time limit, within the limit of the whole request.

        Args:
            took: Seconds that the previous response took; if fewer are left, the repair is not started.
            seconds: How long one request may take.
            last: When the whole request must have ended, in monotonic seconds.
        """
        now = monotonic()
        if now + took >= last:
            return False
        with self._lock:
            if self._ticket == ticket and self.limit is not None:  # otherwise it was cancelled just now
                self.limit = min(last, now + seconds)
        return True

    def _answered(self, message: Ask, asked: Asked, answer: ModelAnswer, *, is_cached: bool = False) -> Answered:
        response = Response(
            ordinal=message.ordinal,
            line=asked.request.line,
            attempts=message.attempt,
            endpoint=self._spec.endpoint,
            answer=answer,
            is_cached=is_cached,
            seed=whole_option(asked.request.options, "seed", 0) if asked.has_seed else None,
            is_hedged=message.is_hedged and not is_cached,
            weights=(asked.signature.model, message.digest) if message.digest else None,
        )
        return Answered(
            ticket=message.ticket,
            record=encode(response),
            line=response.line,
            words=len((answer.text or "").split()),
            counts=Counts.of(response),
            span=_span(response),
        )


def _cancelled(message: Ask) -> Faulted:
    return Faulted(message.ticket, 0, attempt_cancelled())


def _span(response: Response) -> Span | None:
    cost = response.answer.cost
    if response.is_cached:
        return None
    if response.answer.embeddings is not None:
        return UNTOLD
    work = cost.prompt_eval_seconds + cost.eval_seconds
    return Span(work, cost.wait_seconds, cost.load_seconds, cost.eval_tokens)
