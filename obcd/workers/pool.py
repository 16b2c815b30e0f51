"""The pool of workers: sends requests to endpoints, receives the outcomes, and reports lost workers.

The pool is the interface between the coordinator and the engine that runs the workers; multiprocessing is its first
engine. Processes are started by a fork server that has preloaded the imports, never by a fork of the coordinator, which
has threads and holds locks. Start workers from the main thread.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, KeysView
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from typing import Any

import psutil

from obcd.clock import monotonic
from obcd.core.endpoint.retry import pause
from obcd.text import duration
from obcd.workers.channel import ClosedError, channel_pair
from obcd.workers.forking import forkserver
from obcd.workers.messages import Ask, Configure, ProbeNow
from obcd.workers.worker import WorkerSpec, run_worker

logger = logging.getLogger(__name__)

#: A worker that lived for fewer seconds than this died at its start; the next start waits longer.
EARLY_DEATH_SECONDS = 10.0
RESTART_BASE, RESTART_LIMIT = 0.2, 60.0
#: Seconds until a start that the machine refused is retried.
REFUSED_SECONDS = 2.0
#: Seconds that a child gets to end by itself before it is killed.
GRACE_SECONDS = 2.0
#: Most seconds that starts of workers may take in one tick of the main loop; one start takes 5 to 50 ms.
START_SECONDS = 0.04


class Child:
    """One child process and the channel to it.

    Raises:
        OSError, EOFError: If it cannot be started, e.g. because no descriptors are left. No process is left then.
    """

    def __init__(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        self.channel, theirs = channel_pair()
        self._process: ForkServerProcess = forkserver().Process(
            name=name, target=target, args=(theirs, *arguments), daemon=True
        )
        try:
            self._process.start()
        except BaseException:
            self.channel.close()
            raise
        finally:
            theirs.close()  # otherwise this process would never see the end of file

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether the process is running."""
        return self._process.is_alive()

    @property
    def is_stopped(self) -> bool:
        """Return whether the process is stopped by a signal."""
        try:
            return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        except (psutil.Error, OSError):  # OSError: it cannot be examined because no descriptors are left
            return False

    def end(self, grace: float = GRACE_SECONDS) -> None:
        """Close the channel, wait, kill, reap."""
        self.channel.close()
        self._process.join(grace)
        self.kill()

    def kill(self) -> None:
        """Kill and reap; safe if the process is already gone."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(GRACE_SECONDS)
        self.channel.close()


def try_to_start(name: str, target: Callable[..., None], *arguments: Any) -> Child | None:
    """Start a child process; None if the machine refuses (no descriptors or memory left), which is logged."""
    try:
        return Child(name, target, *arguments)
    except (OSError, EOFError) as error:  # EOFError: the fork server failed and ended; another one starts
        reason = getattr(error, "strerror", None) or "the process that starts them has ended"
        logger.warning("%s cannot be started: %s; obcd keeps trying", name, reason, extra={"action": "start_refused"})
        return None


@dataclass(frozen=True, slots=True)
class Received:
    """A message from a worker."""

    endpoint: str
    message: Any


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone; its requests in flight have to be sent again."""

    endpoint: str
    reason: str = "its worker ended; another one starts"


@dataclass(slots=True)
class _Worker:
    spec: WorkerSpec
    child: Child | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    early_deaths: int = 0
    stood_still: bool = False  # at the last check


class Pool:
    """One worker process per endpoint. Main thread only; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        #: Those of them that do not run. A collection that is examined in every tick of the main loop has to be short.
        self._missing: dict[str, _Worker] = {}
        #: {descriptor of a running worker: its endpoint}
        self._channels: dict[int, str] = {}
        #: Endpoints whose worker has not read everything that was sent to it.
        self._unread: set[str] = set()
        #: [(child whose channel is closed, when it is killed)]
        self._leaving: list[tuple[Child, float]] = []

    def add(self, spec: WorkerSpec) -> None:
        """Add a worker for an endpoint; `start_missing` starts it."""
        self._workers[spec.endpoint] = self._missing[spec.endpoint] = _Worker(spec)

    def configure(self, spec: WorkerSpec) -> None:
        """Change a worker's time limit for connections and its token while it works."""
        if self._workers[spec.endpoint].spec == spec:
            return
        self._workers[spec.endpoint].spec = spec  # for its successor, if it is gone or ends
        self.send(spec.endpoint, Configure(spec.connect_timeout_seconds, spec.token, spec.require_gpu))

    def remove(self, endpoint: str, now: float) -> None:
        """End an endpoint's worker without waiting for it; `reap` does the rest."""
        worker = self._workers.pop(endpoint)
        self._note_gone(endpoint)
        self._missing.pop(endpoint, None)
        if worker.child is not None:
            worker.child.channel.close()
            self._leaving.append((worker.child, now + GRACE_SECONDS))

    def reap(self, now: float) -> None:
        """Reap removed workers that have ended, and kill those that do not end in time."""
        leaving = self._leaving
        if not leaving:
            return
        self._leaving = [(child, limit) for child, limit in leaving if child.is_alive and now < limit]
        for child, _ in leaving:
            if not any(child is other for other, _ in self._leaving):
                child.kill()

    def start_missing(self, now: float) -> list[str]:
        """Start workers that do not run and whose pause is over; return their endpoints.

        It starts as many as fit into a tick of the main loop, but at least one: a reload may add dozens. The others
        remain due.
        """
        started: list[str] = []
        until = monotonic() + START_SECONDS  # not `now`: each start blocks, and this tick may have begun long ago
        for name, worker in list(self._missing.items()):
            if now >= worker.restart_at and (not started or monotonic() < until):
                worker.child = try_to_start(f"worker {name}", run_worker, worker.spec)
                if worker.child is None:  # the next start would be refused too
                    worker.restart_at = now + REFUSED_SECONDS
                    return started
                worker.started_at = now
                self._channels[worker.child.channel.fileno()] = name
                del self._missing[name]
                started.append(name)
        return started

    @property
    def channels(self) -> KeysView[int]:
        """The descriptors to wait on."""
        return self._channels.keys()

    def find_ready(self, readable: Iterable[int]) -> list[str]:
        """Return the endpoints whose worker has sent a message or is gone; flush the channels of the others.

        Args:
            readable: Descriptors that can be read; those of others than workers are ignored.
        """
        lost = [name for name in list(self._unread) if self._flush(name)] if self._unread else []
        return lost + [self._channels[one] for one in readable if one in self._channels]

    def _flush(self, endpoint: str) -> bool:
        """Flush a worker's channel; return whether the worker is lost because it does not read."""
        child = self._workers[endpoint].child
        if child is None:
            return False
        with contextlib.suppress(ClosedError):  # its channel is then readable, or lost
            child.channel.flush()
        if not child.channel.wants_write and not child.channel.is_lost:
            self._unread.discard(endpoint)
        return child.channel.is_lost

    def _note_gone(self, endpoint: str) -> None:
        self._channels = {one: name for one, name in self._channels.items() if name != endpoint}
        self._unread.discard(endpoint)

    def pids(self) -> dict[str, int | None]:
        """Return `{endpoint: pid of its worker}`."""
        return {name: worker.child.pid for name, worker in self._workers.items() if worker.child is not None}

    def send(self, endpoint: str, message: Ask | Configure | ProbeNow | Any) -> None:
        """Send a message to a worker; the next `receive` notices a worker that is gone."""
        worker = self._workers[endpoint]
        if worker.child is None:
            return
        with contextlib.suppress(ClosedError):
            worker.child.channel.send(message)
        if worker.child.channel.wants_write or worker.child.channel.is_lost:
            self._unread.add(endpoint)

    def receive(self, endpoint: str, now: float) -> Iterator[Received | Lost]:
        """Yield the messages that a worker has sent."""
        worker = self._workers[endpoint]
        if worker.child is None:
            return
        try:
            for message in worker.child.channel.receive():
                yield Received(endpoint, message)
        except ClosedError:
            yield self.replace(endpoint, now)

    def replace(self, endpoint: str, now: float) -> Lost:
        """Kill a worker that is gone or frozen; `start_missing` starts another one after a pause."""
        worker = self._workers[endpoint]
        if worker.child is not None:
            worker.child.kill()
            worker.child = None
        self._note_gone(endpoint)
        self._missing[endpoint] = worker
        early = now - worker.started_at < EARLY_DEATH_SECONDS
        worker.early_deaths = worker.early_deaths + 1 if early else 0
        worker.restart_at = now + pause(worker.early_deaths, RESTART_BASE, RESTART_LIMIT, endpoint)
        extra = {"action": "worker_lost", "endpoint": endpoint}
        logger.warning("worker of %s is gone, another one starts", endpoint, extra=extra)
        if worker.early_deaths < 2:
            return Lost(endpoint)
        wait = f"the next one starts in {duration(worker.restart_at - now)}"
        return Lost(endpoint, f"its worker ended soon after its start, {worker.early_deaths} times in a row: {wait}")

    def find_stopped(self) -> list[str]:
        """Return the endpoints whose worker is stopped and was stopped at the last call too.

        A worker that a debugger examines is stopped for a moment.
        """
        found = []
        for name, worker in self._workers.items():
            stands_still = worker.child is not None and worker.child.is_stopped
            if stands_still and worker.stood_still:
                found.append(name)
            worker.stood_still = stands_still
        return found

    def next_restart(self) -> float | None:
        """Return when the next missing worker may start, which may be in the past, or None when all run."""
        return min((worker.restart_at for worker in self._missing.values()), default=None)

    def stop(self) -> None:
        """End all workers: close all channels, then reap or kill each."""
        children = [worker.child for worker in self._workers.values() if worker.child is not None]
        for child in children:
            child.channel.close()
        children += [child for child, _ in self._leaving]
        self._leaving = []
        for child in children:
            child.end()
        for name, worker in self._workers.items():
            worker.child, self._missing[name] = None, worker
        self._channels.clear()
        self._unread.clear()
