"""The pool of workers: send a request to an endpoint, receive what came back, learn of a lost worker.

This is the seam between the coordinator and whatever runs the workers; multiprocessing is its first engine.
Processes come from a fork server with the imports preloaded: never from a fork of the coordinator, which has threads
and holds locks. Start workers from the main thread.
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

#: A worker that lived shorter than this, in seconds, died at its start; the next start waits longer.
EARLY_DEATH_SECONDS = 10.0
RESTART_BASE, RESTART_LIMIT = 0.2, 60.0
#: Seconds until a start that the machine refused is tried again.
REFUSED_SECONDS = 2.0
#: Seconds a child gets to end by itself before it is killed.
GRACE_SECONDS = 2.0
#: Most seconds that starts of workers may take of one turn of the main loop; one start takes 5 to 50 ms.
START_SECONDS = 0.04


class Child:
    """One child process and the channel to it.

    Raises:
        OSError, EOFError: If it cannot be started, for want of descriptors, say. Nothing is left then.
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
            theirs.close()  # else we would never see the end of file

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._process.is_alive()

    @property
    def is_stopped(self) -> bool:
        """Return whether it stands still because of a signal."""
        try:
            return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        except (psutil.Error, OSError):  # OSError: it cannot be looked at, for want of descriptors
            return False

    def end(self, grace: float = GRACE_SECONDS) -> None:
        """Close the channel, wait, kill, reap."""
        self.channel.close()
        self._process.join(grace)
        self.kill()

    def kill(self) -> None:
        """Kill and reap; safe when it is gone already."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join(GRACE_SECONDS)
        self.channel.close()


def try_to_start(name: str, target: Callable[..., None], *arguments: Any) -> Child | None:
    """Start a child process; None when the machine refuses, for want of descriptors or memory, which is logged."""
    try:
        return Child(name, target, *arguments)
    except (OSError, EOFError) as error:  # EOFError: the fork server could not, and has ended; another one starts
        reason = getattr(error, "strerror", None) or "the process that starts them has ended"
        logger.warning("%s cannot be started: %s; obcd goes on trying", name, reason, extra={"action": "start_refused"})
        return None


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a worker."""

    endpoint: str
    message: Any


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone; what it had in flight has to be asked again."""

    endpoint: str
    reason: str = "its worker ended; another one starts"


@dataclass(slots=True)
class _Worker:
    spec: WorkerSpec
    child: Child | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    early_deaths: int = 0
    stood_still: bool = False  # when one looked last


class Pool:
    """One worker process per endpoint. Main thread only; `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        #: Those of them that do not run. What is looked at in every turn of the main loop has to be short.
        self._missing: dict[str, _Worker] = {}
        #: {descriptor of one that runs: its endpoint}
        self._channels: dict[int, str] = {}
        #: Endpoints whose worker has not read all that was sent to it.
        self._unread: set[str] = set()
        #: [(child whose channel is closed, when it is killed)]
        self._leaving: list[tuple[Child, float]] = []

    def add(self, spec: WorkerSpec) -> None:
        """Have a worker for an endpoint; `start_missing` starts it."""
        self._workers[spec.endpoint] = self._missing[spec.endpoint] = _Worker(spec)

    def configure(self, spec: WorkerSpec) -> None:
        """Change a worker's limit for connections and its token, while it works."""
        if self._workers[spec.endpoint].spec == spec:
            return
        self._workers[spec.endpoint].spec = spec  # for its successor, should it be gone or go
        self.send(spec.endpoint, Configure(spec.connect_timeout_seconds, spec.token, spec.require_gpu))

    def remove(self, endpoint: str, now: float) -> None:
        """End an endpoint's worker without waiting for it; `reap` sees to the rest."""
        worker = self._workers.pop(endpoint)
        self._note_gone(endpoint)
        self._missing.pop(endpoint, None)
        if worker.child is not None:
            worker.child.channel.close()
            self._leaving.append((worker.child, now + GRACE_SECONDS))

    def reap(self, now: float) -> None:
        """Take note of removed workers that have ended, and kill those that do not."""
        leaving = self._leaving
        if not leaving:
            return
        self._leaving = [(child, limit) for child, limit in leaving if child.is_alive and now < limit]
        for child, _ in leaving:
            if not any(child is other for other, _ in self._leaving):
                child.kill()

    def start_missing(self, now: float) -> list[str]:
        """Start workers that do not run and whose pause is over; returns their endpoints.

        As many as fit into a turn of the main loop, at least one: a reload may bring dozens. The others are due still.
        """
        started: list[str] = []
        until = monotonic() + START_SECONDS  # not `now`: each start blocks, and this turn may have begun long ago
        for name, worker in list(self._missing.items()):
            if now >= worker.restart_at and (not started or monotonic() < until):
                worker.child = try_to_start(f"worker {name}", run_worker, worker.spec)
                if worker.child is None:  # what one is refused, the next would be too
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
        """Return the endpoints whose worker has said something, or is gone; sends what waits for the others.

        Args:
            readable: Descriptors that can be read, other people's among them.
        """
        lost = [name for name in list(self._unread) if self._flush(name)] if self._unread else []
        return lost + [self._channels[one] for one in readable if one in self._channels]

    def _flush(self, endpoint: str) -> bool:
        """Send what waits for a worker; returns whether it is lost since it does not read."""
        child = self._workers[endpoint].child
        if child is None:
            return False
        with contextlib.suppress(ClosedError):  # it is ready to be read then, or lost
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
        """Send to a worker; a worker that is gone is noticed by the next `receive`."""
        worker = self._workers[endpoint]
        if worker.child is None:
            return
        with contextlib.suppress(ClosedError):
            worker.child.channel.send(message)
        if worker.child.channel.wants_write or worker.child.channel.is_lost:
            self._unread.add(endpoint)

    def receive(self, endpoint: str, now: float) -> Iterator[Received | Lost]:
        """Yield what a worker said by now."""
        worker = self._workers[endpoint]
        if worker.child is None:
            return
        try:
            for message in worker.child.channel.receive():
                yield Received(endpoint, message)
        except ClosedError:
            yield self.replace(endpoint, now)

    def replace(self, endpoint: str, now: float) -> Lost:
        """Kill a worker that is gone or frozen; `start_missing` starts another after a pause."""
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
        """Return the endpoints whose worker stands still and did when this was asked before.

        One that a debugger looks at stands still for a moment.
        """
        found = []
        for name, worker in self._workers.items():
            stands_still = worker.child is not None and worker.child.is_stopped
            if stands_still and worker.stood_still:
                found.append(name)
            worker.stood_still = stands_still
        return found

    def next_restart(self) -> float | None:
        """Return when the next missing worker may start, also in the past, or None when all run."""
        return min((worker.restart_at for worker in self._missing.values()), default=None)

    def stop(self) -> None:
        """End all workers: ask all by closing their channels, then reap or kill each."""
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
