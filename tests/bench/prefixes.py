"""`prefixes`: documents × questions in the order in which people write them, through the whole of obcd.

The shape is that of the contract's section 9.1: documents of about 470 tokens, six questions each, 12 tokens of answer.
Simulated servers have the prefix cache of v0.24. `prefix_affinity = "off"` and `"auto"` run one after the other, then a
plain client with lanes arranged by hand, in which each slot serves one document's questions after another.

With OBCD_REAL_OLLAMA=/path/to/ollama the same is measured on that server, with four slots. Nothing else may compute.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from queue import Empty, SimpleQueue
from time import monotonic

from obcd.core.request.records import SHIFT, JobSettings
from obcd.standins.simulated.gpu_server import message_tokens, token_count
from obcd.standins.simulated.prefix_cache import shared_length
from tests.bench.figures import Figure
from tests.bench.servers import MODEL, Account, Servers
from tests.bench.servers import configuration as configured
from tests.bench.spool import fresh_spool
from tests.real import server as real

QUESTIONS, DOCUMENT_CHARACTERS, ANSWER_TOKENS, CONTEXT = 6, 1_880, 12, 1024
SLOTS = 4
#: (endpoints, documents): the contract's, and two and a half rounds of the slots
CLUSTERS = ((1, 10), (4, 40))
#: With these speeds lanes by hand are 2.6 times as fast as the natural order on one server, as measured with v0.24.
SPEEDS = (
    "--prefix-cache", "slots", "--prompt-tokens-per-second", 240, "--tokens-per-second", 120,
    "--answer-tokens", ANSWER_TOKENS,
)  # fmt: skip
#: False while obcd has no such setting: then only its absence is measured.
HAS_AFFINITY = any(item.name == "prefix_affinity" for item in fields(JobSettings))
AFFINITIES = ("off", "auto") if HAS_AFFINITY else ("off",)
#: {major version of Ollama 0.x: least speedup}, from the first one on that has a host-memory cache
REAL_GOALS = {0: 2.2, 30: 1.8}
PATIENCE = 900.0

_WORDS = (  # noqa: SIM905 - a list of them takes a screen
    "the of and to in is that for it as with was on be by at this have from or one had not but what all were when we "
    "there can an your which their said if do will each about how up out them then she many some so these would other "
    "into has more her two like him see time could no make than first been its who now people my made over did down "
    "only way find use may water long little very after words called just where most know"
).split()


@dataclass(frozen=True, slots=True)
class Work:
    """The prompts about each document, in order."""

    prompts: tuple[tuple[str, ...], ...]

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of a file, all questions of a document in a row."""
        for number, prompt in enumerate(prompt for group in self.prompts for prompt in group):
            yield json.dumps({"id": number, "prompt": prompt}).encode() + b"\n"

    @property
    def count(self) -> int:
        """The number of prompts."""
        return sum(map(len, self.prompts))


def make_work(documents: int, seed: int) -> Work:
    """Return work that shares nothing with that of another seed."""
    dice = random.Random(seed)
    prompts = []
    for number in range(documents):
        text = f"Document {seed}/{number}: "
        while len(text) < DOCUMENT_CHARACTERS:
            text += dice.choice(_WORDS) + " "
        asked = (f"{text}\n\nQuestion: what does it say about {dice.choice(_WORDS)} ({n})?" for n in range(QUESTIONS))
        prompts.append(tuple(asked))
    return Work(tuple(prompts))


def measure() -> list[Figure]:
    """Return speedups, evaluated tokens and the comparison with lanes by hand, for each cluster."""
    figures = []
    for endpoints, documents in CLUSTERS:
        figures += _simulated(endpoints, documents)
    return figures + (_real() if not real.why_not() else [])


def _simulated(endpoints: int, documents: int) -> list[Figure]:
    name, work = f"{endpoints} × {SLOTS}", make_work(documents, seed=1)
    seconds, evaluated = {}, {}
    for way in (*AFFINITIES, "hand"):
        with fresh_spool() as spool:
            servers = Servers(endpoints, SLOTS, None, spool.folder / "servers.log", *SPEEDS)
            with servers:
                if way == "hand":
                    ask_in_lanes(servers.endpoints(), work, MODEL)
                else:
                    spool.start(servers.configuration() + settings(way))
                    spool.wait_ready()
                    spool.drop("documents.jsonl", work.lines())
                    spool.wait_published("documents.jsonl", PATIENCE)
                account = servers.account()
        ends = [item.finished for item in account.asked if item.finished is not None]
        seconds[way], evaluated[way] = max(ends) - account.first_arrival, evaluated_share(account, work)
    least = 2.2 if endpoints == 1 else None
    shares = [
        Figure(
            f"{name}: prompt tokens evaluated over distinct ones, {way}", share, "",
            most=1.15 if way == "auto" and endpoints > 1 else None,
        )
        for way, share in evaluated.items()
    ]  # fmt: skip
    return [*_ratios(name, seconds, least), *shares]


def _real() -> list[Figure]:
    seconds = {}
    with fresh_spool() as spool, real.RealOllama(spool.folder, OLLAMA_NUM_PARALLEL=str(SLOTS)) as server:
        version, endpoints = server.version(), {server.name: SLOTS}
        for seed, way in enumerate((*AFFINITIES, "hand")):
            work = make_work(CLUSTERS[0][1], seed)
            # as obcd loads it, so that nobody's time has a load in it
            load = {"model": real.MODEL, "messages": [], "shift": SHIFT, "options": {"num_ctx": CONTEXT}}
            status, raw = server.post("/api/chat", load)
            assert status == 200, raw
            if way == "hand":
                seconds[way] = ask_in_lanes(endpoints, work, real.MODEL)
            else:
                seconds[way] = _obcd_seconds(endpoints, work, way)
    minor = int(version.split(".")[1])
    goal = REAL_GOALS[max(first for first in REAL_GOALS if first <= minor)]
    return _ratios(f"Ollama {version}, {SLOTS} slots", seconds, goal)


def _obcd_seconds(endpoints: dict[str, int], work: Work, affinity: str) -> float:
    """Return the span of a job on real servers, from its first request to its last answer."""
    with fresh_spool() as spool:
        spool.start(configured({**endpoints}).replace(MODEL, real.MODEL) + settings(affinity))
        spool.wait_ready()
        spool.drop("documents.jsonl", work.lines())
        _, folder = spool.wait_published("documents.jsonl", PATIENCE)
        manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["counts"]["responses"] == work.count, manifest["counts"]
    return float(manifest["times"]["span_seconds"])


def _ratios(name: str, seconds: dict[str, float], least: float | None) -> list[Figure]:
    """Return the speedup of lanes, lanes by hand over obcd's, and the seconds."""
    figures = [Figure(f"{name}: {way}", value, "s") for way, value in seconds.items()]
    if "auto" in seconds:
        speedup = Figure(f"{name}: off over auto", seconds["off"] / seconds["auto"], "×", least=least)
        beside = Figure(f"{name}: lanes by hand over auto", seconds["hand"] / seconds["auto"], "", least=0.97)
        return [speedup, beside, *figures]
    return [Figure(f"{name}: off over lanes by hand", seconds["off"] / seconds["hand"], "×"), *figures]


def settings(affinity: str) -> str:
    """Return the section [requests] of a configuration."""
    text = f"\n[requests]\nnum_ctx = {CONTEXT}\nnum_predict = {ANSWER_TOKENS}\noptions = {{temperature = 0.0}}\n"
    return text + (f'prefix_affinity = "{affinity}"\n' if HAS_AFFINITY else "")


def evaluated_share(account: Account, work: Work) -> float:
    """Return the prompt tokens that servers evaluated over the distinct ones: what no earlier prompt begins with."""
    distinct = 0
    for group in work.prompts:
        for number, prompt in enumerate(group):
            shared = max((shared_length(earlier, prompt) for earlier in group[:number]), default=0)
            distinct += token_count(prompt[shared:]) if shared else message_tokens({"content": prompt})
    return sum(item.evaluated or 0 for item in account.asked) / distinct


def ask_in_lanes(endpoints: dict[str, int | str] | dict[str, int], work: Work, model: str) -> float:
    """Answer the same prompts with one thread a slot, which takes document after document; return the seconds."""
    waiting: SimpleQueue[tuple[str, ...]] = SimpleQueue()
    for group in work.prompts:
        waiting.put(group)
    faults: list[str] = []
    lanes = [
        threading.Thread(target=_serve_lane, args=(name, waiting, model, faults))
        for name, slots in endpoints.items()
        for _ in range(int(slots))
    ]
    began = monotonic()
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if faults:
        raise RuntimeError(f"the plain client was refused: {faults[0]}")
    return monotonic() - began


def _serve_lane(name: str, waiting: SimpleQueue[tuple[str, ...]], model: str, faults: list[str]) -> None:
    connection = http.client.HTTPConnection(name, timeout=PATIENCE)
    try:
        while True:
            _ask(connection, waiting.get_nowait(), model)
    except Empty:
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        faults.append(f"{name}: {error}")
    finally:
        connection.close()


def _ask(connection: http.client.HTTPConnection, prompts: Sequence[str], model: str) -> None:
    for prompt in prompts:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": False,
            "truncate": False,
            "shift": SHIFT,
            "options": {"num_ctx": CONTEXT, "num_predict": ANSWER_TOKENS, "temperature": 0.0},
        }
        connection.request("POST", "/api/chat", json.dumps(body).encode())
        reply = connection.getresponse()
        raw = reply.read()
        if reply.status != 200:
            raise ValueError(f"{reply.status} {raw[:200]!r}")
