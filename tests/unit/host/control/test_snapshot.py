from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import monotonic, wall
from obcd.host.cards.card import Readings
from obcd.host.control import snapshot
from obcd.host.control.snapshot import Snapshot, take_snapshot
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.supervisord.remote import ProcessState
from tests.golden.wording import wording
from tests.unit.host.fake_servers import MODEL
from tests.unit.host.fake_servers import Server as Ollama

READING = Readings(uuid="GPU-0", index=0, utilisation_percent=90)


class Supervisor:
    """Stands in for `Remote`: two servers of which one is given up, and the watch."""

    def __init__(self) -> None:
        self.known = {name: state(name, "RUNNING", pid) for name, pid in (("gpu0", 21), ("watch", 19))}
        self.known["gpu1"] = state("gpu1", "FATAL", 0, "Exited too quickly")

    def states(self) -> dict[str, ProcessState]:
        return self.known

    def supervisor_pid(self) -> int:
        return 17


def state(name: str, word: str, pid: int, fault: str = "") -> ProcessState:
    return ProcessState(state=word, pid=pid, age_seconds=12.0, fault=fault)


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    made = Ollama()
    yield made
    made.end()


class Place:
    """A runtime folder with what the watch wrote, and the host that it is about."""

    def __init__(self, runtime: Path, port: int) -> None:
        self.runtime, self.supervisor = runtime, Supervisor()
        servers = tuple(
            Server(label=str(n), pin=f"GPU-{n}", gpu=n, card="L4", memory_bytes=0, port=port, variables={})
            for n in (0, 1)
        )
        self.plan = HostPlan(bind="127.0.0.1", name="", vendor="nvidia", ollama="", parallel=1, servers=servers)

    def write(self, **changes: Any) -> None:
        facts = {"answer": "answers", "models": [{"name": "watched", "size_bytes": 1, "vram_bytes": 1}]}
        restart = {"at": monotonic() - 100, "by": "watch", "reason": "its card is gone"}
        condition = {"restart_count": 3, "restarts": [restart], "trouble": "", "remark": "too big"}
        seen = {"version": "0.33.0", "facts": facts, "condition": condition, "alone_seconds": 55.0}
        document = {
            "updated": wall(), "is_ready": True, "status": "1/2 servers answer",
            "xids": [{"uuid": "GPU-0", "code": 79, "at": "…"}, {"uuid": "GPU-1", "code": 31, "at": "…"}],
            "cards": {"GPU-0": {"utilisation_percent": 7}}, "servers": {"0": seen, "1": seen}, **changes,
        }  # fmt: skip
        (self.runtime / "watch.json").write_text(json.dumps(document))

    def take(self) -> Snapshot:
        return take_snapshot(self.plan, self.runtime, self.supervisor)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(snapshot, "read_cards", lambda pins: {"GPU-0": READING} if "GPU-0" in pins else {})
    return Place(tmp_path, ollama.port)


def test_what_the_watch_wrote_is_told_and_nobody_is_asked(place: Place, ollama: Ollama) -> None:
    place.write()
    found = place.take()
    assert (found["pid"], found["status"], found["is_ready"]) == (17, "1/2 servers answer", True)
    assert found["watch"] == {"state": "RUNNING", "pid": 19, "trouble": ""}
    first = found["servers"][0]
    assert (first["state"], first["pid"], first["answer"], first["version"]) == ("RUNNING", 21, "answers", "0.33.0")
    assert (first["models"][0]["name"], first["reading"], first["xids"]) == (
        "watched",
        {"utilisation_percent": 7},
        [79],
    )
    assert (first["restarts"], first["alone_seconds"], first["remark"]) == (3, 55.0, "too big")
    assert first["restart_log"][0]["seconds_ago"] == pytest.approx(100, abs=5)
    assert ollama.asked == []


def test_of_a_server_that_does_not_run_nothing_old_is_told_but_the_fault(place: Place) -> None:
    place.write()
    second = place.take()["servers"][1]
    assert (second["answer"], second["version"], second["models"], second["uptime_seconds"]) == ("", "", [], 0.0)
    assert (second["state"], second["trouble"]) == ("FATAL", "Exited too quickly")


@pytest.mark.parametrize("content", [None, "", "[]", "{"])
def test_before_the_watch_has_written_servers_and_cards_are_asked(place: Place, content: str | None) -> None:
    if content is not None:
        (place.runtime / "watch.json").write_text(content)
    found = place.take()
    assert found["watch"]["trouble"] == wording("the-watch-has-only-just-started")
    first = found["servers"][0]
    assert (first["answer"], first["version"], first["models"][0]["name"]) == ("answers", "0.33.0", MODEL["name"])
    assert first["reading"] is not None
    assert first["reading"]["utilisation_percent"] == 90
    assert (found["status"], first["restarts"]) == ("", 0)


def test_a_watch_that_is_stuck_is_named_and_its_old_words_are_not_told(place: Place) -> None:
    place.write(updated=wall() - 60)
    found = place.take()
    assert found["watch"]["trouble"].startswith(wording("the-watch-is-stuck-it-wrote"))
    assert (found["status"], found["servers"][0]["models"][0]["name"]) == ("", MODEL["name"])


def test_a_watch_that_does_not_run_is_named(place: Place) -> None:
    place.write()
    place.supervisor.known["watch"] = state("watch", "BACKOFF", 0)
    assert wording("the-watch-does-not-run-backoff") in place.take()["watch"]["trouble"]


def test_what_supervisor_does_not_know_is_unknown(place: Place) -> None:
    place.write()
    place.supervisor.known.clear()
    found = place.take()
    assert [server["state"] for server in found["servers"]] == ["UNKNOWN"] * 2
    assert found["watch"]["state"] == "UNKNOWN"
