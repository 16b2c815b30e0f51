"""The battery: one request after the other to a server, what each reply looks like, and what obcd makes of it.

A reply is kept as data, without what differs from run to run: status, framing, the text of an error with `N` for each
number, or the keys of an answer and a few facts. `replies/VERSION.json` holds those of a real server. A stand-in, and
any other version of Ollama, is compared with them. `source` says where a reply is from that no server gave.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import PATHS, Kind, Request
from obcd.ollama.failures import judge, judge_loaded
from obcd.ollama.transport import Reply

REPLIES = Path(__file__).parent / "replies"
#: The version from which on each model runs in a llama-server of its own.
LLAMA_SERVER = (0, 30)


class Verdict(StrEnum):
    """What obcd makes of a reply."""

    ANSWER = "answer"
    LOADED = "loaded"
    REQUEST = "the request's fault"  # not sent again, no harm to the endpoint
    ELSEWHERE = "elsewhere"  # another endpoint first, no harm to this one
    AGAIN = "again"  # the same endpoint is as good as any
    ENDPOINT = "the endpoint's fault"
    DIED = "the server died"
    RAW = "-"  # a request that no job sends: only its form is compared


Body = Mapping[str, Any] | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request.

    Attributes:
        verdict: What obcd must make of the reply.
        old: The same for versions before `LLAMA_SERVER`, where it differs.
        facts: What of the reply's document is kept beside its keys.
        headers: Further headers.
    """

    name: str
    path: str
    body: Body = None
    verdict: Verdict = Verdict.RAW
    old: Verdict | None = None
    method: str = "POST"
    facts: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> Mapping[str, Any]:
        """Return the body, which is JSON."""
        assert isinstance(self.body, Mapping)
        return self.body

    def expected(self, version: tuple[int, ...]) -> Verdict:
        """Return the verdict for a version."""
        return self.old if self.old is not None and version < LLAMA_SERVER else self.verdict


@dataclass(frozen=True, slots=True)
class Raw:
    """A reply as it came; status 0: the connection broke before it was complete."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def ask(port: int, case: Case, model: str) -> Raw:
    """Send the request of a case; `model` takes the place of `$MODEL`."""
    body: bytes | None = None
    if isinstance(case.body, bytes):
        body = case.body
    elif case.body is not None:
        body = json.dumps(case.body).replace("$MODEL", model).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    try:
        connection.request(case.method, case.path, body, dict(case.headers))
        reply = connection.getresponse()
        return Raw(reply.status, reply.read(), dict(reply.getheaders()))
    except (OSError, http.client.HTTPException):
        return Raw(0)
    finally:
        connection.close()


def kept(raw: Raw, case: Case, model: str) -> dict[str, Any]:
    """Return a reply as data, without what differs from run to run."""
    if not raw.status:
        return {"died": True}
    found: dict[str, Any] = {"status": raw.status}
    if "Content-Type" in raw.headers:
        found["type"] = raw.headers["Content-Type"]
    found["framing"] = "chunked" if "Transfer-Encoding" in raw.headers else "length"
    documents = _documents(raw.body)
    if documents is None:
        return {**found, "text": _plain(raw.body.decode("utf-8", "replace"), model)}
    if len(documents) > 1:
        found["framing"] = "lines"
    last = documents[-1]
    if "error" in last:
        return {**found, "error": _plain(_error_of(last["error"]), model)}
    found["keys"] = sorted(_keys(last))
    if case.facts is not None:
        found["facts"] = case.facts(last)
    return found


def verdict_of(raw: Raw, case: Case) -> Verdict:
    """Return what obcd makes of a reply."""
    kind = next((kind for kind, path in PATHS.items() if path == case.path), None)
    if not raw.status:
        return Verdict.DIED
    if kind is None or case.verdict is Verdict.RAW:
        return Verdict.RAW
    reply = Reply(raw.status, raw.body)
    if case.verdict is Verdict.LOADED:
        fault = judge_loaded(reply, kind)
        return Verdict.LOADED if fault is None else verdict_of_fault(fault)
    inputs = ("hi",) if kind is Kind.EMBED else ()
    judged = judge(reply, Request(line=1, id=1, prompt="", messages=[], kind=kind, inputs=inputs))
    return verdict_of_fault(judged) if isinstance(judged, Fault) else Verdict.ANSWER


def verdict_of_fault(fault: Fault) -> Verdict:
    """Return the verdict that a fault stands for."""
    if fault.harm is not Harm.NONE:
        return Verdict.ENDPOINT
    return {Remedy.NEVER: Verdict.REQUEST, Remedy.HERE: Verdict.AGAIN}.get(fault.remedy, Verdict.ELSEWHERE)


def numbers(version: str) -> tuple[int, ...]:
    """Return e.g. (0, 33, 0) of `0.33.0-rc2`."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0]))


def recorded(version: str) -> tuple[str, dict[str, Any]]:
    """Return the version of the nearest recording that is not newer, else of the oldest, and its replies by case."""
    files = sorted(REPLIES.glob("*.json"), key=lambda path: numbers(path.stem))
    older = [path for path in files if numbers(path.stem) <= numbers(version)]
    chosen = (older or files[:1])[-1] if files else None
    return ("", {}) if chosen is None else (chosen.stem, json.loads(chosen.read_bytes()))


def difference(expected: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    """Return what differs between a recorded reply and another, or "" if nothing does, or nothing is recorded."""
    if expected is None:
        return ""
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name) and name != "source"]
    return "; ".join(f"{name}: {_short(expected.get(name))} → {_short(found.get(name))}" for name in names)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 90 else text[:87] + "…"


def _documents(body: bytes) -> list[dict[str, Any]] | None:
    """Return the JSON objects of a body, a stream's too; None if it is something else."""
    with contextlib.suppress(ValueError):
        document = json.loads(body)
        return [document] if isinstance(document, dict) else None
    found = []
    for line in body.splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found if found and all(isinstance(item, dict) for item in found) else None


def _error_of(error: object) -> str:
    """Return the text of an error: of OpenAI's form, or of llama-server's JSON inside a string."""
    if isinstance(error, dict):
        return str(error.get("message"))
    text = str(error)
    with contextlib.suppress(ValueError):
        inner = json.loads(text)
        if isinstance(inner, dict) and isinstance(inner.get("error"), dict):
            return f"{inner['error'].get('type')}: {inner['error'].get('message')}"
    return text


def _plain(text: str, model: str) -> str:
    """Return a text with `$MODEL` for the model, and `N` for numbers."""
    tagged = model if ":" in model else model + ":latest"
    for name in (f"registry.ollama.ai/library/{tagged}", tagged, model):
        text = text.replace(name, "$MODEL")
    return re.sub(r"\d+", "N", text)[:400]


def _keys(document: Mapping[str, Any]) -> set[str]:
    """Return the keys of a document, and those of the objects in it, but not those of a model's own facts."""
    names = set()
    for key, value in document.items():
        names.add(key)
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and key in {"message", "models", "choices", "data", "usage"}:
            names |= {f"{key}.{name}" for name in inner if name not in {"capabilities"}}
    return names
