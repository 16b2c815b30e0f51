"""`refused`, `ending`: what a file of requests that servers refuse, or of which some end servers, costs the others."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from obcd.standins.wire.account import prompt_key
from tests.bench.figures import Figure
from tests.bench.servers import Account, Servers
from tests.bench.spool import Spool, fresh_spool, prompts

#: The job beside the refused file, the refused file, and the servers.
BESIDE, REFUSED, ENDPOINTS, SLOTS, SECONDS = 40, 60, 2, 4, 0.5
#: The job of which some lines end their server, and seconds until such a server is back.
LINES, POISON, BACK_SECONDS = 2000, 5, 1.0


def measure_refused() -> list[Figure]:
    """Answer a job alone, then beside a file of 60 lines that every server refuses with an unknown status 500."""
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, SECONDS, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration())
        spool.wait_ready()
        _time(spool, "first.jsonl", prompts(SLOTS * ENDPOINTS))  # models are loaded, workers are warm
        alone = _time(spool, "alone.jsonl", _named("alone", BESIDE))
        spool.drop("refused.jsonl", _marked("status=500", REFUSED))
        beside = _time(spool, "beside.jsonl", _named("beside", BESIDE))
        sends = _sends(servers.account(), "status=500", REFUSED)
        left = len(re.findall(r" is (?:SUSPECT|DOWN)", spool.log.read_text("utf-8")))
    return [
        Figure("the job alone", alone, "s"),
        Figure("the same beside the refused file", beside, "s"),
        Figure("that, compared", beside / alone, "×", most=1.5),
        Figure("times that an endpoint left UP", left, most=0, is_worst=True),
        Figure("most times that a refused line was sent", max(sends.values()), most=2, is_worst=True),
        Figure("refused lines that were sent", len(sends)),
    ]


def measure_ending() -> list[Figure]:
    """Answer 2,000 lines of which five end the whole server that gets them."""
    mark = f"kill-server={BACK_SECONDS}"
    poison = list(_marked(mark, POISON))
    lines = list(prompts(LINES - POISON))
    for number, line in enumerate(poison):
        lines.insert((number + 1) * LINES // (POISON + 1), line)
    with fresh_spool() as spool, Servers(ENDPOINTS, 8, 0.05, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration() + "[requests]\nattempts = 1\n")
        spool.wait_ready()
        began = time.monotonic()
        spool.drop("ending.jsonl", lines)
        ended, folder = spool.wait_published("ending.jsonl", 300)
        sends = _sends(servers.account(), mark, POISON)
        errors, responses = _read(folder / "errors.jsonl"), _read(folder / "responses.jsonl")
    guilty = [item for item in errors if str(item["id"]).startswith("marked")]
    return [
        Figure("lines answered", len(responses), least=LINES - POISON, most=LINES - POISON),
        Figure("innocent lines that failed", len(errors) - len(guilty), most=0, is_worst=True),
        Figure("lines that failed as poison", sum(item["class"] == "poison" for item in guilty), least=POISON),
        Figure("most servers that one line ended", max(sends.values()), most=3, is_worst=True),
        Figure("the whole job", ended - began, "s"),
    ]


def _named(word: str, count: int) -> Iterator[bytes]:
    for number in range(count):
        yield json.dumps({"id": f"{word}-{number}", "prompt": f"{word} {number}"}).encode() + b"\n"


def _marked(mark: str, count: int) -> Iterator[bytes]:
    for number in range(count):
        line = {"id": f"marked-{number}", "prompt": _prompt(mark, number)}
        yield json.dumps(line).encode() + b"\n"


def _time(spool: Spool, name: str, lines: Iterable[bytes]) -> float:
    dropped = spool.drop(name, lines)
    published, _ = spool.wait_published(name, 120)
    return published - dropped


def _prompt(mark: str, number: int) -> str:
    return f"[[simulate:{mark}]] {number}"


def _sends(account: Account, mark: str, count: int) -> Counter[str]:
    """Return how often each marked prompt was sent, by the key that the account has for it."""
    keys = {prompt_key(_prompt(mark, number)) for number in range(count)}
    return Counter(item.prompt for item in account.asked if item.prompt in keys)


def _read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
