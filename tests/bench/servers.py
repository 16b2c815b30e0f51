"""Simulated servers in a process of their own, and what they say happened: the account that figures are taken from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

MODEL = "llama3.2"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a server saw it; monotonic seconds, None for what never came, and tokens of its prompt."""

    prompt: str
    arrived: float
    started: float | None
    finished: float | None
    outcome: str | None
    evaluated: int | None = None
    cached: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What all servers together saw.

    Attributes:
        slots: How many there are.
        changes: Per server, `[(time, slots in use), …]`.
    """

    slots: int
    asked: tuple[Asked, ...]
    changes: tuple[tuple[tuple[float, int], ...], ...]

    @property
    def first_arrival(self) -> float:
        """When the first request came."""
        return min(item.arrived for item in self.asked)

    @property
    def last_arrival(self) -> float:
        """When the last prompt came for the first time: until then prompts waited."""
        first: dict[str, float] = {}
        for item in self.asked:
            first[item.prompt] = min(item.arrived, first.get(item.prompt, item.arrived))
        return max(first.values())

    def busy_share(self, since: float, until: float) -> float:
        """Return the share of slot-seconds in use between two times."""
        used = sum(_busy_seconds(changes, since, until) for changes in self.changes)
        return used / (self.slots * (until - since))


def _busy_seconds(changes: tuple[tuple[float, int], ...], since: float, until: float) -> float:
    ends = [time for time, _ in changes[1:]] + [until]
    return sum(
        busy * max(0.0, min(end, until) - max(start, since)) for (start, busy), end in zip(changes, ends, strict=True)
    )


class Servers:
    """`count` servers with `slots` slots each; loading takes no time.

    Args:
        seconds: What every request takes; None: what its tokens take, as `more` says.
        more: Further options of `obcd simulate`; the last one of a name counts.
    """

    def __init__(self, count: int, slots: int, seconds: float | None, log: Path, *more: object) -> None:
        self.count, self.slots = count, slots
        command = [sys.executable, "-m", "obcd", "simulate", "--count", str(count), "--parallel", str(slots)]
        command += ["--load-seconds", "0", "--models", MODEL, "--port", "0"]
        command += [] if seconds is None else ["--seconds", str(seconds)]
        command += map(str, more)
        with open(log, "wb") as errors:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "OBCD_DIE_WITH_PARENT": "1"}
            )
        assert self._process.stdout is not None
        self.urls = [self._process.stdout.readline().split()[0].decode() for _ in range(count)]

    @property
    def pid(self) -> int:
        """The one process of all servers."""
        return self._process.pid

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)

    def configuration(self, slots: int | str | None = None) -> str:
        """Return a configuration with these servers as endpoints, of as many slots as they have or as is said."""
        return configuration(self.endpoints(slots))

    def endpoints(self, slots: int | str | None = None) -> dict[str, int | str]:
        """Return `{host:port: slots}`."""
        return {url.removeprefix("http://"): slots or self.slots for url in self.urls}

    def answered(self) -> int:
        """Return how many requests were answered so far."""
        return sum(item.outcome == "answered" for item in self.account().asked)

    def preloads(self) -> list[int]:
        """Return how often each server was told to load a model."""
        return [_get(f"{url}/simulated/requests")["preloads"] for url in self.urls]

    def account(self) -> Account:
        """Return what happened until now."""
        asked: list[Asked] = []
        changes = []
        for url in self.urls:
            requests, slots = _get(f"{url}/simulated/requests"), _get(f"{url}/simulated/slots")
            assert requests["dropped"] == 0, "the account overflowed: its figures mean nothing"
            asked += [
                Asked(
                    item["prompt"],
                    item["arrived"],
                    item["started"],
                    item["finished"],
                    item["outcome"],
                    item["evaluated_tokens"],
                    item["cached_tokens"],
                )
                for item in requests["requests"]
            ]
            changes.append(tuple((time, busy) for time, busy, _ in slots["changes"]))
        return Account(self.count * self.slots, tuple(asked), tuple(changes))


def configuration(endpoints: dict[str, int | str]) -> str:
    """Return a configuration with endpoints of so many slots, or of `"auto"`."""
    table = [f'"{name}" = {{slots = {json.dumps(slots)}}}' for name, slots in endpoints.items()]
    return "\n".join([f'model = "{MODEL}"', "[ollama_instances]", *table]) + "\n"


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as reply:
        return json.load(reply)
