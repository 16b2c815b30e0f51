"""The process tied to one endpoint: a thread and a kept-alive connection per slot, one main thread that keeps limits.

A slot is made when a request comes for which there is none: how many there are is the coordinator's to decide.

    coordinator ──Ask──► main thread ──► slot thread ──HTTP──► Ollama
                ◄─Answered / Faulted──── slot thread ◄──────┘
                ◄─Probed, Stepped─────── probe thread (control calls, and what is done about silence)

It holds no state and writes no file: requests are read from the job's folder, results go back over the channel. It
ends when the channel does, whatever it is doing.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from obcd.clock import monotonic, wall
from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import ModelAnswer, Response
from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.concurrency import UNTOLD, Span
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.endpoint.faults import Fault, Remedy, worker_fault
from obcd.core.request.lines import parse_line
from obcd.core.request.records import (
    JobSettings,
    Kind,
    Request,
    Signature,
    answers_of,
    nth_request,
    num_predict_of,
    whole_option,
)
from obcd.core.request.request_key import key_of
from obcd.errors import LineError
from obcd.logs.setup import fault_text
from obcd.ollama.client import HUNG, TIMED_OUT
from obcd.ollama.control import Probe, probe
from obcd.ollama.structured import ask_fitting
from obcd.ollama.transport import Transport
from obcd.secret import Secret
from obcd.spool.folders.layout import CACHE_NAME
from obcd.spool.job.cache import AnswerCache
from obcd.spool.job.job_folder import read_header, read_request_line
from obcd.workers.channel import Channel, ClosedError
from obcd.workers.loader import OTHER_WEIGHTS, Loader, Preflight
from obcd.workers.messages import Answered, Ask, Cancel, Configure, Faulted, Probed, ProbeNow, Stepped, Uncached
from obcd.workers.recovery_driver import RecoveryDriver

#: Jobs whose settings are kept; a job's settings never change.
CACHED_JOBS = 64
#: What is added to the fault of a request that was broken off where nobody else was answered meanwhile.
SILENCE = "nor to any other request meanwhile"


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is told at its start."""

    endpoint: str
    url: str
    jobs: Path
    connect_timeout_seconds: float
    token: Secret | None = None
    require_gpu: bool = False


def run_worker(sock: socket.socket, spec: WorkerSpec) -> None:
    """Be a worker until the channel closes; the target of the process."""
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
        self._probes: queue.SimpleQueue[ProbeNow] = queue.SimpleQueue()
        self._loader = Loader(spec.url, Preflight(spec.token, spec.require_gpu))
        self._rescue = RecoveryDriver(
            spec.url, self._loader, Deadlines(), self._break_off, lambda text: self._reply(Stepped(text))
        )
        answers = AnswerCache(spec.jobs.with_name(CACHE_NAME), lambda reason: self._reply(Uncached(reason)))
        self._common = _Common(self._loader, self._rescue, _JobCache(spec.jobs), answers)
        self._slots: list[_Slot] = []
        #: Tickets that came and have no result yet.
        self._in_flight: set[int] = set()

    def run(self) -> None:
        """Hand out what comes, end what takes too long, until the channel closes."""
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
            case Ask():
                self._on_ask(message)
            case Cancel(ticket, is_overdue):
                if ticket in self._in_flight:
                    self._common.withdrawn.add(ticket)  # first: a slot that takes it up just now looks there
                for slot in self._slots:
                    slot.cancel(ticket, is_overdue=is_overdue)
            case ProbeNow():
                self._probes.put(message)
            case Configure():
                self._configure(message)
            case _:
                raise TypeError(type(message).__name__)

    def _on_ask(self, message: Ask) -> None:
        """Queue a request for whichever slot is free, and see to it that one is."""
        self._in_flight.add(message.ticket)
        if len(self._in_flight) > len(self._slots):
            slot = _Slot(self._common, self._spec, self._give_back)
            self._slots.append(slot)
            threading.Thread(target=slot.run, daemon=True).start()
        self._common.asks.put(message)

    def _give_back(self, result: Answered | Faulted) -> None:
        """Send what came of a request; any slot's thread."""
        self._in_flight.discard(result.ticket)  # first: a cancellation that comes later is not kept
        self._common.withdrawn.discard(result.ticket)
        self._reply(result)
        if isinstance(result, Faulted) and (result.fault.kind == OTHER_WEIGHTS or self._loader.doubted is not None):
            self._probes.put(ProbeNow())  # what the coordinator knows of the endpoint is no longer so

    def _break_off(self) -> None:
        """Break off what is at the server; the probe thread."""
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
        while True:
            self._reply(Probed(self._try_to_probe()))
            self._probes.get()
            while not self._probes.empty():  # one probe is good for all that ask for one by now
                self._probes.get()

    def _try_to_probe(self) -> Probe:
        try:
            found = probe(self._spec.url, self._spec.token)
            return replace(found, failure=found.failure or self._rescue.try_to_help(self._spec.token))
        except Exception as error:  # noqa: BLE001 - a thread that ends would leave the endpoint without probes
            return Probe(f"the worker failed while it probed it ({fault_text(error)})")

    def _reply(self, message: Answered | Faulted | Probed | Stepped | Uncached) -> None:
        try:
            self._channel.send(message)
        except ClosedError:
            os._exit(0)


class _Asked(NamedTuple):
    """One request, with all that it takes to ask it.

    Attributes:
        has_seed: Whether it is one of several answers, each with a seed that its result names.
    """

    request: Request
    settings: JobSettings
    signature: Signature
    has_seed: bool = False


class _JobCache:
    """The settings of the jobs asked lately; any thread."""

    def __init__(self, jobs: Path) -> None:
        self._jobs = jobs
        self._cache: OrderedDict[tuple[str, int], tuple[JobSettings, Signature]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, job: str, ordinal: int, number: int) -> _Asked:
        """Read one request from the job's folder.

        Args:
            number: Of its signature, among those of the job.

        Raises:
            OSError, ValueError, LookupError, TypeError, LineError: If the folder is damaged.
        """
        folder = self._jobs / job
        place, raw = read_request_line(folder, ordinal)
        settings, signature = self._settings(job, folder, number)
        request = parse_line(raw, place.line, settings.reading)
        if answers_of(request, settings) > 1:
            return _Asked(nth_request(request, settings, place.answer), settings, signature, has_seed=True)
        return _Asked(request, settings, signature)

    def _settings(self, job: str, folder: Path, number: int) -> tuple[JobSettings, Signature]:
        with self._lock:
            key = job, number
            if key not in self._cache:
                header = read_header(folder)
                self._cache[key] = header.settings_under(number), header.signatures[number]
                while len(self._cache) > CACHED_JOBS:
                    self._cache.popitem(last=False)
            return self._cache[key]


@dataclass(frozen=True, slots=True)
class _Common:
    """What all slots share.

    Attributes:
        asks: What the next free slot takes up.
        withdrawn: Tickets that have no result yet and are wanted no more.
    """

    loader: Loader
    rescue: RecoveryDriver
    jobs: _JobCache
    answers: AnswerCache
    asks: queue.SimpleQueue[Ask] = field(default_factory=queue.SimpleQueue)
    withdrawn: set[int] = field(default_factory=set)


class _Slot:
    """Room for one request in flight. Its thread asks; the main thread may break it off."""

    def __init__(self, common: _Common, spec: WorkerSpec, give_back: Callable[[Answered | Faulted], None]) -> None:
        self._asks, self._withdrawn = common.asks, common.withdrawn
        self._loader, self._rescue = common.loader, common.rescue
        self._jobs, self._answers = common.jobs, common.answers
        self._spec = spec
        self._give_back = give_back
        self._transport = Transport(spec.url, spec.connect_timeout_seconds, spec.token)
        self._lock = threading.Lock()
        self._ticket: int | None = None
        #: Whether what it asks is at the server, and whether it was broken off since it took too long.
        self._is_sent = self._is_overdue = False
        self.limit: float | None = None  # monotonic seconds; read by the main thread

    def run(self) -> None:
        """Take requests for ever."""
        while True:
            message = self._asks.get()
            with self._lock:
                self._ticket, self._is_overdue = message.ticket, False
                self._transport.arm()
                if message.ticket in self._withdrawn:  # while it waited for us
                    self._transport.abort("cancelled")
            result = self._try_to_ask(message)
            with self._lock:
                self._ticket = self.limit = None
                self._is_sent = False
            self._give_back(result)

    def set_connection(self, connect_timeout: float, token: Secret | None) -> None:
        """Wait so long for the next connection, and send this token with the next request."""
        self._transport.connect_timeout, self._transport.token = connect_timeout, token

    def cancel(self, ticket: int, *, is_overdue: bool) -> None:
        """Break a request off if it is this slot's; one that no slot has yet is withdrawn."""
        with self._lock:
            if self._ticket == ticket:
                self._is_overdue = is_overdue
                self._transport.abort("cancelled")

    def break_off(self) -> None:
        """Break off what is at the server, which hangs."""
        with self._lock:
            if self._is_sent:
                self._transport.abort(HUNG)

    def enforce_limit(self, now: float) -> None:
        """Break off what takes longer than it may."""
        with self._lock:
            if self.limit is not None and now >= self.limit:
                self.limit = None
                self._is_overdue = True
                self._transport.abort(TIMED_OUT)

    def _try_to_ask(self, message: Ask) -> Answered | Faulted:
        """Ask; every ticket comes back, and the thread lives on, whatever goes wrong."""
        try:
            return self._ask(message)
        except Exception as error:  # noqa: BLE001 - a thread that ends would take its slot and its ticket with it
            self._loader.forget()
            return Faulted(message.ticket, 0, worker_fault(fault_text(error)))

    def _ask(self, message: Ask) -> Answered | Faulted:
        try:
            asked = self._jobs.read(message.job, message.ordinal, message.signature)
        except (OSError, ValueError, LookupError, TypeError, LineError) as error:
            fault = Fault("unreadable", f"the job's folder cannot be read ({type(error).__name__})", Remedy.HERE)
            return Faulted(message.ticket, 0, fault)
        request, settings, signature, _ = asked
        key = key_of(request, settings, message.digest) if settings.cache and message.digest else None
        known = self._answers.find(key) if key is not None else None
        if known is not None:
            answer = known._replace(cost=known.cost.untimed(), finished=round(wall(), 3))
            return self._answered(message, asked, answer, is_cached=True)
        outcome = self._rescue.refusal()
        if outcome is None:
            self._is_sent = True
            self.limit = monotonic() + settings.load_timeout_seconds
            outcome = self._loader.ensure(self._transport, signature)
        if outcome is None:
            sent_at = monotonic()
            seconds = self._seconds(asked, message.attempt)
            self.limit = sent_at + seconds
            last = sent_at + settings.request_timeout_seconds
            result = ask_fitting(
                self._transport, request, settings, lambda took: self._extend(message.ticket, took, seconds, last)
            )
            if isinstance(result, ModelAnswer):
                outcome = self._loader.note_used(signature, message.digest, result.cost.load_seconds)
                if outcome is None:
                    self._rescue.deadlines.note(signature, result.cost)
                    if key is not None:
                        self._answers.keep(key, result)
                    return self._answered(message, asked, result)
            else:
                outcome = result
                is_silent = self._is_overdue and self._rescue.on_silence(signature, sent_at)
                if is_silent and outcome.kind == "timeout":
                    outcome = replace(outcome, message=f"{outcome.message}, {SILENCE}")
        if outcome.remedy is not Remedy.NEVER:
            self._loader.forget()
        return Faulted(message.ticket, request.line, outcome)

    def _seconds(self, asked: _Asked, attempt: int) -> float:
        """Return how long a request may take."""
        request, settings, signature, _ = asked
        texts = [settings.system or "", *(str(message.get("content", "")) for message in request.messages)]
        if request.kind is not Kind.CHAT:
            texts += request.inputs or (request.prompt, request.suffix or "")
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        longest = num_predict_of(request, settings)
        return self._rescue.deadlines.limit(signature, size, longest, attempt, settings.request_timeout_seconds)

    def _extend(self, ticket: int, took: float, seconds: float, last: float) -> bool:
        """Give a repair the time of a request of its own, as far as the limit of the whole request goes.

        Args:
            took: Seconds that the answer before it took; where as many are not left it is not begun.
            seconds: What one request may take.
            last: When the whole must have ended, monotonic.
        """
        now = monotonic()
        if now + took >= last:
            return False
        with self._lock:
            if self._ticket == ticket and self.limit is not None:  # else it was broken off just now
                self.limit = min(last, now + seconds)
        return True

    def _answered(self, message: Ask, asked: _Asked, answer: ModelAnswer, *, is_cached: bool = False) -> Answered:
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


def _span(response: Response) -> Span | None:
    cost = response.answer.cost
    if response.is_cached:
        return None
    if response.answer.embeddings is not None:
        return UNTOLD
    return Span(cost.prompt_eval_seconds + cost.eval_seconds, cost.wait_seconds)
