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
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.request.records import canonical_model
from obcd.logs.setup import fault_text
from obcd.ollama.control import ControlError, Probe, ask_loaded, probe
from obcd.ollama.transport import Transport
from obcd.secret import Secret
from obcd.spool.folders.layout import CACHE_NAME
from obcd.spool.job.cache import AnswerCache
from obcd.workers.channel import Channel, ClosedError
from obcd.workers.loader import Loader, Preflight
from obcd.workers.messages import (
    Answered,
    Ask,
    AskGroup,
    Cancel,
    Configure,
    Faulted,
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
from obcd.workers.recovery_driver import RecoveryDriver
from obcd.workers.slots.job_requests import JobRequests
from obcd.workers.slots.slot import SharedBySlots, Slot


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
        self._common = SharedBySlots(self._loader, self._recovery, JobRequests(spec.jobs), answers)
        self._slots: list[Slot] = []
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
                slot.in_flight.enforce_limit(now)

    def _take(self, message: object) -> None:
        match message:
            case Ask() | AskGroup():
                self._on_ask(message)
            case Cancel(ticket, is_overdue):
                if ticket in self._in_flight:
                    self._common.withdrawn.add(ticket)  # first: a slot that takes it just now checks this set
                for slot in self._slots:
                    slot.in_flight.cancel(ticket, is_overdue=is_overdue)
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
            spec = self._spec
            transport = Transport(spec.url, spec.connect_timeout_seconds, spec.token)
            slot = Slot(self._common, spec.endpoint, transport, self._give_back)
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
            slot.in_flight.break_off()

    def _configure(self, wanted: Configure) -> None:
        connect_timeout = wanted.connect_timeout_seconds
        self._spec = replace(self._spec, connect_timeout_seconds=connect_timeout, token=wanted.token)
        self._loader.configure(Preflight(wanted.token, wanted.require_gpu))
        for slot in self._slots:
            slot.set_connection(connect_timeout, wanted.token)

    def _until_next_limit(self) -> float:
        limits = [limit for slot in self._slots if (limit := slot.in_flight.limit) is not None]
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
