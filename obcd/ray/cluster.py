"""The calls to Ray that the keeper and the other commands need; the only module, beside the actor, that imports it.

Any of them may hang while the head is away, and may end the process when it stays away: see `obcd.ray.link`.
Sources: Ray 2.60; docs.ray.io/en/latest, pages ray-core/actors/named-actors and ray-core/fault_tolerance/actors.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from obcd.errors import NoEndpointError
from obcd.ray.gpu_server import CALLS_AT_ONCE, GpuServer
from obcd.ray.messages import ServerReport, ServerWish
from obcd.text import printable

#: The beginning of the names of the actors; a number follows.
PREFIX = "obcd-"
#: Seconds for one answer of an actor that has a server.
ANSWER_SECONDS = 10.0
#: Most characters of Ray's words in a message.
MAX_WORDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorNeeds:
    """What Ray reserves for each actor beside one GPU.

    Attributes:
        cpus: CPUs, by Ray's count.
        memory_bytes: Memory; Ray's memory monitor first kills what has more than it asked for.
    """

    cpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What an actor answered to a look.

    Attributes:
        known: The number of this report.
        held_by: The keeper of another machine that renews its lease; "" if there is none.
    """

    known: int
    held_by: str
    report: ServerReport


@dataclass(frozen=True, slots=True)
class Silence:
    """An actor did not answer.

    Attributes:
        is_dead: Whether it has ended for good; else Ray is starting it again.
        words: What Ray says about that, for people.
    """

    is_dead: bool
    words: str = ""


class ServerCluster(Protocol):
    """What the keeper needs of a cluster: `RayCluster`, or a stand-in."""

    def numbers(self) -> set[int]:
        """Return the numbers of all actors."""

    def start(self, number: int, wish: ServerWish) -> None:
        """Start an actor."""

    def look(self, number: int, keeper: str, known: int) -> None:
        """Ask an actor for its next report."""

    def answers(self, seconds: float) -> Iterator[tuple[int, Look | Silence]]:
        """Yield what comes within some seconds."""

    def drain(self, number: int, seconds: float, cause: str) -> None:
        """Let a server finish."""

    def end(self, number: int) -> None:
        """End an actor."""

    def forget(self, number: int) -> None:
        """Drop an actor that has ended."""

    def gpus(self) -> tuple[int, int]:
        """Return all GPUs, and those that are free."""

    def want(self, count: int) -> None:
        """Let an autoscaler provide GPUs."""


class RayCluster:
    """The Ray cluster that this process is connected to.

    Args:
        needs: Of each actor that is started from here.
    """

    def __init__(self, ray: Any, needs: ActorNeeds) -> None:
        self._ray = ray
        self._options = {
            "num_gpus": 1, "num_cpus": needs.cpus, "memory": needs.memory_bytes or None,
            "max_restarts": -1, "max_task_retries": 0, "max_concurrency": CALLS_AT_ONCE,
            "lifetime": "detached", "get_if_exists": True, "scheduling_strategy": "SPREAD",
        }  # fmt: skip
        self._handles: dict[int, Any] = {}
        #: {the call of an actor that is under way: the actor's number}
        self._looks: dict[Any, int] = {}
        #: Actors that a look did not find.
        self._lost: set[int] = set()

    def numbers(self) -> set[int]:
        """Return the numbers of all our actors in this namespace, also of those that wait for a GPU."""
        found = {_number(name) for name in self._ray.util.list_named_actors()}
        return {number for number in found if number is not None}

    def start(self, number: int, wish: ServerWish) -> None:
        """Start an actor as soon as Ray has a GPU for it; take over one that has the name already."""
        actor = self._ray.remote(GpuServer)
        self._handles[number] = actor.options(name=f"{PREFIX}{number}", **self._options).remote(wish.to_json())

    def look(self, number: int, keeper: str, known: int) -> None:
        """Ask an actor for its next report; `answers` has it when it comes."""
        try:
            self._looks[self._handle(number).look.remote(keeper, known)] = number
        except ValueError:  # Ray lists an actor for a moment after its end
            self._lost.add(number)

    def answers(self, seconds: float) -> Iterator[tuple[int, Look | Silence]]:
        """Yield the answers that come within some seconds, by the number of the actor."""
        lost, self._lost = self._lost, set()
        yield from ((number, Silence(is_dead=True)) for number in lost)
        calls = list(self._looks)
        if not calls:
            time.sleep(0.0 if lost else seconds)
            return
        self._ray.wait(calls, num_returns=1, timeout=0.0 if lost else seconds)
        ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        for call in ready:
            number = self._looks.pop(call, None)
            if number is not None:  # else it was forgotten meanwhile
                yield number, self._answer(call)

    def _answer(self, call: Any) -> Look | Silence:
        try:
            return read_look(self._ray.get(call))
        except self._ray.exceptions.RayError as error:
            is_dead = isinstance(error, self._ray.exceptions.ActorDiedError)
            return Silence(is_dead, last_line(str(error)) if is_dead else "")

    def drain(self, number: int, seconds: float, cause: str) -> None:
        """Let the server of an actor finish and end."""
        with contextlib.suppress(ValueError):  # it has ended
            self._handle(number).drain.remote(seconds, cause)

    def end(self, number: int) -> None:
        """End an actor and its server at once."""
        with contextlib.suppress(ValueError, self._ray.exceptions.RayError):  # it has ended
            self._ray.kill(self._handle(number), no_restart=True)
        self.forget(number)

    def forget(self, number: int) -> None:
        """Drop what is known of an actor that is no longer there."""
        self._handles.pop(number, None)
        self._looks = {call: other for call, other in self._looks.items() if other != number}

    def gpus(self) -> tuple[int, int]:
        """Return how many GPUs the cluster has, and how many of them Ray has not given away."""
        there, free = self._ray.cluster_resources(), self._ray.available_resources()
        return int(there.get("GPU", 0)), int(free.get("GPU", 0))

    def want(self, count: int) -> None:
        """Let an autoscaler provide some GPUs; without one nothing happens."""
        from ray.autoscaler.sdk import request_resources  # noqa: PLC0415 - not every command needs it

        request_resources(bundles=[{"GPU": 1}] * count)

    def _handle(self, number: int) -> Any:
        if number not in self._handles:
            self._handles[number] = self._ray.get_actor(f"{PREFIX}{number}")
        return self._handles[number]


def read_look(document: dict[str, Any]) -> Look:
    """Read what an actor answered.

    Raises:
        ValueError: If another version of obcd answered, which has other fields.
    """
    return Look(
        known=document["number"], held_by=document["held_by"], report=ServerReport.from_json(document["report"])
    )


def last_line(text: str) -> str:
    """Return the last line of an error of Ray, which says what happened in an actor, as text for a terminal."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1][:MAX_WORDS]) if lines else ""


def _number(name: str) -> int | None:
    match = re.fullmatch(rf"{PREFIX}(\d{{1,6}})", name)
    return int(match[1]) if match else None


def connect(address: str, namespace: str, needs: ActorNeeds) -> RayCluster:
    """Connect to the cluster; Ray itself tries for minutes, or ends the process.

    Args:
        address: `auto`, or HOST:PORT of the head.

    Raises:
        NoEndpointError: If Ray is not installed.
        Exception: What Ray raises; `obcd.ray.link.explain` makes a sentence of it.
    """
    try:
        import ray  # noqa: PLC0415 - takes a second, and may not be installed
    except ImportError as error:
        raise NoEndpointError(
            f"Ray is not installed where obcd runs ({error}): pip install 'obcd[ray]' there and on every node"
        ) from None
    ray.init(
        address=address, namespace=namespace, log_to_driver=False, configure_logging=True,
        logging_level=logging.WARNING,
    )  # fmt: skip
    return RayCluster(ray, needs)


def all_looks(cluster: ServerCluster, numbers: Iterable[int], clock: Callable[[], float]) -> dict[int, Look | None]:
    """Return what each actor reports now, without renewing its lease; None for one that waits for a GPU or is away."""
    found: dict[int, Look | None] = dict.fromkeys(sorted(numbers))
    for number in found:
        cluster.look(number, "", -1)
    deadline = clock() + ANSWER_SECONDS
    open_ = set(found)
    while open_ and clock() < deadline:
        for number, answer in cluster.answers(max(0.0, min(1.0, deadline - clock()))):
            open_.discard(number)
            found[number] = answer if isinstance(answer, Look) else None
    return found
