"""`sharing`, `sharing_real`: what a person at a server notices of obcd, and what obcd loses by that it yields."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from statistics import median

from obcd.core.request.records import SHIFT
from tests.bench.figures import Figure
from tests.bench.people import Person, p95
from tests.bench.servers import MODEL, Account, Servers
from tests.bench.spool import Spool, fresh_spool, prompts, wait_until
from tests.real.server import MODEL as REAL_MODEL
from tests.real.server import RealOllama, why_not

SLOTS, THINKS = 8, 3.0
#: Seconds until obcd knows the slots; that are compared; of the person's visit; until the slots must be back.
WARM_UP, COMPARED, VISIT, PATIENCE = 20.0, 70.0, 120.0, 90.0
#: An answer takes a second alone, and half as long again on a full server; a model loads in a second.
TIMES = (
    "--tokens-per-second",
    60,
    "--slowdown",
    0.06,
    "--answer-tokens",
    64,
    "--seconds-spread",
    0.3,
    "--load-seconds",
    1,
)
CONTEXT = 8192

#: The same with a real server on a CPU, which is slow.
REAL_SLOTS, REAL_WARM_UP, REAL_SECONDS, REAL_COMPARED, REAL_VISIT = 4, 25.0, 35.0, 90.0, 160.0
REAL_CONTEXT = 512


def measure() -> list[Figure]:
    """Let a person ask alone, and beside obcd with `yield`; and one with other load options with and without it."""
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_spool()).folder
        servers = stack.enter_context(Servers(4, SLOTS, None, folder / "servers.log", *TIMES))
        alone, shared, other, plain = (url.removeprefix("http://") for url in servers.urls)
        for server, is_yielding in ((shared, True), (other, True), (plain, False)):
            _start(stack.enter_context(fresh_spool()), server, is_yielding=is_yielding)
        with Person(alone, MODEL, THINKS, shift=SHIFT, num_ctx=CONTEXT) as person_alone:
            time.sleep(WARM_UP)
            began = time.monotonic()
            time.sleep(COMPARED)
            until = time.monotonic()
        account = servers.account()
        with (
            Person(shared, MODEL, THINKS, shift=SHIFT, num_ctx=CONTEXT) as person,
            Person(other, MODEL, THINKS, num_ctx=CONTEXT) as person_other,
            Person(plain, MODEL, THINKS, num_ctx=CONTEXT) as person_plain,
        ):
            time.sleep(VISIT)
        with suppress(TimeoutError):  # a goal that is missed
            wait_until(lambda: _full_since(servers, 1, person) > 0, PATIENCE, "the slots are not back", look=2.0)
        back = _full_since(servers, 1, person) or time.monotonic()
    loss = 1 - _finished(account, 1, began, until) / _finished(account, 3, began, until)
    return [
        Figure("a person's p95 beside obcd over that alone", p95(person.askings) / p95(person_alone.askings), most=1.3),
        Figure("all slots at work after the last answer", back - person.last_answer, "s", most=30),
        Figure("throughput lost while nobody is there", 100 * loss, "%", most=3),
        Figure("a person's p95 alone", p95(person_alone.askings), "s"),
        Figure("beside obcd", p95(person.askings), "s"),
        Figure("the longest one beside obcd", max(item.seconds for item in person.askings), "s"),
        Figure("the first request with other load options", person_other.askings[0].seconds, "s"),
        Figure(
            "p95 of those after it over that alone", p95(person_other.askings[1:]) / p95(person_alone.askings), most=1.3
        ),
        Figure("the first one without yield", person_plain.askings[0].seconds, "s"),
    ]


def _start(spool: Spool, server: str, *, is_yielding: bool, more: str = "", model: str = MODEL) -> None:
    """Start a coordinator with one endpoint and more work than it can do."""
    entry = f'"{server}" = {{slots = "auto", yield = {str(is_yielding).lower()}}}'
    spool.start(f'model = "{model}"\n[ollama_instances]\n{entry}\n[requests]\n{more or f"num_ctx = {CONTEXT}"}\n')
    spool.wait_ready()
    spool.drop("notes.jsonl", prompts(20_000))


def _finished(account: Account, server: int, since: float, until: float) -> int:
    """Return how many requests a server finished between two times: each falls one slot."""
    changes = account.changes[server]
    return sum(after[1] < before[1] for before, after in pairwise(changes) if since <= after[0] < until)


def _full_since(servers: Servers, number: int, person: Person) -> float:
    """Return when all slots of a server were in use first after the last answer of a person; 0 if not yet."""
    changes = servers.account().changes[number]
    return min((at for at, busy in changes if busy >= SLOTS and at > person.last_answer), default=0.0)


def measure_real() -> list[Figure]:
    """Do the same with a real Ollama on the CPU, where even one other request slows a person: that is a figure too."""
    if reason := why_not():
        print(f"sharing_real: {reason}")
        return []
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_spool()).folder
        server = stack.enter_context(RealOllama(folder, OLLAMA_NUM_PARALLEL=str(REAL_SLOTS), OLLAMA_KEEP_ALIVE="-1"))
        server.load()
        with _asking(server, THINKS) as alone:
            time.sleep(REAL_SECONDS)
        with _asking(server, 0.0), _asking(server, THINKS) as beside_one:
            time.sleep(REAL_SECONDS)
        rates, spools = [], []
        for is_yielding in (False, True):
            spools.append(stack.enter_context(fresh_spool()))
            more = f"num_ctx = {REAL_CONTEXT}\nnum_predict = 48\n"
            _start(spools[-1], server.name, is_yielding=is_yielding, more=more, model=REAL_MODEL)
            time.sleep(REAL_WARM_UP)
            before = _tokens(spools[-1])
            time.sleep(REAL_COMPARED)
            rates.append((_tokens(spools[-1]) - before) / REAL_COMPARED)
            if not is_yielding:
                spools[-1].stop()
        with _asking(server, THINKS) as person:
            time.sleep(REAL_VISIT)
        with suppress(TimeoutError):
            wait_until(lambda: _is_full(spools[-1]), PATIENCE, "the slots are not back", look=0.2)
        back = time.monotonic()
    ratios = [p95(item.askings) / p95(alone.askings) for item in (person, beside_one)]
    return [
        Figure("a person's p95 beside obcd over that alone", ratios[0], most=1.3),
        Figure("beside one plain client with one request in flight", ratios[1]),
        Figure("all slots at work after the last answer", back - person.last_answer, "s", most=30),
        Figure("throughput lost while nobody is there", 100 * (1 - rates[1] / rates[0]), "%", most=3),
        Figure("a person's p95 alone", p95(alone.askings), "s"),
        Figure("beside obcd", p95(person.askings), "s"),
        Figure("the median alone", median(item.seconds for item in alone.askings), "s"),
        Figure("the median beside obcd", median(item.seconds for item in person.askings), "s"),
        Figure("requests of the person beside obcd", len(person.askings)),
    ]


@contextmanager
def _asking(server: RealOllama, thinks: float) -> Iterator[Person]:
    options = {"num_ctx": REAL_CONTEXT, "num_predict": 48, "temperature": 0}
    with Person(server.name, REAL_MODEL, thinks, shift=SHIFT, **options) as person:
        yield person


def _endpoint(spool: Spool) -> dict[str, object]:
    found: dict[str, object] = spool.status()["endpoints"][0]
    return found


def _tokens(spool: Spool) -> int:
    return int(str(_endpoint(spool)["output_tokens"]))


def _is_full(spool: Spool) -> bool:
    found = _endpoint(spool)
    return not found["yields"] and int(str(found["in_flight"])) > 1
