"""The meaning of a reply: success is more than a 200, and a table classifies each refusal and says where to retry.

The texts are those of ollama v0.33.0 and of the llama-server inside it; a comment names another version if the text is
from there. A rule without a pattern goes by the status alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import KeptAnswer
from obcd.core.answer.vectors import read_vectors, why_no_vectors
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.json_objects import parse_object
from obcd.core.request.lines import OPTION_TYPES
from obcd.core.request.records import Kind, Request
from obcd.errors import LineError
from obcd.ollama.repetition import ends_in_repetition
from obcd.ollama.transport import Reply

#: done_reason of a complete answer; `load` and `unload` mean that nothing was generated.
ANSWERED = ("stop", "length")
#: {kind: key of the text of an answer, in the message of a chat or in the reply itself}
TEXT_KEYS = {Kind.CHAT: "content", Kind.COMPLETE: "response"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: a reply of this status whose error text matches is a fault of this kind."""

    status: int | None  # None: any status of 400 and above
    pattern: re.Pattern[str]
    kind: FaultKind
    remedy: Remedy
    costs_attempt: bool = True
    harm: Harm = Harm.NONE
    reached_model: bool = True


def _rule(
    status: int | None,
    pattern: str,
    kind: FaultKind,
    remedy: Remedy,
    *,
    costs_attempt: bool = True,
    harm: Harm = Harm.NONE,
    reached_model: bool = True,
) -> Rule:
    return Rule(status, re.compile(pattern, re.IGNORECASE), kind, remedy, costs_attempt, harm, reached_model)


#: What llama-server and older versions of Ollama say of a schema that they cannot make a grammar of: with status 400
#: ("JSON schema conversion failed", "failed to parse grammar"), 500 ("invalid JSON schema in format", "unable to create
#: sampling context", up to v0.24) or 200 ("failed to load model vocabulary required for format").
_SCHEMA = r"schema|grammar|sampling context|model vocabulary|pattern must start|resolving ref"
#: llama-server's exceed_context_size_error; Ollama's own count since v0.30.9; "exceeds [maximum] context" up to v0.24,
#: without counts.
_TOO_LONG = r"exceed_context_size|longer than the context|exceeds? (the )?(available |maximum )?context"

#: First match wins.
RULES = (
    # The request's own fault: the same payload fails again, on every server.
    _rule(400, _TOO_LONG, FaultKind.TOO_LONG, Remedy.NEVER),
    _rule(500, _TOO_LONG, FaultKind.TOO_LONG, Remedy.NEVER),
    _rule(400, r"does not support (chat|generate|thinking|tools|insert|embed)", FaultKind.UNSUPPORTED, Remedy.NEVER),
    # llama-server, of which Ollama makes a 500.
    _rule(None, r"image input is not supported", FaultKind.UNSUPPORTED, Remedy.NEVER),
    _rule(400, _SCHEMA, FaultKind.BAD_SCHEMA, Remedy.NEVER),
    _rule(500, _SCHEMA, FaultKind.BAD_SCHEMA, Remedy.NEVER),
    # A 500, yet the request's fault: options, `format` and template.
    _rule(500, r"^option \"|^invalid format|^template:", FaultKind.BAD_REQUEST, Remedy.NEVER),
    _rule(400, r"", FaultKind.BAD_REQUEST, Remedy.NEVER),
    _rule(500, r"incompatible with your version of ollama", FaultKind.INCOMPATIBLE, Remedy.ELSEWHERE),
    # Later than v0.33.0-rc2: "prediction aborted, token repeat limit reached" (ollama PR 18374).
    _rule(500, r"token repeat limit", FaultKind.REPETITION, Remedy.NEVER),
    _rule(500, r"invalid tool call|parser", FaultKind.BAD_SAMPLE, Remedy.HERE),
    # The server lacks the model, or denies access: another server may work.
    _rule(404, r"model", FaultKind.MODEL_MISSING, Remedy.ELSEWHERE),
    # "ollama cloud is disabled".
    _rule(403, r"cloud", FaultKind.BAD_REQUEST, Remedy.NEVER),
    # A 403 with no text: the Host header is not a local one (ollama server/routes.go).
    _rule(401, r"", FaultKind.FORBIDDEN, Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN),
    _rule(403, r"", FaultKind.FORBIDDEN, Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN),
    _rule(407, r"", FaultKind.FORBIDDEN, Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN),
    # Busy: send again. 503: OLLAMA_MAX_QUEUE are waiting; 499: the client left, which only a proxy shows.
    _rule(503, r"", FaultKind.BUSY, Remedy.HERE, costs_attempt=False),
    _rule(429, r"", FaultKind.BUSY, Remedy.HERE),
    _rule(499, r"", FaultKind.BUSY, Remedy.HERE, costs_attempt=False),
    # It waited for a slot, or came too early after a crash: such requests were not passed on to the process.
    _rule(
        500,
        r"process no longer running",
        FaultKind.CRASHED,
        Remedy.ELSEWHERE,
        costs_attempt=False,
        reached_model=False,
    ),
    # The server is in trouble. "requires more system memory" and "llama runner": up to v0.24.
    _rule(
        500,
        r"out[- ]of[- ]memory|requires more system memory",
        FaultKind.OUT_OF_MEMORY,
        Remedy.ELSEWHERE,
        harm=Harm.STRIKE,
    ),
    _rule(
        500,
        r"process has terminated|error starting|timed out waiting for",
        FaultKind.LOAD_FAILED,
        Remedy.ELSEWHERE,
        harm=Harm.STRIKE,
    ),
    _rule(
        500,
        r"unexpectedly stopped|unexpected EOF|encountered while running|CUDA",
        FaultKind.CRASHED,
        Remedy.ELSEWHERE,
        harm=Harm.STRIKE,
    ),
    _rule(None, r"", FaultKind.SERVER_ERROR, Remedy.ELSEWHERE, harm=Harm.STRIKE),
)

#: The same for /api/embed, which replies 400 to every error without a status, a crashed model included (ollama
#: server/routes.go: EmbedHandler): only errors that are known to be the request's own fault count as its fault there.
_EMBED_FAULTS = r"option \"|invalid input type|json: cannot unmarshal|invalid model name|dimensions"
EMBED_RULES = (
    _rule(
        None,
        rf"{_TOO_LONG}|too large to process",
        FaultKind.TOO_LONG,
        Remedy.NEVER,
    ),
    _rule(None, r"does not support embed", FaultKind.UNSUPPORTED, Remedy.NEVER),
    _rule(None, r"unsupported value: (NaN|[+-]?Inf)", FaultKind.BAD_SAMPLE, Remedy.ELSEWHERE),
    _rule(400, _EMBED_FAULTS, FaultKind.BAD_REQUEST, Remedy.NEVER),
    *(rule for rule in RULES if rule.status != 400 and rule.kind is not FaultKind.SERVER_ERROR),
    *(
        replace(rule, status=400)
        for rule in RULES
        if rule.status == 500 and (rule.harm is Harm.STRIKE or not rule.reached_model)
    ),
    _rule(None, r"", FaultKind.SERVER_ERROR, Remedy.ELSEWHERE, harm=Harm.STRIKE),
)

_OPTIONS = "|".join(OPTION_TYPES)
_SIZE = r"\(\d{1,6}(\.\d{1,3})? [KMGT]?i?B\)"
_CONVERTER = (
    r"Pattern must start with '\^' and end with '\$'|Unrecognized schema|Error resolving ref|Unsupported ref"
    r"|Unbalanced (parentheses|square brackets|curly brackets)"
    r"|(Wrong number of values|Invalid number) in curly brackets"
)
#: The only words of a server that are passed on: phrases of Ollama itself, with numbers and names of options in them.
#: All other words may quote a prompt: llama-server replies to messages that it cannot read with a dump of them
#: (llama.cpp common/chat.cpp), Go's JSON errors quote the input that they failed on, a proxy may return the request.
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
            # llama.cpp common/json-schema-to-grammar.cpp; what follows these words quotes the schema.
            rf"(JSON schema conversion failed:\s*)?({_CONVERTER})|JSON schema conversion failed",
            r"failed to parse grammar|unable to create sampling context|invalid JSON schema in format",
            r"failed to load model vocabulary required for format|invalid format|ollama cloud is disabled",
            r"does not support multimodal requests|illegal base64 data",
            r"think must be a boolean or string",
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

#: {kind: sentence}; if the server's text contains one of PHRASES, that phrase is appended.
SENTENCES = {
    FaultKind.TOO_LONG: "the prompt does not fit into the context: raise num_ctx (in the line's `options`, or for "
    "all), or shorten it",
    FaultKind.UNSUPPORTED: "the model cannot do what the line requests",
    FaultKind.BAD_SCHEMA: "the server cannot turn the JSON schema into a grammar: anchor its patterns (^…$), simplify "
    "it, or set send_schema = false, so that answers are only checked",
    FaultKind.BAD_REQUEST: "the server refuses the request",
    FaultKind.INCOMPATIBLE: "the model needs another version of Ollama",
    FaultKind.REPETITION: "the model repeated itself until the server stopped it: raise repeat_penalty or temperature, "
    "or change the prompt",
    FaultKind.BAD_SAMPLE: "the server could not read what the model wrote",
    FaultKind.MODEL_MISSING: "the server does not have the model",
    FaultKind.FORBIDDEN: "access denied: check the server's address, the proxy in front of it, and its token_file",
    FaultKind.BUSY: "the server is busy",
    FaultKind.OUT_OF_MEMORY: "the server does not have enough memory for the model",
    FaultKind.LOAD_FAILED: "the server could not load the model",
    FaultKind.CRASHED: "the model's process crashed while it answered",
    FaultKind.SERVER_ERROR: "the server reports an error",
}


#: What to do about a model that lacks a capability: (Ollama's text, clause).
WAYS_OUT = (
    (
        re.compile(r"does not support (chat|generate)", re.IGNORECASE),
        ": an embedding model makes vectors only, write `embed` in place of the prompt, or name another model",
    ),
    (
        re.compile(r"does not support embed", re.IGNORECASE),
        ": write `prompt` in place of `embed`, or name an embedding model",
    ),
)


def judge(reply: Reply, request: Request) -> dict[str, object] | Fault:
    """Judge the reply to a request: return the parsed document of a complete answer, or the fault."""
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
        return _unfinished(message, request.kind)
    return document


def _unfinished(message: Mapping[str, Any], kind: Kind) -> Fault:
    """Return the fault of an answer that did not come to its end; the text so far is kept."""
    text, thinking = message.get(TEXT_KEYS[kind], ""), message.get("thinking")
    thoughts = thinking if isinstance(thinking, str) else ""
    kept = KeptAnswer(text=text, thinking=thoughts or None) if text or thoughts else None
    if ends_in_repetition(text) or ends_in_repetition(thoughts):
        return Fault(FaultKind.REPETITION, SENTENCES[FaultKind.REPETITION], Remedy.NEVER, kept=kept)
    sentence = "the server stopped before the answer was complete"
    return Fault(FaultKind.ABORTED, sentence, Remedy.ELSEWHERE, harm=Harm.STRIKE, kept=kept)


def judge_loaded(reply: Reply, kind: Kind) -> Fault | None:
    """Judge the reply to a request that only loads a model; return its fault, None for success."""
    document = _read(reply, kind)
    if isinstance(document, Fault):
        return document
    key = "embeddings" if kind is Kind.EMBED else "message"
    return None if key in document else _invalid(f"the reply holds no {key}")


def _read(reply: Reply, kind: Kind) -> dict[str, object] | Fault:
    """Return the document of a reply that is not an error, else its fault."""
    if reply.status != 200:
        return _judge_refusal(reply, kind)
    try:
        document = read_vectors(reply.body) if kind is Kind.EMBED else parse_object(reply.body)
    except LineError:
        return _invalid("the reply is not a JSON object")
    if "error" in document:
        return _by_rules(500, error_text(reply.body), kind)
    return document


def error_text(body: bytes) -> str:
    """Return the server's error text; a llama-server error, which is JSON inside a JSON string, is unwrapped."""
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
        return Fault(FaultKind.REDIRECT, message, Remedy.ELSEWHERE, harm=Harm.STRIKE)
    if reply.status < 400:
        return _invalid(f"the server answers with status {reply.status}")
    return _by_rules(reply.status, error_text(reply.body), kind, reply.retry_after)


def _by_rules(status: int, text: str, kind: Kind, retry_after: float = 0.0) -> Fault:
    rules = EMBED_RULES if kind is Kind.EMBED else RULES
    rule = next(rule for rule in rules if rule.status in (None, status) and rule.pattern.search(text))
    sentence = f"{SENTENCES[rule.kind]} (status {status}{_detail(rule.kind, text)}){_way_out(rule.kind, text)}"
    needs = _counted_tokens(text)[0] if rule.kind is FaultKind.TOO_LONG else 0
    return Fault(
        rule.kind,
        sentence,
        rule.remedy,
        rule.costs_attempt,
        rule.harm,
        retry_after,
        needs,
        reached_model=rule.reached_model,
        reply=text if rule.kind is FaultKind.SERVER_ERROR else "",  # where no rule knows what it means
    )


def _detail(kind: FaultKind, text: str) -> str:
    """Return the helpful part of the server's text that cannot quote a prompt, because messages go to logs."""
    if kind is FaultKind.TOO_LONG:
        prompt, fit = _counted_tokens(text)
        return f", {prompt} tokens where {fit} fit" if fit else ""
    phrase = PHRASES.search(text)
    return f": {' '.join(phrase[0].split())}" if phrase else ""


def _way_out(kind: FaultKind, text: str) -> str:
    """Return what to write for a model that can do something else, as a clause."""
    if kind is not FaultKind.UNSUPPORTED:
        return ""
    return next((clause for pattern, clause in WAYS_OUT if pattern.search(text)), "")


def _counted_tokens(text: str) -> tuple[int, int]:
    """Return the prompt's tokens and how many fit, as llama-server counted them; 1 and 0 if the text does not say."""
    tokens = re.search(r"request \(([0-9]{1,9}) tokens\).*?\(([0-9]{1,9}) tokens\)", text)
    return (int(tokens[1]), int(tokens[2])) if tokens else (1, 0)


def _invalid(message: str) -> Fault:
    return Fault(FaultKind.INVALID_REPLY, message, Remedy.ELSEWHERE, harm=Harm.STRIKE)
