"""The one table that says what a reply means. Success is more than a 200; every failure has its remedy here.

Sources: ollama v0.33.0 as laid down beside each rule; texts of older servers (llama runner) are matched too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from obcd.core.answer.vectors import read_vectors, why_no_vectors
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.lines import OPTION_TYPES, parse_object
from obcd.core.request.records import Kind, Request
from obcd.errors import LineError
from obcd.ollama.transport import Reply

#: done_reason of an answer; `load` and `unload` mean that nothing was generated.
ANSWERED = ("stop", "length")
#: {kind: key of the text of an answer, in the message of a chat or in the reply itself}
TEXT_KEYS = {Kind.CHAT: "content", Kind.COMPLETE: "response"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: a reply of this status whose error text matches is a fault of this kind."""

    status: int | None  # None: any status of 400 and above
    pattern: re.Pattern[str]
    kind: str
    remedy: Remedy
    costs_attempt: bool = True
    harm: Harm = Harm.NONE


def _rule(
    status: int | None, pattern: str, kind: str, remedy: Remedy, costs_attempt: bool = True, harm: Harm = Harm.NONE
) -> Rule:
    return Rule(status, re.compile(pattern, re.IGNORECASE), kind, remedy, costs_attempt, harm)


#: First match wins.
RULES = (
    # The request's own fault: the same payload fails again, on every server.
    _rule(
        400, r"exceed_context_size|longer than the context|exceeds? the (available )?context", "too_long", Remedy.NEVER
    ),
    _rule(400, r"does not support (chat|generate|thinking|tools|insert|embed)", "unsupported", Remedy.NEVER),
    _rule(None, r"image input is not supported", "unsupported", Remedy.NEVER),
    _rule(400, r"schema", "bad_schema", Remedy.NEVER),
    _rule(500, r"^option \"|^invalid format|^template:", "bad_request", Remedy.NEVER),  # 500, yet the request's fault
    _rule(400, r"", "bad_request", Remedy.NEVER),
    _rule(500, r"incompatible with your version of ollama", "incompatible", Remedy.ELSEWHERE),
    _rule(500, r"token repeat limit", "repetition", Remedy.NEVER),
    _rule(500, r"invalid tool call|parser", "bad_sample", Remedy.HERE),
    # The server lacks it, or does not let us in: another one may do.
    _rule(404, r"model", "model_missing", Remedy.ELSEWHERE),
    _rule(403, r"cloud", "bad_request", Remedy.NEVER),
    _rule(401, r"", "forbidden", Remedy.ELSEWHERE, False, Harm.DOWN),
    _rule(403, r"", "forbidden", Remedy.ELSEWHERE, False, Harm.DOWN),
    _rule(407, r"", "forbidden", Remedy.ELSEWHERE, False, Harm.DOWN),
    # Busy: ask again, it costs nothing.
    _rule(503, r"", "busy", Remedy.HERE, False),
    _rule(429, r"", "busy", Remedy.HERE),
    _rule(499, r"", "busy", Remedy.HERE, False),
    # The server is in trouble.
    _rule(
        500, r"out[- ]of[- ]memory|requires more system memory", "out_of_memory", Remedy.ELSEWHERE, True, Harm.STRIKE
    ),
    _rule(
        500,
        r"process has terminated|error starting|timed out waiting for",
        "load_failed",
        Remedy.ELSEWHERE,
        True,
        Harm.STRIKE,
    ),
    _rule(
        500,
        r"unexpectedly stopped|unexpected EOF|encountered while running|CUDA",
        "crashed",
        Remedy.ELSEWHERE,
        True,
        Harm.STRIKE,
    ),
    _rule(None, r"", "server_error", Remedy.ELSEWHERE, True, Harm.STRIKE),
)

#: The same for /api/embed, which says 400 of whatever has no status of its own, a crashed model included (ollama
#: server/routes.go: EmbedHandler): only what is known to be the request's own fault is its fault there.
_EMBED_FAULTS = r"option \"|invalid input type|json: cannot unmarshal|invalid model name|dimensions"
EMBED_RULES = (
    _rule(
        None, r"exceed_context_size|exceeds? the (available )?context|too large to process", "too_long", Remedy.NEVER
    ),
    _rule(None, r"does not support embed", "unsupported", Remedy.NEVER),
    _rule(None, r"unsupported value: (NaN|[+-]?Inf)", "bad_sample", Remedy.ELSEWHERE),
    _rule(400, _EMBED_FAULTS, "bad_request", Remedy.NEVER),
    *(rule for rule in RULES if rule.status != 400 and rule.kind != "server_error"),
    *(replace(rule, status=400) for rule in RULES if rule.status == 500 and rule.harm is Harm.STRIKE),
    _rule(None, r"", "server_error", Remedy.ELSEWHERE, True, Harm.STRIKE),
)

_OPTIONS = "|".join(OPTION_TYPES)
_SIZE = r"\(\d{1,6}(\.\d{1,3})? [KMGT]?i?B\)"
#: The only words of a server that are passed on: phrases of Ollama itself, with numbers and names of options in them.
#: Everything else it says may quote a prompt: llama-server answers messages that it cannot read with a dump of them
#: (llama.cpp common/chat.cpp), Go's JSON errors name what they stumbled over, a proxy may send the request back.
PHRASES = re.compile(
    "|".join(
        (
            rf'option "({_OPTIONS})" must be of type (integer|boolean|float32|number|string|array( of strings)?)',
            r"missing request body",
            r"cannot unmarshal (string|number|object|array|bool) into Go (struct field|value)",
            r"looking for beginning of value|unexpected end of JSON input",
            r"model is required|invalid model name|use either :local or :cloud, not both",
            r"invalid think value|top_logprobs must be between 0 and 20|missing unit in duration|invalid duration",
            r"does not support (chat|generate|thinking|tools|insert|embeddings|embed)",
            r"image generation models are not currently supported|image input is not supported",
            r"JSON schema conversion failed|invalid format|ollama cloud is disabled",
            r"^template: ?:\d{1,5}:\d{1,5}",
            r"(llama-server|llama runner) process has terminated: "
            r"(exit status \d{1,10}|signal: (killed|aborted|segmentation fault|bus error|illegal instruction))",
            r"(llama-server|llama runner) process has terminated|error starting (llama-server|llama runner)",
            r"timed out waiting for (llama-server|llama runner) to start",
            r"out-of-memory during startup|CUDA error: (out of memory|an illegal memory access)",
            rf"requires more system memory {_SIZE} than is available {_SIZE}",
            r"incompatible with your version of Ollama",
            r"out of memory",
        )
    ),
    re.IGNORECASE | re.ASCII,
)

#: {kind: sentence}; where the server says one of PHRASES, it is appended.
SENTENCES = {
    "too_long": "the prompt does not fit into the context: raise num_ctx (in the line's `options`, or for all), or "
    "shorten it",
    "unsupported": "the model cannot do what the line asks",
    "bad_schema": "the server cannot turn the JSON schema into a grammar: simplify it",
    "bad_request": "the server refuses the request",
    "incompatible": "the model needs another version of Ollama",
    "repetition": "the model repeated itself until the server stopped it",
    "bad_sample": "the server could not read what the model wrote",
    "model_missing": "the server does not have the model",
    "forbidden": "the server does not let us in: check its address, what stands in front of it, and its token_file",
    "busy": "the server is busy",
    "out_of_memory": "the server has not enough memory for the model",
    "load_failed": "the server could not load the model",
    "crashed": "the model's process crashed while it answered",
    "server_error": "the server reports an error",
}


def judge(reply: Reply, request: Request) -> dict[str, object] | Fault:
    """Judge the reply to a request: the parsed document of a true answer, or what went wrong."""
    document = _read(reply, request.kind)
    if isinstance(document, Fault):
        return document
    if request.kind is Kind.EMBED:
        why = why_no_vectors(document.get("embeddings"), len(request.inputs))
        return _invalid(why) if why else document
    message = document.get("message") if request.kind is Kind.CHAT else document
    if not isinstance(message, dict) or not isinstance(message.get(TEXT_KEYS[request.kind], ""), str):
        return _invalid("the reply holds no message")
    if document.get("done") is not True or document.get("done_reason") not in ANSWERED:
        return Fault("aborted", "the server stopped before the answer was complete", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    return document


def judge_loaded(reply: Reply, kind: Kind) -> Fault | None:
    """Judge the reply to a request that only loads a model."""
    document = _read(reply, kind)
    if isinstance(document, Fault):
        return document
    key = "embeddings" if kind is Kind.EMBED else "message"
    return None if key in document else _invalid(f"the reply holds no {key}")


def _read(reply: Reply, kind: Kind) -> dict[str, object] | Fault:
    """Return the document of a reply that is no error."""
    if reply.status != 200:
        return _judge_refusal(reply, kind)
    try:
        document = read_vectors(reply.body) if kind is Kind.EMBED else parse_object(reply.body)
    except LineError:
        return _invalid("the reply is no JSON object")
    if "error" in document:
        return _by_rules(500, error_text(reply.body), kind)
    return document


def error_text(body: bytes) -> str:
    """Return the server's error text; a llama-server error, JSON inside a JSON string, is unwrapped."""
    text: object = body.decode("utf-8", "replace")
    for _ in range(3):
        try:
            document = json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError):
            break
        if not isinstance(document, dict):
            break
        text = document.get("error", document.get("message", ""))
        if isinstance(text, dict):
            text = f"{text.get('type', '')}: {text.get('message', '')}"
            break
    return str(text)[:500]


def _judge_refusal(reply: Reply, kind: Kind) -> Fault:
    if 300 <= reply.status < 400:
        message = (
            f"the server answers with a redirect ({reply.status}), which is not followed: configure its new address"
        )
        return Fault("redirect", message, Remedy.ELSEWHERE, harm=Harm.STRIKE)
    if reply.status < 400:
        return _invalid(f"the server answers with status {reply.status}")
    return _by_rules(reply.status, error_text(reply.body), kind, reply.retry_after)


def _by_rules(status: int, text: str, kind: Kind, retry_after: float = 0.0) -> Fault:
    rules = EMBED_RULES if kind is Kind.EMBED else RULES
    rule = next(rule for rule in rules if rule.status in (None, status) and rule.pattern.search(text))
    sentence = f"{SENTENCES[rule.kind]} (status {status}{_detail(rule.kind, text)})"
    needs = _counted_tokens(text)[0] if rule.kind == "too_long" else 0
    return Fault(rule.kind, sentence, rule.remedy, rule.costs_attempt, rule.harm, retry_after, needs)


def _detail(kind: str, text: str) -> str:
    """Return the part of the server's words that helps and cannot quote a prompt: messages go to logs."""
    if kind == "too_long":
        prompt, fit = _counted_tokens(text)
        return f", {prompt} tokens where {fit} fit" if fit else ""
    phrase = PHRASES.search(text)
    return f": {phrase[0]}" if phrase else ""


def _counted_tokens(text: str) -> tuple[int, int]:
    """Return the prompt's tokens and how many fit, as llama-server counted them; 1 and 0 where nobody says."""
    tokens = re.search(r"request \(([0-9]{1,9}) tokens\).*?\(([0-9]{1,9}) tokens\)", text)
    return (int(tokens[1]), int(tokens[2])) if tokens else (1, 0)


def _invalid(message: str) -> Fault:
    return Fault("invalid_reply", message, Remedy.ELSEWHERE, harm=Harm.STRIKE)
