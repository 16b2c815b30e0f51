"""A person at a server that obcd uses too: asks, thinks, asks again, and knows how long each answer took."""

from __future__ import annotations

import http.client
import json
import math
import random
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

#: Seconds after which a request of a person has not been answered.
PATIENCE = 150.0


class Asking(NamedTuple):
    """One request: when it was sent, monotonic, and how long its answer took, in seconds."""

    sent_at: float
    seconds: float


class Person:
    """Asks in a thread of its own from its beginning to its end; a context manager.

    Args:
        server: `host:port`.
        thinks: Mean seconds between an answer and the next request; 0: none, as a program does.
        options: Ollama's options of its requests.
        shift: What obcd sends as well: another value is another load option since v0.30.
    """

    def __init__(self, server: str, model: str, thinks: float, *, shift: bool = True, **options: object) -> None:
        self.askings: list[Asking] = []
        self._server, self._thinks = server, thinks
        self._fixed = {"model": model, "stream": False, "shift": shift, "options": options}
        self._dice = random.Random(server)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Person:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Let the last answer come: its time counts too."""
        self._is_over.set()
        self._thread.join(PATIENCE)

    @property
    def last_answer(self) -> float:
        """When it came, monotonic."""
        return max(asking.sent_at + asking.seconds for asking in self.askings)

    def _run(self) -> None:
        while not self._is_over.wait(self._dice.expovariate(1 / self._thinks) if self._thinks else 0.0):
            sent_at = time.monotonic()
            try:
                self._ask(f"Question {self._dice.random()}: what is it?")
            except TimeoutError:
                self.askings.append(Asking(sent_at, PATIENCE))
            else:
                self.askings.append(Asking(sent_at, time.monotonic() - sent_at))

    def _ask(self, prompt: str) -> None:
        connection = http.client.HTTPConnection(self._server, timeout=PATIENCE)
        body = {**self._fixed, "messages": [{"role": "user", "content": prompt}]}
        try:
            connection.request("POST", "/api/chat", json.dumps(body))
            reply = connection.getresponse()
            raw = reply.read()
            assert reply.status == 200, raw
        finally:
            connection.close()


def p95(askings: Sequence[Asking]) -> float:
    """Return the time that 95 of 100 answers took at most."""
    return sorted(asking.seconds for asking in askings)[math.ceil(0.95 * len(askings)) - 1]
