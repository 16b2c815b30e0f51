"""From replies of a server to ledger and outbox, byte for byte as they were written before results had types.

`replies/` holds the ledgers and the outputs of that version; the replies of which they were made stand here.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from obcd.core.answer.record_codec import encode
from obcd.core.request.records import JobSettings
from obcd.ollama import client
from obcd.ollama.transport import RefusedError, Reply, Transport
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, read_place
from obcd.spool.outbox.publication import publish
from obcd.workers.loader import Loader
from obcd.workers.messages import Answered, Ask
from obcd.workers.slots import slot
from obcd.workers.slots.job_requests import JobRequests
from obcd.workers.slots.slot import Slot
from tests.unit.spool import spools
from tests.unit.workers.slots.test_slot import URL, common_of

DATA = Path(__file__).with_name("replies")
OUTPUTS = ("responses.jsonl", "errors.jsonl", "retry.jsonl")
SECOND = 1_000_000_000
AGE: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
TOOL = {"function": {"name": "find", "strict": True, "parameters": AGE}}
COUNTS = {
    "load_duration": SECOND // 4,
    "prompt_eval_duration": SECOND // 8,
    "eval_duration": SECOND,
    "total_duration": 2 * SECOND,
    "prompt_eval_count": 10,
    "eval_count": 5,
}
LIKELY = [{"token": "So", "logprob": -0.5, "bytes": [83, 111], "top_logprobs": [{"token": "Oh", "logprob": -1}]}]


def chat(text: str, reason: str = "stop", logprobs: Any = None, **message: Any) -> dict[str, Any]:
    more = {"logprobs": logprobs} if logprobs is not None else {}
    said = {"role": "assistant", "content": text, **message}
    return {"model": "m", "message": said, "done": True, "done_reason": reason, **COUNTS, **more}


def call(**arguments: Any) -> dict[str, Any]:
    return {"function": {"name": "find", "arguments": arguments}}


def held(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "format": AGE, **more}


#: (the line, what the server answers, one after the other)
OURS: list[tuple[dict[str, Any], list[dict[str, Any] | int]]] = [
    ({"prompt": "plain", "mrn": "482913", "id": "p-1"}, [chat("So \ud800 é \u2028.")]),
    ({"prompt": "thinks"}, [chat("So.", thinking="Hm.")]),
    ({"prompt": "cut"}, [chat("So", "length")]),
    ({"prompt": "likely", "logprobs": True, "top_logprobs": 1}, [chat("So", logprobs=LIKELY)]),
    ({"prompt": "calls", "tools": [TOOL]}, [chat("", tool_calls=[call(age=54)], thinking="Hm.")]),
    ({"prompt": "calls mended", "tools": [TOOL]}, [chat("", tool_calls=[call(age="54")])]),
    (
        {"prompt": "calls wrongly", "tools": [TOOL]},
        [chat("", tool_calls=[call(age="x")]), chat("", tool_calls=[call(age=1)])],
    ),
    (held("fits"), [chat('Here: {"age": 54}')]),
    (held("fits, likely", logprobs=True), [chat('{"age": 54}', logprobs=LIKELY)]),
    (held("null", **{"format": "json"}), [chat("null")]),
    (held("thinks aloud"), [chat('<think>Hm.</think>{"age": 54}')]),
    (held("thinks aloud, likely", logprobs=True), [chat('<think>Hm.</think>{"age": "54"}', logprobs=LIKELY)]),
    (held("thinks twice"), [chat('<think>And.</think>{"age": 54}', thinking="Hm.")]),
    (held("mended"), [chat('{"age": "54"}')]),
    (held("repaired"), [chat("no"), chat('{"age": "x"}'), chat('{"age": 54}', thinking="Hm.")]),
    (held("repaired aloud"), [chat("no"), chat('<think>Hm.</think>{"age": "54"}')]),
    ({"prompt": "several", "n": 3}, [chat("a"), chat("b", "length", thinking="Hm."), chat("c")]),
    (held("several repaired", n=2), [chat("no"), chat('{"age": 1}'), chat('<think>Hm.</think>{"age": 2}')]),
    (held("several, the last one repaired", n=2), [chat('{"age": 1}'), chat("no"), chat('{"age": 2}')]),
    ({"prompt": "several cached", "n": 2, "options": {"seed": 1}}, [chat("a"), chat("b")]),
    ({"prompt": "several cached", "n": 2, "options": {"seed": 1}, "id": "again"}, []),
    (held("cached", options={"temperature": 0}), [chat("no"), chat('<think>Hm.</think>{"age": "54"}')]),
    (held("cached", options={"temperature": 0}, more=1), []),
    ({"embed": ["one", "two"]}, [{"model": "m", "embeddings": [[0.5, -1], [1e-3, 2.0]], **COUNTS}]),
    ({"embed": "one"}, [{"model": "m", "embeddings": [[0.5, -1]], "total_duration": SECOND}]),
    ({"embed": "one", "id": "again"}, []),
    ({"complete": "goes on", "suffix": "end"}, [{**chat(""), "response": "So.", "thinking": "Hm."}]),
    (held("never fits"), [chat("no"), chat("no", thinking="Hm."), chat("<think>So.</think>no")]),
    (held("cut short"), [chat('{"age": 5', "length"), chat('{"age": 5', "length"), chat('{"age": 5', "length")]),
    (held("cut in thought"), [chat("<think>Hm.", "length")]),
    ({"prompt": "cut in thought at once"}, [chat("", "length", thinking="Hm.")]),
    (
        {"prompt": "calls never rightly", "tools": [TOOL]},
        [chat("", tool_calls=[call(age="x")], thinking="Hm.")] * 3,
    ),
    ({"prompt": "several, one fails", "n": 3}, [chat("a", thinking="Hm."), 400, chat("c")]),
    (held("several, held, one fails", n=2), [chat('{"age": "1"}'), chat("no"), chat("no"), chat("no")]),
    ({"prompt": "all fail", "n": 2}, [400, 400]),
    ({"prompt": "refused", "id": {"a": [1]}}, [400]),
    ({"prompt": "unreachable", "id": None}, [-1]),
    ({"prompt": "no", "options": 7}, []),
    (held("never fits", id="again"), [chat("no")] * 3),
]


def openai(number: int, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"r-{number}", "method": "POST", "url": f"/v1/{url}", "body": {"model": "m", **body}}


def turn(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}]


FORM = {"type": "json_schema", "json_schema": {"name": "age", "schema": AGE}}
CHATS: list[tuple[dict[str, Any], list[dict[str, Any] | int]]] = [
    (openai(1, "chat/completions", messages=turn("plain")), [chat("So.", thinking="Hm.")]),
    (openai(2, "chat/completions", messages=turn("likely"), logprobs=True), [chat("So", "length", LIKELY)]),
    (
        openai(3, "chat/completions", messages=turn("calls"), tools=[{"type": "function", **TOOL}]),
        [chat("", tool_calls=[call(age=54), {"id": "call_7", **call(age=1)}])],
    ),
    (openai(4, "chat/completions", messages=turn("several"), n=3), [chat("a"), chat("b", "length"), chat("c")]),
    (
        openai(5, "chat/completions", messages=turn("held"), response_format=FORM),
        [chat("no"), chat('<think>Hm.</think>{"age": "54"}')],
    ),
    (openai(6, "chat/completions", messages=turn("cached"), temperature=0) | {"mrn": "4"}, [chat("So.")]),
    (openai(7, "chat/completions", messages=turn("cached"), temperature=0), []),
    (openai(8, "chat/completions", messages=turn("never"), response_format=FORM), [chat("no")] * 3),
    (openai(9, "chat/completions", messages=turn("one fails"), n=2), [chat("a"), -1]),
    (openai(10, "chat/completions", messages=turn("refused")), [400]),
    (openai(11, "chat/completions", messages=7), []),
    ({"custom_id": "r-1", "method": "POST", "url": "/v1/none", "body": {}}, []),
]
COMPLETIONS: list[tuple[dict[str, Any], list[dict[str, Any] | int]]] = [
    (openai(1, "completions", prompt="goes on"), [{**chat(""), "response": "So.", "thinking": "Hm."}]),
    (openai(2, "completions", prompt="likely", logprobs=1), [{**chat("", logprobs=LIKELY), "response": "So"}]),
    (openai(3, "completions", prompt="several", n=2), [{**chat(""), "response": text} for text in "ab"]),
]
EMBEDDINGS: list[tuple[dict[str, Any], list[dict[str, Any] | int]]] = [
    (openai(1, "embeddings", input=["one", "two"]), [{"model": "m", "embeddings": [[0.5, -1], [1, 2.0]], **COUNTS}]),
    (openai(2, "embeddings", input="one"), [{"model": "m", "embeddings": [[0.5, -1]], **COUNTS}]),
]
JOBS = {"ours": OURS, "chats": CHATS, "completions": COMPLETIONS, "embeddings": EMBEDDINGS}


class Scripted:
    """Gives the answers of one line, those of all its requests in turn."""

    token = None

    def __init__(self) -> None:
        self.answers: list[dict[str, Any] | int] = []

    def post(self, _: str, __: bytes) -> Reply:
        answer = self.answers.pop(0)
        if isinstance(answer, dict):
            return Reply(200, json.dumps(answer).encode())
        if answer < 0:
            raise RefusedError("connection refused")
        return Reply(answer, b'{"error": "invalid format"}')


def ask_all(jobs: Path, job: str, lines: list[tuple[dict[str, Any], list[Any]]], done: bytes) -> list[bytes]:
    """Ask what a job has no result of; returns the records of its ledger."""
    common = common_of(JobRequests(jobs))
    slot = Slot(common, "gpu0", Transport(URL, 1.0), lambda _: None)
    script = slot._transport = Scripted()  # type: ignore[assignment]
    records, last = [], -1
    for ordinal, flag in enumerate(done):
        if flag:
            continue
        number = ledger_line(jobs / job, ordinal)
        if number != last:
            assert script.answers == []
            script.answers, last = list(lines[number - 1][1]), number
        result = slot._ask(Ask(1, job, ordinal, 1 + ordinal % 3, "a80c4f17acd5"))
        if isinstance(result, Answered):
            records.append(result.record)
        else:
            records.append(encode(result.fault.failure(ordinal, number, 1 + ordinal % 3, "gpu0")))
    return records


def ledger_line(folder: Path, ordinal: int) -> int:
    return read_place(folder, ordinal).line


def accept_job(root: Path, name: str, *, dedupe: bool = False) -> tuple[Any, JobHeader]:
    layout = spools.make_layout(root)
    content = b"".join(json.dumps(line).encode() + b"\n" for line, _ in JOBS[name])
    settings = JobSettings(model="m", cache=not dedupe, dedupe=dedupe, num_predict=96)
    drop = spools.drop_of(spools.put(layout, content))
    header = spools.accepted(layout, spools.order_of(drop, settings=settings))
    return layout, header


@pytest.fixture(autouse=True)
def clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    began, now = itertools.count(step=0.3125), itertools.count(1795373853.0, 0.25)
    monkeypatch.setattr(client, "monotonic", lambda: next(began))
    monkeypatch.setattr(client, "wall", lambda: next(now))
    monkeypatch.setattr(slot, "wall", lambda: next(now))
    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    monkeypatch.setattr(Loader, "note_used", lambda *_: None)


@pytest.mark.parametrize("name", JOBS)
def test_replies_become_the_records_that_they_became(tmp_path: Path, name: str) -> None:
    layout, header = accept_job(tmp_path, name)
    folder = layout.jobs / header.id
    done = ledger.replay(folder / ledger.NAME, header.requests).done
    records = [raw for _, raw in ledger.read_valid(folder / ledger.NAME)]

    records += ask_all(layout.jobs, header.id, JOBS[name], done)

    kept = DATA / f"{name}.records.jsonl"
    if "OBCD_WRITE" in os.environ:
        kept.write_bytes(b"".join(record + b"\n" for record in records))
    documents = [list(document.items()) for document in spools.lines_of(kept)]
    for raw, items in zip(records, documents, strict=True):
        found = json.loads(raw)
        assert raw.startswith(b'{"ordinal":%d,' % found["ordinal"])
        assert found == dict(items)
        if found["outcome"] == "response":
            assert list(found) == [key for key, _ in items]


@pytest.mark.parametrize(("name", "dedupe"), [*((name, False) for name in JOBS), ("ours", True)])
def test_ledger_of_before_is_published_as_it_was(tmp_path: Path, name: str, dedupe: bool) -> None:
    layout, header = accept_job(tmp_path, name, dedupe=dedupe)
    spools.record(layout, header.id, (DATA / f"{name}.records.jsonl").read_bytes().splitlines())

    folder = publish(layout, header.id, {})

    for output in OUTPUTS:
        found = (folder / output).read_bytes() if (folder / output).exists() else b""
        kept = DATA / f"{name}{'.dedupe' * dedupe}.{output}"
        if "OBCD_WRITE" in os.environ:
            kept.write_bytes(found)
        assert found == kept.read_bytes()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    parts = {key: manifest[key] for key in ("counts", "tokens", "endpoints", "outputs")}
    parts["seconds"] = {key: manifest["times"][key] for key in ("work_seconds", "span_seconds", "speedup")}
    kept = DATA / f"{name}{'.dedupe' * dedupe}.manifest.json"
    if "OBCD_WRITE" in os.environ:
        kept.write_text(json.dumps(parts, indent=1) + "\n")
    assert parts == json.loads(kept.read_bytes())
