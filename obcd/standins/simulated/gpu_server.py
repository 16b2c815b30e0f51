"""A simulated GPU server: load time, slots, a speed that falls as they fill, and every fault on request.

Answers and times come from a hash of the prompt, so that every client and every server does the same work. The words
are invented: the server serves to measure clients, not a language model.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from obcd.clock import monotonic
from obcd.standins.simulated.faults import (
    CRASH_TEXT,
    LOAD_TEXT,
    MILD,
    FaultRate,
    SimulatedFault,
    drawn_faults,
    garble,
    marked_faults,
    play,
    spoil,
)
from obcd.standins.simulated.library import Library
from obcd.standins.simulated.made_up_answers import fitting_value, normal, words
from obcd.standins.simulated.prefix_cache import MEMORY_TOKENS, PrefixCache, PrefixCaching, SlotHold
from obcd.standins.simulated.sharing import TokenClock
from obcd.standins.wire.engine import (
    NO_EMBEDDINGS,
    Embeddings,
    EngineCrash,
    EngineError,
    EngineReply,
    JsonObject,
    LoadSignature,
    ModelCard,
    Texts,
    Work,
    WorkOutcome,
    shortened,
)
from obcd.standins.wire.http import Exchange
from obcd.standins.wire.reply_shapes import encode
from obcd.standins.wire.request_values import PROMPT_TOO_LONG, exceed_context_text, tagged_name, whole_option

VERSION = "0.33.0-obcd-simulated"

#: the size of every simulated model, in bytes: a 3B model at 4 bits
MODEL_BYTES = 2_019_393_189

#: {value of --size-vram: share of a loaded model that is on the GPU}, contract 5.3
VRAM_SHARES = {"full": 1.0, "partial": 0.5, "cpu": 0.0}

#: tokens that a cut prompt keeps at its start: num_keep and the beginning-of-sequence token, contract 3.4
KEPT_TOKENS = 5

#: numbers in the vector of a simulated embedding model
EMBEDDING_LENGTH = 64

#: seconds that a call of /api/embed takes beside those of its texts (contract 9.2: 1.3 ms beside 2.7 ms a text)
EMBED_CALL_SECONDS = 0.0013

#: parts of a model's name by which Ollama's library names embedding models
EMBEDDING_NAMES = ("embed", "minilm", "bge-")

#: parts of a model's name that think before they answer
THINKING_NAMES = ("qwen3", "deepseek-r1", "gpt-oss")

#: parts of a model's name, with its tag, by which Ollama's library names models that see pictures, that fill a gap
#: before a suffix, and that know no tools; the rest of a name does not matter
SEEING_NAMES = ("vision", "llava", "-vl", "gemma3", "moondream")
FILLING_NAMES = ("coder", "codellama", "codegemma")
TOOLLESS_NAMES = ("gemma:", "gemma2", "llama2", "phi3", "llava", "moondream")

#: words of a thought
THOUGHT_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a simulated server behaves. Times are in seconds, speeds in tokens per second."""

    seconds: float | None = None  # each request takes this long in its slot; None = from its tokens
    spread: float = 0.0  # sigma of a lognormal factor on seconds or answer length, by prompt; 0 = none
    tokens_per_second: float = 60.0  # of a single generation
    prompt_tokens_per_second: float = 2000.0
    slowdown: float = 0.1  # k of `sharing`
    answer_tokens: int = 64  # median
    load_seconds: float = 0.5
    embed_call_seconds: float = EMBED_CALL_SECONDS  # part of `seconds` of a single text; 0 = as v0.24, about
    overhead: float = 0.0  # most seconds of a request in its slot that no counter holds; by prompt, a quarter at least
    models: tuple[str, ...] = ("llama3.2",)
    weights: str = ""  # another word gives every model another digest, as if from another pull
    most_context: int = 0  # tokens that fit into its memory; a larger context is lowered to it; 0 = any fits
    pull_seconds: float = 1.0
    size_vram: str = "full"
    prefix_cache: PrefixCaching = PrefixCaching.OFF  # off by default: figures of different versions stay comparable
    faults: tuple[FaultRate, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """An answer before it is sent."""

    work: Work
    outcome: WorkOutcome
    factor: float  # time of this prompt relative to the median


class SimulatedEngine:
    """One simulated GPU.

    Args:
        slots: of each loaded model, each with its own part of the prefix cache.
    """

    def __init__(self, behaviour: Behaviour, library: Library | None = None, slots: int = 1) -> None:
        self.version = VERSION
        self.behaviour = behaviour
        self._library = library or Library()
        self._slots = slots
        self._caches: dict[str, PrefixCache] = {}  #: {canonical name of a loaded model: its prefix cache}
        self._clock = TokenClock(behaviour.tokens_per_second, behaviour.slowdown)
        self._waits: set[asyncio.Future[None]] = set()
        self._loads_to_fail = 0
        #: Models whose process hangs.
        self._stuck: set[str] = set()

    def models(self) -> Sequence[ModelCard]:
        """Return the models of the behaviour, and those that were pulled."""
        names = (*self.behaviour.models, *self._library.pulled)
        return [card_of(name, self.behaviour.weights) for name in names]

    async def describe(self) -> Sequence[ModelCard]:
        """Return the models, as `models` does."""
        return self.models()

    async def pull(self, exchange: Exchange) -> None:
        """Answer POST /api/pull."""
        await self._library.pull(exchange, self.behaviour.pull_seconds)

    def context_length(self, signature: LoadSignature) -> int:
        """Return the context that fits into the behaviour's memory."""
        return min(signature.num_ctx, self.behaviour.most_context or signature.num_ctx)

    def vram_bytes(self, card: ModelCard) -> int:
        """Return the share of the model that the behaviour puts on the GPU."""
        return int(card.size * VRAM_SHARES[self.behaviour.size_vram])

    async def load(self, signature: LoadSignature) -> None:
        """Take the load time; fail after a fault crash-load. A new process has an empty cache."""
        self._caches.pop(signature.model, None)
        await asyncio.sleep(self.behaviour.load_seconds)
        self._stuck.discard(signature.model)
        if self._loads_to_fail:
            self._loads_to_fail -= 1
            raise EngineError(500, LOAD_TEXT)

    async def unload(self, signature: LoadSignature) -> None:
        """Forget the prompts that were evaluated."""
        self._caches.pop(signature.model, None)

    async def generate(self, work: Work, reply: EngineReply) -> WorkOutcome | None:
        """Answer after the simulated time, or apply a fault."""
        work = replace(work, signature=replace(work.signature, num_ctx=self.context_length(work.signature)))
        faults = marked_faults(work.prompt, work.attempt)
        if self.behaviour.faults and not faults:
            faults = drawn_faults(self.behaviour.faults, work.prompt, work.attempt)
        await self._pass_stuck(work.signature.model, faults)
        if self.behaviour.overhead:
            await self._wait(self.behaviour.overhead * (0.25 + 0.75 * zlib.crc32(_seed_text(work).encode()) / 2**32))
        plan = self._plan(work, sum(int(fault.value) for fault in faults if fault.kind == "tokens"))
        if not faults:
            return await self._spend(plan, None, reply)
        if any(fault.kind == "garbled" for fault in faults):
            plan = replace(plan, outcome=replace(plan.outcome, text=garble(plan.outcome.text)))
        seconds = next((fault.value for fault in faults if fault.kind == "seconds"), None)
        fault = next((fault for fault in faults if fault.kind not in MILD), None)
        return await self._fail(fault, plan, seconds, reply)

    async def embed(self, texts: Texts) -> Embeddings:
        """Return vectors of length one that depend only on the text, or apply a fault of any of the texts.

        A call takes its own time and that of each text. One text that is too long refuses all.
        """
        if not is_embedding_model(texts.signature.model):
            raise EngineError(501, NO_EMBEDDINGS)
        tokens = [token_count(text) for text in texts.inputs]
        most = self.context_length(texts.signature)
        if not texts.truncate and any(count > most for count in tokens):
            raise EngineError(400, "the input length exceeds the context length")
        total = sum(min(count, most) for count in tokens)
        marked = [marked_faults(*each) for each in zip(texts.inputs, texts.attempts, strict=True)]
        faults = [fault for each in marked for fault in each]
        await self._pass_stuck(texts.signature.model, faults)
        times = [self._text_seconds(*each) for each in zip(tokens, marked, strict=True)]
        call_seconds = self.behaviour.embed_call_seconds
        if self.behaviour.seconds is not None:
            call_seconds = min(call_seconds, self.behaviour.seconds)
        await self._wait(call_seconds + sum(times))
        vectors = [shortened(unit_vector(text), texts.dimensions) for text in texts.inputs]
        for fault in faults:
            if fault.kind == "crash":
                self._crash()
                raise EngineCrash(400, CRASH_TEXT)  # the status of an error that has none there
            vectors = await spoil(fault, vectors)
        return Embeddings(vectors, total)

    def _text_seconds(self, tokens: int, faults: Sequence[SimulatedFault]) -> float:
        """Return how long one text takes, without the time of its call."""
        seconds = next((fault.value for fault in faults if fault.kind == "seconds"), self.behaviour.seconds)
        if seconds is None:
            return tokens / self.behaviour.prompt_tokens_per_second
        return max(0.0, seconds - self.behaviour.embed_call_seconds)

    async def _pass_stuck(self, model: str, faults: Sequence[SimulatedFault]) -> None:
        """Wait without end if the model's process hangs, or a fault makes it hang from now on."""
        if any(fault.kind == "stuck" for fault in faults):
            self._stuck.add(model)
        if model in self._stuck:
            await asyncio.Event().wait()

    async def _fail(
        self, fault: SimulatedFault | None, plan: _Plan, seconds: float | None, reply: EngineReply
    ) -> WorkOutcome | None:
        if fault is None:
            return await self._spend(plan, seconds, reply)
        if fault.kind in {"crash", "crash-load"}:
            self._loads_to_fail += fault.kind == "crash-load"
            outcome = replace(plan.outcome, eval_tokens=plan.outcome.eval_tokens // 2)
            await self._spend(replace(plan, outcome=outcome, factor=plan.factor / 2), seconds, reply)
            self._crash()
            raise EngineCrash(500, CRASH_TEXT)
        if fault.kind not in {"status", "eof", "hang", "drip", "redirect"}:
            plan = replace(plan, outcome=await self._spend(plan, seconds, reply, fault.kind != "cut"))
        return await play(fault, plan.outcome, reply)

    def _crash(self) -> None:
        """End all requests in progress: all slots are in one process, and so is the cache."""
        self._caches.clear()
        error = EngineCrash(500, CRASH_TEXT)
        self._clock.fail(error)
        for wait in self._waits:
            if not wait.done():
                wait.set_exception(error)

    def _plan(self, work: Work, more_tokens: int) -> _Plan:
        prompt_tokens = fitted_tokens(work, more_tokens)
        seed = hashlib.sha256(_seed_text(work).encode("utf-8", "surrogatepass")).digest()
        spread = self.behaviour.spread
        factor = math.exp(spread * normal(seed)) if spread else 1.0
        text, tokens = _answer(work, seed, max(1, round(self.behaviour.answer_tokens * factor)))
        calls = _calls(work, seed)
        if calls:
            text, tokens = "", max(1, token_count(encode(calls).decode()))
        limit = token_limit(work, prompt_tokens)
        reason = "stop"
        if tokens > limit:
            text, tokens, reason = text[: len(text) * limit // tokens], limit, "length"
        outcome = WorkOutcome(
            text=text,
            done_reason=reason,
            prompt_tokens=prompt_tokens,
            eval_tokens=tokens,
            thinking=words(seed[::-1], THOUGHT_TOKENS) if _thinks(work) else "",
            tool_calls=calls,
            logprobs=_logprobs(work, text, seed),
        )
        return _Plan(work, outcome, factor)

    async def _spend(self, plan: _Plan, seconds: float | None, reply: EngineReply, stream: bool = True) -> WorkOutcome:
        """Take the time of an answer, send its pieces meanwhile, and return it with its times."""
        hold = self._take_slot(plan)
        if hold is None:
            return await self._answer(plan, None, seconds, reply, stream)
        try:
            return await self._answer(plan, hold, seconds, reply, stream)
        finally:
            hold.release()

    def _take_slot(self, plan: _Plan) -> SlotHold | None:
        """Return the slot whose prefix cache this answer uses; None if nothing is cached."""
        if self.behaviour.prefix_cache is PrefixCaching.OFF:
            return None
        model = plan.work.signature.model
        if model not in self._caches:
            memory = MEMORY_TOKENS if self.behaviour.prefix_cache is PrefixCaching.MEMORY else 0
            self._caches[model] = PrefixCache(self._slots, memory)
        return self._caches[model].take(rendered(plan.work), plan.outcome.prompt_tokens)

    async def _answer(
        self, plan: _Plan, hold: SlotHold | None, seconds: float | None, reply: EngineReply, stream: bool
    ) -> WorkOutcome:
        outcome = plan.outcome
        if hold is not None:
            named = self.behaviour.prefix_cache is PrefixCaching.MEMORY
            outcome = replace(outcome, cached_tokens=hold.cached_tokens, names_cached=named)
        started = monotonic()
        total = seconds
        if total is None and self.behaviour.seconds is not None:
            total = self.behaviour.seconds * plan.factor
        prompt_seconds = (outcome.prompt_tokens - outcome.cached_tokens) / self.behaviour.prompt_tokens_per_second
        if total is not None:
            prompt_seconds = min(prompt_seconds, total / 10)
        if total is not None and not (reply.stream and stream):
            await self._wait(total)  # one timer: each wake-up takes processor time from the measured client
        else:
            await self._wait(prompt_seconds)
            if hold is not None:
                hold.keep_prompt()
            left = None if total is None else total - prompt_seconds
            await self._make_pieces(outcome, left, reply, stream and reply.stream)
        if hold is not None:
            hold.keep_answer(rendered_answer(outcome), outcome.eval_tokens)
        spent = monotonic() - started
        return replace(outcome, prompt_seconds=prompt_seconds, eval_seconds=max(0.0, spent - prompt_seconds))

    async def _make_pieces(self, outcome: WorkOutcome, seconds: float | None, reply: EngineReply, stream: bool) -> None:
        """Take the time of the answer without the prompt, in one step for each piece."""
        pieces = split_pieces(outcome.text) if stream else [outcome.text]
        for piece in pieces:
            if seconds is None:
                await self._clock.spend(outcome.eval_tokens / len(pieces))
            else:
                await self._wait(seconds / len(pieces))
            if stream:
                await reply.send_piece(piece)

    async def _wait(self, seconds: float) -> None:
        """Sleep, or raise if the runner crashes meanwhile."""
        loop = asyncio.get_running_loop()
        wait: asyncio.Future[None] = loop.create_future()
        self._waits.add(wait)
        timer = loop.call_later(seconds, _wake, wait)
        try:
            await wait
        finally:
            timer.cancel()
            self._waits.discard(wait)


def _wake(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


@lru_cache(maxsize=256)
def card_of(name: str, weights: str = "") -> ModelCard:
    """Return the card of a simulated model; its capabilities follow from its name."""
    full = tagged_name(name)
    return ModelCard(
        name=full,
        digest=hashlib.sha256((full.lower() + weights).encode()).hexdigest(),
        size=MODEL_BYTES,
        parameter_size="3.2B",
        quantization="Q4_K_M",
        parameter_count=3_212_749_888,
        embedding_length=EMBEDDING_LENGTH if is_embedding_model(name) else 3072,
        capabilities=abilities_of(full.lower()),
        template="{{ .System }}{{ .Prompt }}",
    )


def abilities_of(name: str) -> tuple[str, ...]:
    """Return the capabilities of a model by its name, in lower case and with its tag, as Ollama shows them."""
    if is_embedding_model(name):
        return ("embedding",)
    named = {"insert": FILLING_NAMES, "vision": SEEING_NAMES, "thinking": THINKING_NAMES}
    found = [ability for ability, parts in named.items() if any(part in name for part in parts)]
    return ("completion", *([] if any(part in name for part in TOOLLESS_NAMES) else ["tools"]), *found)


def is_embedding_model(name: str) -> bool:
    """Return whether a model's name is that of an embedding model."""
    return any(part in name.lower() for part in EMBEDDING_NAMES)


def token_count(text: str) -> int:
    """Return the approximate number of tokens of a text: one for four characters."""
    return (len(text) + 3) // 4


def message_tokens(message: JsonObject) -> int:
    """Return the tokens of a message with its role."""
    return token_count(str(message.get("content") or "")) + 4


def fitted_tokens(work: Work, more: int = 0) -> int:
    """Return the prompt's tokens after Ollama has cut a prompt that is too long (contract 3.4).

    Args:
        more: Additional tokens by a marker.

    Raises:
        EngineError: 400 if the request forbids cutting.
    """
    num_ctx = work.signature.num_ctx
    total = sum(map(message_tokens, work.messages)) + more
    if total <= num_ctx:
        return total
    if not work.truncate:
        raise EngineError(400, exceed_context_text(total, num_ctx))
    for message in work.messages[:-1]:
        if message.get("role") != "system":
            total -= message_tokens(message)
            if total <= num_ctx:
                return total
    if not work.signature.shift:
        raise EngineError(400, PROMPT_TOO_LONG)
    return num_ctx - (num_ctx - KEPT_TOKENS) // 2


def token_limit(work: Work, prompt_tokens: int) -> int:
    """Return an answer's limit in tokens: num_predict, at most ten contexts, without shift the rest of this one."""
    num_ctx = work.signature.num_ctx
    wanted = whole_option(work.options, "num_predict", -1)
    limit = wanted if 0 <= wanted <= 10 * num_ctx else 10 * num_ctx
    return limit if work.signature.shift else max(1, min(limit, num_ctx - prompt_tokens))


def rendered(work: Work) -> str:
    """Return a prompt as one text, of about four characters a token: system, tools, messages, as templates have them.

    Pictures stand in it as their digests, so that prompts with different ones share nothing behind them.
    """
    if work.raw_prompt is not None:
        return work.raw_prompt
    opening = [message for message in work.messages if message.get("role") == "system"]
    rest = [message for message in work.messages if message.get("role") != "system"]
    tools = encode(list(work.tools)).decode() if work.tools else ""
    return "".join([*map(_rendered_message, opening), tools, *map(_rendered_message, rest)])


def rendered_answer(outcome: WorkOutcome) -> str:
    """Return an answer as `rendered` has it in the prompt of a later request."""
    calls = list(outcome.tool_calls)
    return _rendered_message({"role": "assistant", "content": outcome.text, **({"tool_calls": calls} if calls else {})})


def _rendered_message(message: JsonObject) -> str:
    text = f"{message.get('role')!s:<16}{message.get('content') or ''}"
    images, calls = message.get("images"), message.get("tool_calls")
    if isinstance(images, list):
        text += "".join(hashlib.sha256(str(image).encode("utf-8", "surrogatepass")).hexdigest() for image in images)
    return text + encode(calls).decode() if calls else text


def unit_vector(text: str) -> list[float]:
    """Return a vector of length 1 from a hash of the text."""
    raw = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(EMBEDDING_LENGTH)
    values = [byte - 127.5 for byte in raw]
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def split_pieces(text: str) -> list[str]:
    """Return a text in pieces of one word each, as a stream sends it."""
    parts = text.split(" ")
    return [parts[0], *(" " + part for part in parts[1:])]


def _answer(work: Work, seed: bytes, tokens: int) -> tuple[str, int]:
    """Return the answer and its tokens."""
    if work.format is None:
        return words(seed, tokens), tokens
    value = {"answer": words(seed, tokens)} if work.format == "json" else fitting_value(work.format, seed)
    text = encode(value).decode()
    return text, max(1, token_count(text))


def _logprobs(work: Work, text: str, seed: bytes) -> tuple[JsonObject, ...]:
    """Return a probability for each word, and for the requested number of others (ollama api/types.go: Logprob)."""
    if work.logprobs is None:
        return ()
    return tuple(
        {**_logprob(piece, -(seed[place % len(seed)] + 1) / 256), **_top(work.logprobs, piece, seed[place % len(seed)])}
        for place, piece in enumerate(split_pieces(text))
    )


def _top(count: int, piece: str, byte: int) -> JsonObject:
    if not count:
        return {}
    others = [_logprob(f"{piece}{number}", -(byte + 1) / 256 - number) for number in range(1, count)]
    return {"top_logprobs": [_logprob(piece, -(byte + 1) / 256), *others]}


def _logprob(token: str, logprob: float) -> JsonObject:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "surrogatepass"))}


def _thinks(work: Work) -> bool:
    return work.think is not False and any(part in work.signature.model for part in THINKING_NAMES)


def _calls(work: Work, seed: bytes) -> tuple[JsonObject, ...]:
    """Return a call of one of the offered tools, numbered as by Ollama (api/types.go: ToolCall)."""
    tools = [function for tool in work.tools if isinstance(function := tool.get("function"), dict)]
    if not tools:
        return ()
    tool = tools[seed[0] % len(tools)]
    value = fitting_value(tool.get("parameters") or {"type": "object"}, seed)
    arguments = value if isinstance(value, dict) else {}
    return ({"id": f"call_{seed[:4].hex()}", "function": {"index": 0, "name": tool["name"], "arguments": arguments}},)


def _seed_text(work: Work) -> str:
    text = work.signature.model + "\0" + "\0".join([str(message.get("content")) for message in work.messages])
    drawn = whole_option(work.options, "seed", -1)
    if drawn < 0 or work.options.get("temperature") == 0:  # then a real model takes the likeliest token in any case
        return text
    return f"{text}\0{drawn}"
