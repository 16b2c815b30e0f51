"""What a model cannot do is refused before anything is sent; what is unknown is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from obcd.core.endpoint.faults import Harm, Remedy
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, signature_of
from obcd.ollama.control import ControlError
from obcd.ollama.description import Description, read_description
from obcd.ollama.transport import Transport
from obcd.workers import abilities
from obcd.workers.abilities import Abilities, Ability
from obcd.workers.messages import Ask, Faulted
from obcd.workers.slots.job_requests import Asked, JobRequests
from obcd.workers.slots.slot import Slot
from tests.golden.wording import wording
from tests.unit.workers.slots.test_slot import URL, common_of

PICTURE = "iVBORw0KGgo" + "A" * 80 + "="
TOOLS = [{"type": "function", "function": {"name": "f"}}]
#: {ability: a line that needs it}
LINES: dict[Ability, dict[str, Any]] = {
    Ability.VISION: {"prompt": "What is it?", "images": [PICTURE]},
    Ability.TOOLS: {"prompt": "Call f.", "tools": TOOLS},
    Ability.INSERT: {"complete": "def f(", "suffix": "return 1"},
    Ability.EMBEDDING: {"embed": ["a", "b"]},
    Ability.THINKING: {"prompt": "Why?", "think": True},
}
#: Lines for which any model is good enough.
PLAIN: list[dict[str, Any]] = [
    {"prompt": "Why?"}, {"prompt": "Why?", "think": False}, {"prompt": "Why?", "tools": []}, {"complete": "Once"},
    {"complete": "Once", "suffix": ""},
]  # fmt: skip


class Server:
    """Stands for the calls to a server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *capabilities: str, version: str = "0.33.0") -> None:
        self.calls, self.is_silent = 0, False
        self.capabilities: frozenset[str] | None = frozenset(capabilities) or None
        monkeypatch.setattr(abilities, "ask_description", self.describe)
        monkeypatch.setattr(abilities, "ask_version", lambda *_: version)

    def describe(self, *_: object) -> Description:
        self.calls += 1
        if self.is_silent:
            raise ControlError("silent")
        return Description(capabilities=self.capabilities)


def refused(made: Abilities, line: dict[str, Any], settings: JobSettings = JobSettings(model="m")) -> str:  # noqa: B008
    request = parse_line(json.dumps(line).encode(), 1)
    fault = made.refusal(request, settings, signature_of(request, settings), "", None)
    if fault is None:
        return ""
    assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == (
        "unsupported",
        Remedy.NEVER,
        False,
        Harm.NONE,
    )
    return fault.message


@pytest.mark.parametrize("ability", LINES)
def test_line_is_refused_whose_model_lacks_the_ability(monkeypatch: pytest.MonkeyPatch, ability: Ability) -> None:
    Server(monkeypatch, "completion", *(other for other in Ability if other is not ability))
    assert refused(Abilities(URL), LINES[ability]).startswith(wording("the-model-m"))

    Server(monkeypatch, ability)
    assert refused(Abilities(URL), LINES[ability]) == ""


@pytest.mark.parametrize("line", PLAIN, ids=str)
def test_line_that_needs_nothing_special_costs_no_call(monkeypatch: pytest.MonkeyPatch, line: dict[str, Any]) -> None:
    server = Server(monkeypatch, "completion")

    assert refused(Abilities(URL), line) == ""
    assert server.calls == 0


def test_thinking_that_the_job_wants_is_needed_unless_the_line_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, "completion")
    settings = JobSettings(model="m", think="high")

    assert refused(Abilities(URL), {"prompt": "Why?"}, settings) != ""
    assert refused(Abilities(URL), {"prompt": "Why?", "think": False}, settings) == ""


@pytest.mark.parametrize("ability", LINES)
def test_what_is_unknown_is_sent_and_found_out_later(monkeypatch: pytest.MonkeyPatch, ability: Ability) -> None:
    server, made = Server(monkeypatch), Abilities(URL)

    assert [refused(made, LINES[ability]) for _ in range(3)] == [""] * 3
    assert server.calls == 1  # an old server states nothing; that is known too

    server.is_silent, made = True, Abilities(URL)
    assert refused(made, LINES[ability]) == ""
    server.is_silent, server.capabilities = False, frozenset({"completion"})
    monkeypatch.setattr(abilities, "monotonic", lambda: 1e12)
    assert refused(made, LINES[ability]) != ""


@pytest.mark.parametrize(
    ("version", "is_sent"),
    [("0.12.6", True), ("0.23.9", True), ("0.24.0", False), ("0.33.0-rc2", False), ("1.0.0", False), ("?", False)],
)
def test_older_servers_make_vectors_with_any_model(
    monkeypatch: pytest.MonkeyPatch, version: str, is_sent: bool
) -> None:
    Server(monkeypatch, "completion", version=version)

    assert (refused(Abilities(URL), LINES[Ability.EMBEDDING]) == "") == is_sent


def test_nothing_is_loaded_or_sent_for_a_line_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, "completion")
    request, settings = parse_line(json.dumps(LINES[Ability.VISION]).encode(), 7), JobSettings(model="m")
    jobs = JobRequests(tmp_path)
    monkeypatch.setattr(jobs, "read", lambda *_: Asked(request, settings, signature_of(request, settings)))
    slot = Slot(common_of(jobs), "a", Transport(URL, 1.0), lambda _: None)

    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert isinstance(result, Faulted)
    assert (result.line, result.fault.kind) == (7, "unsupported")
    assert slot.in_flight.limit is None
    assert not slot.in_flight.is_sent


def test_description_is_read_from_what_the_server_shows() -> None:
    blob = "6a" * 32
    modelfile = f"# Modelfile\n# FROM x\n\nFROM /root/.ollama/models/blobs/sha256-{blob}\nFROM /b/sha256-{'0b' * 32}\n"
    shown = {
        "modelfile": modelfile, "capabilities": ["completion", "vision"],
        "model_info": {"llama.context_length": 131072, "general.architecture": "llama"},
    }  # fmt: skip

    found = read_description(shown)

    assert found == Description(trained_context=131072, capabilities=frozenset({"completion", "vision"}), weights=blob)
    assert read_description({}) == Description()
    assert read_description({"capabilities": [], "modelfile": "FROM llama3.2\n"}) == Description()
