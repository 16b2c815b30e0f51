"""Pulls one model through one server of the host, while no other starts: all share one folder of models.

Two servers that pull at once write the same partial files, and a server that starts meanwhile walks a folder that
changes under it (ollama v0.33.0, server/download.go and server/fixblobs.go). The others see the model at once: the
manifests are read from disk at every call.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import requests

from obcd.clock import monotonic
from obcd.core.records import canonical_model
from obcd.errors import InputError, NoEndpointError, TimedOutError
from obcd.host.plan import Plan, Server
from obcd.host.ports import is_foreign
from obcd.host.probing import Prober
from obcd.host.remote import Remote
from obcd.host.watching import Answer
from obcd.logs import printable
from obcd.ollama.control import probe

#: Seconds to wait for servers that are starting.
START_PATIENCE = 60.0
#: Seconds for a connection, and between two lines: checking the digest of a large file says nothing for minutes.
CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 1800.0
MAX_LINE_BYTES = 2**16
GO_ON = "what came stays: the same command goes on where it was"
#: `[host[:port]/][namespace/]model[:tag]` (ollama types/model/name.go: isValidPart).
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
NAME = re.compile(rf"((https?://)?[A-Za-z0-9_][A-Za-z0-9_.-]*(:\d{{1,5}})?/)?({_PART}/)?{_PART}(:{_PART})?")


@dataclass(frozen=True, slots=True)
class Progress:
    """One line of a pull.

    Attributes:
        status: Ollama's words, e.g. `pulling 6a0746a1ec1a`, `verifying sha256 digest`.
        digest: "" when it is not about a file.
        total_bytes, completed_bytes: Of that file; 0 when they are not told.
    """

    status: str
    digest: str = ""
    total_bytes: int = 0
    completed_bytes: int = 0


def check_name(model: str) -> None:
    """Refuse what can be no model's name.

    Raises:
        InputError: With the shape it must have.
    """
    if len(model) > 400 or not NAME.fullmatch(model):
        raise InputError(
            f"{printable(model[:80])!r} cannot be a model's name: "
            "write e.g. llama3.2, llama3.2:1b, hf.co/user/model:Q4_K_M"
        )


def choose_server(plan: Plan, remote: Remote, say: Callable[[str], None]) -> Server:
    """Wait until no server is starting, and return the first that runs and answers.

    Raises:
        TimedOutError: If one goes on starting.
        NoEndpointError: If none answers.
    """
    deadline, is_said = monotonic() + START_PATIENCE, False
    prober = Prober({server.label: plan.url(server) for server in plan.servers})
    while True:
        states = remote.states()
        answers = prober.ask_all()
        # supervisor counts a server as STARTING for its first seconds, also when it answers: then its walk is over
        starting = [
            server.program
            for server in plan.servers
            if states[server.program].state in ("STARTING", "BACKOFF")
            and answers[server.label].answer is not Answer.ANSWERED
        ]
        if not starting:
            break
        if monotonic() > deadline:
            raise TimedOutError(f"{', '.join(starting)} is still starting: look at obcd host status, then pull again")
        if not is_said:
            say(f"waiting for {', '.join(starting)} to start: a pull and a start would disturb each other")
            is_said = True
        time.sleep(0.2)
    for server in plan.servers:
        pid, answer = states[server.program].pid, answers[server.label].answer
        if pid and answer is Answer.ANSWERED and not is_foreign(pid, server.port):
            return server
    raise NoEndpointError("no server of this host answers: look at obcd host status")


def stream_pull(url: str, model: str) -> Iterator[Progress]:
    """Pull a model and yield what the server tells; when it returns, the model is there.

    Raises:
        NoEndpointError: If the server refuses, breaks off or says an error; partial files stay for the next pull.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy for a server of this machine
            with session.post(
                f"{url}/api/pull", json={"model": model, "stream": True}, stream=True,
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS), allow_redirects=False,
            ) as response:  # fmt: skip
                yield from _progress(response, model)
    except requests.Timeout:
        raise NoEndpointError(f"the server went silent; {GO_ON}") from None
    except requests.RequestException:
        raise NoEndpointError(f"the server broke off (it was ended or restarted, or does not run); {GO_ON}") from None


def _progress(response: requests.Response, model: str) -> Iterator[Progress]:
    status = ""
    for line in response.iter_lines(chunk_size=MAX_LINE_BYTES if response.status_code != 200 else 512):
        document = _read_line(line)
        if document is None:
            continue
        if "error" in document or response.status_code != 200:
            raise NoEndpointError(f"{model}: {_words(document.get('error', response.status_code))}")
        status = _words(document.get("status", ""))
        yield Progress(
            status=status,
            digest=_words(document.get("digest", "")),
            total_bytes=_count(document.get("total")),
            completed_bytes=_count(document.get("completed")),
        )
    if response.status_code != 200:
        raise NoEndpointError(f"{model}: the server answers with status {response.status_code}")
    if status != "success":
        raise NoEndpointError(f"{model}: the server ended in the middle; the same command goes on where it was")


def _read_line(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _words(value: Any) -> str:
    return printable(str(value)[:300])


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def sees_model(plan: Plan, server: Server, model: str) -> bool:
    """Tell whether a server has a model, by what it lists."""
    found = probe(plan.url(server))
    return canonical_model(model.removeprefix("https://").removeprefix("http://")) in found.digests
