"""What a real Ollama answers to each request of the battery, what obcd makes of it, and how that differs from before.

`OBCD_REAL_RECORD=1` writes the replies to `replies/VERSION.json`, to which other versions and the stand-ins are held.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.real.battery import REPLIES, Case, Verdict, ask, difference, kept, numbers, recorded, verdict_of
from tests.real.cases import CASES, chat
from tests.real.server import MODEL, RealOllama

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

_found: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="module")
def shared_ollama(ollama_folder: Path) -> Iterator[RealOllama]:
    """Yield a server of four slots. One at a time: two servers on the same cores slow each other to a quarter."""
    with RealOllama(ollama_folder, OLLAMA_NUM_PARALLEL="4") as server:
        yield server


@pytest.fixture(scope="module")
def version(shared_ollama: RealOllama) -> str:
    return shared_ollama.version()


@pytest.fixture(scope="module", autouse=True)
def _recording(version: str) -> Iterator[None]:
    yield
    if os.environ.get("OBCD_REAL_RECORD") and len(_found) == len(CASES):
        path = REPLIES / f"{version}.json"
        path.write_text(json.dumps(_found, ensure_ascii=False, indent=1) + "\n", "utf-8")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_reply_is_judged_as_it_should(case: Case, shared_ollama: RealOllama, version: str, table: list[str]) -> None:
    raw = ask(shared_ollama.port, case, MODEL)
    found = kept(raw, case, MODEL)
    if not raw.status and shared_ollama.ends_within(5.0):
        shared_ollama.restart()
    _found[case.name] = found
    known, replies = recorded(version)
    other, verdict, wanted = (
        difference(replies.get(case.name), found),
        verdict_of(raw, case),
        case.expected(numbers(version)),
    )

    note = f"differs from {known}: {other}" if other and known else "as expected"
    if verdict is not wanted:
        note = f"JUDGED {verdict}, not {wanted}: {found}"
    table.append(f"{version}  {case.name:40} {'' if verdict is Verdict.RAW else verdict:22} {note}")
    assert verdict is wanted, found


def test_requests_of_a_runner_that_dies_are_not_at_fault(
    shared_ollama: RealOllama, version: str, table: list[str]
) -> None:
    """Kill the runner while four requests are in flight and two wait for a slot."""
    shared_ollama.load()
    long = chat("long", Verdict.ENDPOINT, "Tell a story.", options={"num_predict": 400, "temperature": 1})
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, shared_ollama.port, long, MODEL) for _ in range(6)]
        time.sleep(1.0)  # all of them have arrived, and none is through with its 400 tokens
        assert shared_ollama.kill_runners()
        raws = [future.result() for future in asked]

    texts = Counter(json.dumps(kept(raw, long, MODEL).get("error", raw.status)) for raw in raws)
    for text, count in texts.items():
        table.append(f"{version}  {count} of 6 requests of a killed runner: {text}")
    verdicts = {verdict_of(raw, long) for raw in raws}
    assert Verdict.ENDPOINT in verdicts, texts
    assert verdicts <= {Verdict.ENDPOINT, Verdict.ELSEWHERE}, texts  # those that waited had not reached the process
