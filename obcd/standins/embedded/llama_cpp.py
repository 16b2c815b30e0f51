"""Real inference on the CPU: llama.cpp inside this process, with `xllamacpp`.

    generate ──► a thread of the pool ──► llama.cpp's chat handler ──► chunks, as bytes
                 a client that leaves ──► the next chunk's callback returns stop, and the slot is free

llama.cpp's own HTTP server cannot be switched off. It is bound to a Unix socket in a private folder, which is removed
right after that, so that nobody can reach it. Some builds of llama.cpp's server also install handlers for SIGINT and
SIGTERM: both handlers are restored after each load.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obcd.errors import ConfigurationError
from obcd.spool.folders.disk import file_sha256
from obcd.standins.embedded.chunks import ChunkReader, llama_request
from obcd.standins.embedded.gguf import GgufHead, read_head
from obcd.standins.wire.engine import (
    NO_EMBEDDINGS,
    Embeddings,
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
from obcd.standins.wire.request_values import PROMPT_TOO_LONG, whole_option

VERSION = "0.33.0-obcd-embedded"

#: signals for which llama.cpp may install handlers while it starts
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: seconds between two checks for a pending stop signal while a model loads
_LOOK_SECONDS = 0.05

#: MiB of prompts that llama.cpp may keep beside its slots; without a limit it uses 8 GiB
CACHE_MIB = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedOptions:
    """The options of an embedded server."""

    model: Path  # a GGUF file
    name: str  # as /api/tags shows it, e.g. `smollm2:135m`
    parallel: int
    threads: int
    verbose: bool = False  # llama.cpp's own log on stderr


def load_library() -> Any:
    """Import xllamacpp, or raise an error that says how to install it."""
    try:
        import xllamacpp  # noqa: PLC0415 - an extra; its import takes a second, which only this command needs
    except ImportError as error:
        raise ConfigurationError(
            "the embedded server needs the package xllamacpp, which is not installed: pip install 'obcd[embedded]'"
        ) from error
    return xllamacpp


class EmbeddedEngine:
    """One GGUF file and the llama.cpp server that has it loaded, if any."""

    def __init__(self, options: EmbeddedOptions) -> None:
        self.version = VERSION
        self._options = options
        self._library = load_library()
        head = read_head(options.model)
        self._card = card_of(options, head)
        self._is_embedding = "embedding" in self._card.capabilities
        # One thread more than slots: a load must not wait for generations that are about to end.
        self._pool = ThreadPoolExecutor(options.parallel + 1, thread_name_prefix="llama")
        #: the only reference to llama.cpp's server; empty while nothing is loaded. Without a reference the server ends.
        self._loaded: list[Any] = []
        self._lock = asyncio.Lock()

    def models(self) -> Sequence[ModelCard]:
        """Return the one model."""
        return [self._card]

    async def describe(self) -> Sequence[ModelCard]:
        """Return the one model with its digest, which is computed at the first call: it reads the whole file."""
        if not self._card.digest:
            digest = await asyncio.to_thread(file_sha256, self._options.model)
            self._card = replace(self._card, digest=digest)
        return [self._card]

    def vram_bytes(self, card: ModelCard) -> int:
        """Return 0: it runs on the CPU."""
        del card
        return 0

    def context_length(self, signature: LoadSignature) -> int:
        """Return the requested context: it fits, or the load fails."""
        return signature.num_ctx

    async def load(self, signature: LoadSignature) -> None:
        """Load the model; one load or unload at a time. A cancelled load runs to its end, and is unloaded."""
        async with self._lock:
            with GuardedSignals() as signals:
                loading = asyncio.get_running_loop().run_in_executor(self._pool, self._start, signature)
                try:
                    await signals.watch(loading)
                except asyncio.CancelledError:
                    # llama.cpp's state is the process's: what loads and frees it at the same time breaks it.
                    await signals.watch(loading)
                    if loading.exception() is None:
                        await self._drop(loading.result())
                    raise
                self._loaded = await loading

    async def unload(self, signature: LoadSignature) -> None:
        """Free the model's memory."""
        del signature
        async with self._lock:
            loaded, self._loaded = self._loaded, []
            await self._drop(loaded)

    async def _drop(self, loaded: list[Any]) -> None:
        """Drop the last reference, which stops llama.cpp; in a thread, because that waits for it."""
        await asyncio.get_running_loop().run_in_executor(self._pool, loaded.clear)

    async def generate(self, work: Work, reply: EngineReply) -> WorkOutcome | None:
        """Answer with llama.cpp; cut the prompt until it fits, unless the request forbids it (contract 3.4)."""
        while True:
            try:
                return await self._ask(work, reply)
            except EngineError as error:
                if "exceed_context_size_error" not in error.text or not work.truncate:
                    raise
                work = shortened_work(work, error.text)

    async def embed(self, texts: Texts) -> Embeddings:
        """Return one vector for each text, if the model supports it; refuse texts that are too long."""
        if not self._is_embedding:
            raise EngineError(501, NO_EMBEDDINGS)
        body = json.dumps({"input": list(texts.inputs)})
        raw = await asyncio.get_running_loop().run_in_executor(self._pool, self._embed, body)
        answer = json.loads(raw)
        if "error" in answer:
            raise EngineError(400, json.dumps(answer, separators=(",", ":")))
        vectors = [shortened(entry["embedding"], texts.dimensions) for entry in answer["data"]]
        return Embeddings(vectors, int(answer.get("usage", {}).get("prompt_tokens", 0)))

    async def _ask(self, work: Work, reply: EngineReply) -> WorkOutcome:
        """Run one generation in a thread of the pool, and send its pieces as they arrive."""
        loop = asyncio.get_running_loop()
        reader = ChunkReader()
        left = threading.Event()  # set when no client waits for the answer any more
        pieces: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()

        def take(data: bytes) -> bool:
            piece = reader.read(data)
            if piece is not None and reply.stream:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            return left.is_set() or reader.is_stuck

        running = loop.run_in_executor(self._pool, self._run, work, take)
        running.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                await reply.send_piece(*piece)
        except BaseException:
            # The slot is busy until llama.cpp notices, as in Ollama: release it only then (#11889).
            left.set()
            await asyncio.wait([running])
            raise
        await running
        return reader.outcome(work.logprobs or 0)

    def _run(self, work: Work, take: Callable[[bytes], bool]) -> None:
        """Send the request to llama.cpp; return when the answer is complete, refused or abandoned. Runs in a thread."""
        body, is_raw = llama_request(work)
        server = self._loaded[0]
        try:
            (server.handle_completions if is_raw else server.handle_chat_completions)(body, take)
        except (RuntimeError, ValueError) as error:
            raise refusal_of(str(error)) from error
        finally:
            del server  # the frame lives on in the error's traceback, and would keep the server from its end

    def _embed(self, body: str) -> str | bytes:
        """Return llama.cpp's reply with the vectors. Runs in a thread."""
        reply: str | bytes = self._loaded[0].handle_embeddings(body)
        return reply

    def _start(self, signature: LoadSignature) -> list[Any]:
        """Load the model and start llama.cpp's server; return a list that holds the only reference to it.

        Runs in a thread. The server's loop begins on a thread of llama.cpp after the constructor has returned, on a
        busy machine long after. A server that is dropped before that never ends, and the process hangs with it: the
        destructor waits for the loop and holds Python's lock (xllamacpp server.cpp: `init`, `~Server`). A request for
        metrics is answered by the loop, so its reply proves that the loop runs.
        """
        with tempfile.TemporaryDirectory(prefix="obcd-") as folder:  # made with mode 0700
            params = self._params(signature, Path(folder) / "llama.sock")
            try:
                loaded = [self._library.Server(params)]
            except (RuntimeError, ValueError) as error:
                raise EngineError(500, f"error starting llama-server: {error}") from error
            loaded[0].handle_metrics()
            return loaded

    def _params(self, signature: LoadSignature, socket: Path) -> Any:
        options = dict(signature.rest)
        params = self._library.CommonParams()
        params.model.path = str(self._options.model)
        params.n_parallel = self._options.parallel
        params.n_ctx = signature.num_ctx * self._options.parallel
        params.ctx_shift = signature.shift
        threads = whole_option(options, "num_thread", 0) or self._options.threads
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        if batch := whole_option(options, "num_batch", 0):
            params.n_batch = batch
        params.warmup = False
        params.cache_ram_mib = CACHE_MIB
        params.verbosity = 3 if self._options.verbose else 0
        params.ui = params.endpoint_slots = False
        params.endpoint_metrics = True
        params.embedding = self._is_embedding
        params.hostnames = [str(socket)]  # a name that ends in .sock is a Unix socket
        return params


class GuardedSignals:
    """Keeps SIGINT and SIGTERM from llama.cpp while it starts; used on the main thread.

    Both are blocked, which the threads of llama.cpp inherit; this process's handlers are restored before the unblock.
    """

    def __enter__(self) -> GuardedSignals:
        self._is_main = threading.current_thread() is threading.main_thread()
        self._is_blocked = self._is_main
        if self._is_main:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        return self

    async def watch(self, loading: asyncio.Future[Any]) -> None:
        """Wait for the load; a stop signal that comes during it is delivered at once instead of at its end."""
        while not loading.done():
            await asyncio.wait([loading], timeout=_LOOK_SECONDS)
            if self._is_blocked and signal.sigpending() & set(STOP_SIGNALS):
                self._let_in()

    def __exit__(self, *error: object) -> None:
        self._let_in()

    def _let_in(self) -> None:
        if not self._is_main:
            return
        for number in STOP_SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None:  # None: it was not set from Python, so it cannot be restored
                signal.signal(number, handler)
                signal.siginterrupt(number, False)  # as asyncio sets it, unix_events.add_signal_handler
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self._is_blocked = False


def card_of(options: EmbeddedOptions, head: GgufHead) -> ModelCard:
    """Return the card of a GGUF file, without its digest."""
    template = str(head.metadata.get("tokenizer.chat_template", ""))
    abilities = ["completion"]
    if f"{head.architecture}.pooling_type" in head.metadata:
        abilities = ["embedding"]
    elif "tools" in template:
        abilities.append("tools")
    return ModelCard(
        name=options.name,
        digest="",
        size=options.model.stat().st_size,
        architecture=head.architecture,
        parameter_size=short_number(head.parameters),
        parameter_count=head.parameters,
        quantization=head.quantization,
        context_length=head.number("context_length", 4096),
        embedding_length=head.number("embedding_length", 0),
        capabilities=tuple(abilities),
        template=template,
    )


def short_number(value: int) -> str:
    """Return e.g. `134.52M` or `3.2B`, as Ollama writes parameter sizes."""
    if value >= 1_000_000_000:
        return f"{value / 1e9:.1f}B"
    return f"{value / 1e6:.2f}M"


def default_name(model: Path) -> str:
    """Return a model name for a file: the file's name in lower case, with the tag `latest`."""
    kept = [char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in model.stem.lower()]
    return "".join(kept).strip("-._") + ":latest"


def without_oldest(messages: Sequence[JsonObject]) -> list[JsonObject] | None:
    """Return messages without the oldest that is not a system message; None if only the last one is left."""
    for index, message in enumerate(messages[:-1]):
        if message.get("role") != "system":
            return [*messages[:index], *messages[index + 1 :]]
    return None


def shortened_work(work: Work, refusal: str) -> Work:
    """Return work whose prompt lacks its oldest message, or most of its start if there is only one.

    Ollama cuts the tokens of a single message to half of the context. Here the text keeps as large a part of its end.

    Args:
        work: what llama.cpp refused as too long.
        refusal: its refusal, which counts the tokens.

    Raises:
        EngineError: 400 if a prompt may not be cut because the context may not shift.
    """
    messages = without_oldest(work.messages)
    if messages is not None:
        return replace(work, messages=messages)
    if not work.signature.shift:
        raise EngineError(400, PROMPT_TOO_LONG)
    counted = json.loads(refusal)["error"]
    share = counted["n_ctx"] / 2 / counted["n_prompt_tokens"]
    last = work.messages[-1]
    cut = {**last, "content": _end_of(str(last.get("content") or ""), share)}
    raw = None if work.raw_prompt is None else _end_of(work.raw_prompt, share)
    return replace(work, messages=[*work.messages[:-1], cut], raw_prompt=raw)


def _end_of(text: str, share: float) -> str:
    return text[len(text) - int(len(text) * share) :]


def refusal_of(text: str) -> EngineError:
    """Return Ollama's error for an exception of llama.cpp: llama.cpp's error as JSON inside the string."""
    if "image input is not supported" in text:
        return EngineError(500, text)
    if "JSON schema" in text:
        text = f"JSON schema conversion failed: {text}"
    error = {"error": {"code": 400, "message": text, "type": "invalid_request_error"}}
    return EngineError(400, json.dumps(error, separators=(",", ":")))
