"""The table of requests, in the order in which they are sent: what obcd must make of each reply."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from tests.real.battery import Body, Case, Verdict
from tests.real.server import CONTEXT

#: All requests have the same load options, so that no model is loaded again.
LOAD = {"num_ctx": CONTEXT}
OPTIONS = {**LOAD, "num_predict": 8, "temperature": 0, "seed": 1}
PICTURE = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000"
        "050001a5f645400000000049454e44ae426082"
    )
).decode()
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
#: A prompt of three contexts.
LONG = "word " * (3 * CONTEXT)
#: So many tokens are enough for the small records that are requested.
SOME = {"num_predict": 64}
ANSWER, LOADED, ELSEWHERE, DIED = Verdict.ANSWER, Verdict.LOADED, Verdict.ELSEWHERE, Verdict.DIED
REQUEST = Verdict.REQUEST

Facts = Callable[[dict[str, Any]], dict[str, Any]]


def ending(document: dict[str, Any]) -> dict[str, Any]:
    """Return how an answer ended."""
    return {key: document.get(key) for key in ("done", "done_reason")}


def share(document: dict[str, Any]) -> dict[str, Any]:
    """Return which part of the context a prompt was cut to, in halves."""
    return {"done": document.get("done"), "prompt_share": round(2 * document.get("prompt_eval_count", 0) / CONTEXT) / 2}


def raw(name: str, path: str, body: Body = None, method: str = "POST", **more: Any) -> Case:
    """Return a request that is compared by its form alone."""
    return Case(name=name, path=path, body=body, method=method, **more)


def chat(name: str, verdict: Verdict, prompt: str = "Say hello.", **fields: Any) -> Case:
    """Return a chat that is not streamed; `options` are added to those of all requests."""
    old, facts = fields.pop("old", None), fields.pop("facts", None)
    options = {**OPTIONS, **fields.pop("options", {})}
    messages = [{"role": "user", "content": prompt}]
    body = {"model": "$MODEL", "messages": messages, "stream": False, "options": options, **fields}
    return Case(name=name, path="/api/chat", body=body, verdict=verdict, old=old, facts=facts)


def generate(name: str, verdict: Verdict, prompt: str = "Once upon a time", **fields: Any) -> Case:
    """Return a generation that is not streamed."""
    old, facts = fields.pop("old", None), fields.pop("facts", None)
    options = {**OPTIONS, **fields.pop("options", {})}
    body = {"model": "$MODEL", "prompt": prompt, "stream": False, "options": options, **fields}
    return Case(name=name, path="/api/generate", body=body, verdict=verdict, old=old, facts=facts)


def embed(name: str, verdict: Verdict, given: object, old: Verdict | None = None, **fields: Any) -> Case:
    """Return a request for vectors."""
    return Case(
        old=old,
        name=name,
        path="/api/embed",
        body={"model": "$MODEL", "input": given, "options": LOAD, **fields},
        verdict=verdict,
    )


def coded(name: str, verdict: Verdict, old: Verdict | None = None, facts: Facts | None = None, **keywords: Any) -> Case:
    """Return a chat whose answer is an object with a text for which these keywords of a schema hold."""
    properties = {"code": {"type": "string", **keywords}}
    schema = {"type": "object", "properties": properties, "required": ["code"]}
    return chat(name, verdict, "Give me a code as JSON.", format=schema, options=SOME, old=old, facts=facts)


CASES = (
    # Control
    raw("root", "/", method="GET"),
    raw("version", "/api/version", method="GET"),
    raw("tags", "/api/tags", method="GET"),
    raw("show", "/api/show", {"model": "$MODEL"}),
    raw("show an unknown model", "/api/show", {"model": "nobody"}),
    raw("show no model", "/api/show", {}),
    raw("show a cloud model", "/api/show", {"model": "nobody:cloud"}),
    raw("unknown path", "/api/nothing", method="GET"),
    raw("wrong verb", "/api/chat", method="GET"),
    raw("foreign Host", "/api/tags", method="GET", headers={"Host": "evil.example.com"}),
    # Load
    Case(name="load", path="/api/chat", body={"model": "$MODEL", "options": LOAD}, verdict=LOADED),
    raw("ps", "/api/ps", method="GET"),
    raw("generate nothing", "/api/generate", {"model": "$MODEL", "options": LOAD}),
    embed("embed an empty text", LOADED, ""),
    embed("embed no text", LOADED, []),
    # Answers
    chat("chat", ANSWER, facts=ending),
    raw("chat, streamed", "/api/chat", {**dict(chat("", ANSWER).document), "stream": True}),
    chat("chat, reply of more than 2 KiB", ANSWER, logprobs=True, top_logprobs=20, options={"num_predict": 30}),
    chat("chat, cut off", ANSWER, "Count to a hundred.", options={"num_predict": 3}, facts=ending),
    chat("chat, probabilities", ANSWER, logprobs=True, top_logprobs=2),
    chat("role in capitals", ANSWER, messages=[{"role": "USER", "content": "hi"}]),
    chat("unknown option", ANSWER, options={"colour": "red"}),
    chat("whole option as 8.9", ANSWER, options={"num_predict": 8.9}),
    generate("generate", ANSWER, facts=ending),
    generate("generate, raw", ANSWER, raw=True, facts=ending),
    generate("generate, with context", ANSWER, context=[1, 2, 3]),
    chat("format json", ANSWER, "A colour as JSON.", format="json", options=SOME),
    chat("format empty", ANSWER, format="", facts=ending),
    coded("schema", ANSWER, maxLength=8, facts=ending),
    coded("schema, anchored pattern", ANSWER, pattern="^[A-Z]{2}[0-9]{4}$", facts=ending),
    # The prompt is too long
    chat("too long, cut", ANSWER, LONG, facts=share),
    chat(
        "too long, older messages dropped",
        ANSWER,
        messages=[
            {"role": "user", "content": LONG},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "hi"},
        ],
        facts=share,
    ),
    chat("too long, truncate false", REQUEST, LONG, truncate=False),
    generate("generate, too long, cut", ANSWER, LONG, facts=share),
    generate("generate, too long, truncate false", REQUEST, LONG, truncate=False),
    # What no server can read
    Case(name="no body", path="/api/chat", body=b"", verdict=REQUEST),
    Case(name="broken JSON", path="/api/chat", body=b'{"model": "m", ', verdict=REQUEST),
    Case(name="an array", path="/api/chat", body=b"[]", verdict=REQUEST),
    chat("content is a number", REQUEST, messages=[{"role": "user", "content": 7}]),
    chat("no model", REQUEST, model=""),
    generate("generate, no model", ELSEWHERE, model=""),
    chat("bad model name", REQUEST, model="a b"),
    chat("keep_alive as text", REQUEST, keep_alive="-1"),
    chat("think strange", REQUEST, think="hard"),
    chat("think a number", REQUEST, think=3),
    chat("top_logprobs too many", REQUEST, logprobs=True, top_logprobs=21),
    chat("option of a wrong type", REQUEST, options={"num_predict": "many"}),
    chat("stop is a text", REQUEST, options={"stop": "x"}),
    generate("raw with system", REQUEST, raw=True, system="Be short."),
    chat("format yaml", REQUEST, format="yaml"),
    chat("format a number", REQUEST, format=7),
    # What this model, or this server, cannot do
    chat("unknown model", ELSEWHERE, model="nobody"),
    generate("generate, unknown model", ELSEWHERE, model="nobody"),
    embed("embed, unknown model", ELSEWHERE, "hi", model="nobody"),
    chat("cloud model", REQUEST, model="gpt-oss:120b-cloud"),
    chat("cloud model by its tag", REQUEST, model="nobody:cloud"),
    generate("generate, cloud model", REQUEST, model="nobody:cloud"),
    chat("local and cloud", REQUEST, model="nobody:local:cloud"),
    chat("think true", REQUEST, think=True),
    chat("tools", REQUEST, tools=[TOOL]),
    generate("suffix", REQUEST, suffix="the end."),
    chat("picture", REQUEST, messages=[{"role": "user", "content": "What?", "images": [PICTURE]}], old=ANSWER),
    generate("generate, picture", REQUEST, images=[PICTURE], old=ANSWER),
    chat("picture that is no base64", REQUEST, messages=[{"role": "user", "content": "What?", "images": ["#"]}]),
    embed("embed", REQUEST, "hi", old=ANSWER),
    embed("embed a number", REQUEST, 7),
    # OpenAI's form
    raw(
        "completions",
        "/v1/chat/completions",
        {"model": "$MODEL", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8},
    ),
    raw("completions, no messages", "/v1/chat/completions", {"model": "$MODEL", "messages": []}),
    raw(
        "completions, unknown model",
        "/v1/chat/completions",
        {"model": "nobody", "messages": [{"role": "user", "content": "hi"}]},
    ),
    raw("models", "/v1/models", method="GET"),
    # Schemas that the server refuses. The server may crash here, so they come last.
    chat("schema of a strange type", REQUEST, format={"type": "strange"}),
    chat("schema with a broken $ref", REQUEST, format={"$ref": "#/$defs/nobody"}),
    coded("schema, pattern without anchors", REQUEST, pattern="[0-9]{4}"),
    coded("schema, pattern with \\d", REQUEST, pattern="^\\d{4}$", old=Verdict.ENDPOINT),  # the runner dies
    coded("schema, pattern with a broken bracket", REQUEST, pattern="^[a-$"),
    chat("the same token for ever", REQUEST, "Say ha.", format={"enum": ["ha " * 60]}, options={"num_predict": 150}),
    # Builds of llama-server differ: it refuses these, drops what it does not know, or takes any text.
    coded("schema, pattern with (?:", Verdict.RAW, pattern="^(?:ab|cd)$", old=DIED),
    coded("schema, pattern that looks ahead", Verdict.RAW, pattern="^(?=a)[a-z]{2}$", old=DIED),
    # At the end nothing is loaded
    Case(name="unload", path="/api/chat", body={"model": "$MODEL", "keep_alive": 0}, verdict=LOADED),
)
