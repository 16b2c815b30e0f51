"""A slot of a worker: its thread reads a request, loads its model, sends it and returns its result."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from obcd.clock import monotonic, wall
from obcd.core.answer.counts import Counts
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import ModelAnswer, Response
from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.embedding_turns import EmbeddingTurns
from obcd.core.endpoint.faults import Fault, Remedy, attempt_cancelled, job_unreadable, server_ended, worker_fault
from obcd.core.request.records import Kind, num_predict_of, whole_option
from obcd.core.request.request_key import key_of
from obcd.errors import LineError
from obcd.logs.setup import fault_text
from obcd.ollama.repetition import with_other_seed
from obcd.ollama.structured import ask_fitting
from obcd.ollama.transport import Transport
from obcd.secret import Secret
from obcd.spool.job.cache import AnswerCache
from obcd.workers.loader import LOADED_LOAD_SECONDS, Loader
from obcd.workers.messages import Answered, Ask, AskGroup, Faulted, GroupCall, Grouped, Weighed, tickets_of
from obcd.workers.recovery_driver import REPLACED, RecoveryDriver
from obcd.workers.slots.embedding_groups import Member, is_divisible, kept_share, merged, send, size_of
from obcd.workers.slots.in_flight import InFlight
from obcd.workers.slots.job_requests import Asked, JobRequests

#: Added to the fault of a cancelled request if no other request got a response meanwhile.
SILENCE = "nor to any other request meanwhile"
#: Added to what happened, before the advice, to the fault of a request whose answer repeated itself again.
TWICE = ", with another seed too"
#: Receives the outcome of a request, or that it will come.
GiveBack = Callable[[Answered | Faulted | Grouped | Weighed], None]


@dataclass(frozen=True, slots=True)
class SharedBySlots:
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


class Slot:
    """Room for one request in flight. Its own thread sends requests; `in_flight` is how other threads cancel them."""

    def __init__(self, common: SharedBySlots, endpoint: str, transport: Transport, give_back: GiveBack) -> None:
        self._asks, self._withdrawn = common.asks, common.withdrawn
        self._loader, self._recovery = common.loader, common.recovery
        self._jobs, self._answers, self._turns = common.jobs, common.answers, common.turns
        self._refusals, self._cuts = common.recovery.refusals, common.recovery.cuts
        self._endpoint = endpoint
        self._give_back = give_back
        self._transport = transport
        self.in_flight = InFlight(transport)

    def run(self) -> None:
        """Execute requests for ever."""
        while True:
            message = self._asks.get()
            self.in_flight.begin(tickets_of(message), self._withdrawn)
            result = self._try_to_ask(message)
            self._cuts.end(id(self))
            self.in_flight.end()
            self._give_back(result)

    def set_connection(self, connect_timeout: float, token: Secret | None) -> None:
        """Use this time limit for the next connection, and this token for the next request."""
        self._transport.connect_timeout, self._transport.token = connect_timeout, token

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
            found = self._read(message) if self.in_flight.is_wanted(message.ticket) else _cancelled(message)
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
            self.in_flight.is_sent = True
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
        self.in_flight.limit = monotonic() + asked.settings.load_timeout_seconds
        fault = self._loader.ensure(self._transport, asked.signature)
        if fault is not None and fault.kind is FaultKind.CUT:
            fault = server_ended() if self._cuts.is_server_gone(id(self), None, self._transport.token) else fault
        return fault and replace(fault, reached_model=False)

    def _send(self, message: Ask, asked: Asked) -> tuple[Asked, ModelAnswer | Fault]:
        """Send a request; if its answer repeats itself, once more with another seed.

        Returns:
            The request that was sent last, and its result.
        """
        sent_at = monotonic()
        seconds = self._seconds(asked, message.attempt)
        self.in_flight.limit = sent_at + seconds
        last = sent_at + asked.settings.request_timeout_seconds

        def has_time(took: float) -> bool:
            return self.in_flight.extend(took, seconds, last)

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
        token, signature = self._transport.token, asked.signature
        if self.in_flight.stop_clock():
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

    def _answered(self, message: Ask, asked: Asked, answer: ModelAnswer, *, is_cached: bool = False) -> Answered:
        response = Response(
            ordinal=message.ordinal,
            line=asked.request.line,
            attempts=message.attempt,
            endpoint=self._endpoint,
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
    return Span(work, cost.wait_seconds, cost.load_seconds, cost.eval_tokens, cost.prompt_eval_seconds)
