from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import TimedOutError
from obcd.host.cards.card import Readings
from obcd.host.servers.locks import hold_pull
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.supervisord.remote import FAULT_NOT_RUNNING, ProcessState, SupervisorRefusedError
from obcd.host.watch import watcher as module
from obcd.host.watch.card_reader import CardReport, Xid
from obcd.host.watch.event_listener import Event
from obcd.host.watch.probing import ServerProbe
from obcd.host.watch.watch_rules import ProbeAnswer
from obcd.host.watch.watcher import Watch, load_memory, run
from tests.golden.wording import wording

TICK = Event("TICK_5")


class Supervisor:
    """Stands in for `Remote`."""

    def __init__(self) -> None:
        self.known: dict[str, ProcessState] = {}
        self.is_stuck = self.is_refusing = False
        self.done: list[tuple[str, str]] = []

    def show(self, name: str, state: str, pid: int) -> None:
        self.known[name] = ProcessState(state=state, pid=pid, age_seconds=1000.0 if pid else 0.0, fault="")

    def states(self) -> dict[str, ProcessState]:
        if self.is_stuck:
            raise TimedOutError("supervisord\ndoes not answer")
        return self.known

    def signal(self, name: str, signal: str) -> None:
        self.done.append((name, signal))
        if self.is_refusing:
            raise SupervisorRefusedError(FAULT_NOT_RUNNING, "NOT_RUNNING")

    def start(self, name: str) -> None:
        self.done.append((name, "start"))


class Asked:
    """Stands in for `Prober`."""

    def __init__(self, _: object = None) -> None:
        self.probes: dict[str, ServerProbe] = {}
        self.forgotten: list[str] = []

    def tick(self, now: float) -> None:
        """Ask nobody."""

    def forget(self, label: str) -> None:
        """Keep what there is."""
        self.forgotten.append(label)

    def latest(self, label: str) -> ServerProbe:
        return self.probes.get(label, ServerProbe())

    def show(self, label: str, answer: ProbeAnswer) -> None:
        self.probes[label] = ServerProbe(number=self.latest(label).number + 1, answer=answer, version="0.33.0")


class Cards:
    """Stands in for `CardReader`."""

    def __init__(self) -> None:
        self.latest = CardReport()
        self.new: tuple[Xid, ...] = ()

    def tick(self, now: float) -> tuple[Xid, ...]:
        return self.new


class World:
    """A watch of two servers in a world that a test describes."""

    def __init__(self, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        servers = tuple(
            Server(label=str(n), pin=f"GPU-{n}", gpu=n, card="", memory_bytes=0, port=1 + n, variables={})
            for n in (0, 1)
        )
        self.plan = HostPlan(bind="::1", name="", vendor="nvidia", ollama="", parallel=1, servers=servers)
        self.runtime, self.supervisor, self.cards, self.asked = runtime, Supervisor(), Cards(), Asked()
        self.told: list[dict[str, str | int]] = []
        self.now = 0.0
        monkeypatch.setattr(module, "Prober", lambda *_: self.asked)
        monkeypatch.setattr(module, "monotonic", lambda: self.now)
        for n in (0, 1):
            self.supervisor.show(f"gpu{n}", "RUNNING", 10 + n)
        self.watch = self.new_watch()

    def new_watch(self) -> Watch:
        return Watch(
            self.plan, self.runtime, self.supervisor, self.cards,  # type: ignore[arg-type]
            notify=lambda **fields: self.told.append(fields), memory=load_memory(self.runtime),
        )  # fmt: skip

    def tick(self, *events: Event, after: float = 1.0) -> list[dict[str, str | int]]:
        """Make one turn; return what systemd was told in it."""
        self.now += after
        before = len(self.told)
        self.watch.tick(self.now, events)
        return self.told[before:]

    def written(self) -> dict[str, Any]:
        """Return watch.json."""
        found: dict[str, Any] = json.loads((self.runtime / "watch.json").read_bytes())
        return found

    def answer(self, *labels: str) -> None:
        for label in labels:
            self.asked.show(label, ProbeAnswer.ANSWERED)

    def begin(self) -> None:
        """Make the turns after which both servers have answered."""
        self.tick()
        self.answer("0", "1")
        self.tick()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_watchdog_is_fed_by_ticks_of_supervisord_alone(world: World) -> None:
    world.tick()
    assert [world.tick() for _ in range(10)] == [[]] * 10
    assert world.tick(Event("PROCESS_STATE_RUNNING")) == []
    assert world.tick(TICK) == [{"WATCHDOG": 1}]


def test_ready_is_said_once_when_every_server_has_answered(world: World) -> None:
    world.tick()
    world.answer("0")
    assert {"READY": 1} not in world.tick()
    world.answer("1")
    assert {"READY": 1} in world.tick()
    world.tick()
    assert world.told.count({"READY": 1}) == 1


@pytest.mark.parametrize("state", ["BACKOFF", "FATAL"])
def test_a_dead_card_does_not_keep_the_host_from_ready(world: World, state: str) -> None:
    world.tick()
    world.answer("0")
    world.tick()
    world.supervisor.show("gpu1", state, 0)
    assert {"READY": 1} in world.tick()


def test_ready_is_said_after_a_minute_whatever_the_servers_do(world: World) -> None:
    assert {"READY": 1} not in world.tick(after=59)
    assert {"READY": 1} in world.tick(after=2)


def test_status_is_one_line_with_the_troubles_and_is_said_when_it_changes(world: World) -> None:
    world.tick()
    world.answer("0", "1")
    assert {"STATUS": "2/2 servers answer"} in world.tick()
    world.cards.latest = CardReport(at=world.now, readings={"GPU-1": Readings(uuid="GPU-1", index=1, is_lost=True)})
    (told,) = world.tick()
    assert told == {"STATUS": wording("2-2-servers-answer-gpu1-its")}
    assert world.tick() == []
    assert world.supervisor.done == [("gpu1", "TERM")]


def test_a_reading_from_before_a_server_started_does_not_condemn_it(world: World) -> None:
    world.tick()
    world.answer("0", "1")
    world.cards.latest = CardReport(at=-1001.0, readings={"GPU-1": Readings(uuid="GPU-1", index=1, is_lost=True)})
    world.tick()
    assert world.supervisor.done == []


def test_a_supervisord_that_hangs_is_said_and_stops_nothing_else(world: World) -> None:
    world.begin()
    world.supervisor.is_stuck = True
    assert world.tick() == [{"STATUS": wording("2-2-servers-answer-supervisord-does")}]
    world.supervisor.is_stuck = False
    assert world.tick() == [{"STATUS": "2/2 servers answer"}]


def test_a_server_that_ended_meanwhile_is_no_reason_to_end(world: World) -> None:
    world.begin()
    world.supervisor.is_refusing = True
    world.cards.latest = CardReport(at=world.now, readings={"GPU-1": Readings(uuid="GPU-1", index=1, is_lost=True)})
    world.tick()
    assert world.supervisor.done == [("gpu1", "TERM")]


def test_another_process_of_a_server_is_asked_anew(world: World) -> None:
    world.tick()
    world.tick()
    assert world.asked.forgotten == ["0", "1"]
    world.supervisor.show("gpu1", "STARTING", 99)
    world.tick()
    assert world.asked.forgotten == ["0", "1", "1"]


def test_a_server_that_had_its_chance_keeps_it_when_it_tries_again(world: World) -> None:
    world.supervisor.show("gpu0", "BACKOFF", 0)
    world.tick()
    world.supervisor.show("gpu0", "STARTING", 12)
    world.tick()
    world.answer("1")
    assert {"READY": 1} in world.tick()


def test_watch_json_is_written_once_a_second_and_at_once_when_the_status_changes(world: World) -> None:
    path = world.runtime / "watch.json"
    world.tick()
    first = path.stat().st_mtime_ns, path.stat().st_ino
    world.tick(after=0.4)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == first
    world.answer("0", "1")
    world.tick(after=0.4)
    assert world.written()["status"] == "2/2 servers answer"


def test_a_server_that_waits_for_a_pull_is_said_to(world: World) -> None:
    with hold_pull(world.runtime, "llama3.2"):
        world.tick()
    assert world.written()["servers"]["0"]["condition"]["remark"] == wording("it-waits-for-a-pull-to")


def test_what_is_remembered_is_no_answer_of_today(world: World) -> None:
    world.begin()
    condition = load_memory(world.runtime)["0"]
    assert (condition.pid, condition.has_answered) == (10, True)
    assert (condition.probe, condition.is_answering, condition.trouble) == (0, False, "")


def test_the_loop_says_that_it_is_ready_takes_events_and_ends_with_its_pipe() -> None:
    seen: list[list[str]] = []
    receive, send = os.pipe()

    class CardReport:
        def tick(self, now: float, events: list[Event]) -> None:
            seen.append([event.name for event in events])
            os.close(send)

    sent: list[bytes] = []
    os.write(send, b"eventname:TICK_5 len:15\nwhen:1795370000")
    run(CardReport(), receive, sent.append)  # type: ignore[arg-type]
    os.close(receive)
    assert seen == [["TICK_5"]]
    assert sent == [b"READY\n", b"RESULT 2\nOKREADY\n"]


def test_when_supervisord_stops_the_watch_says_so_and_does_nothing_more(world: World) -> None:
    world.tick()
    (told,) = world.tick(Event("SUPERVISOR_STATE_CHANGE_STOPPING"))
    assert told == {
        "STATUS": wording("stopping-the-servers-end")
    }  # STOPPING=1 would be the end: a SIGHUP starts all anew
    for n in (0, 1):
        world.supervisor.show(f"gpu{n}", "FATAL", 0)
    world.tick(after=100)
    world.tick(after=100)
    assert world.supervisor.done == []


def test_what_supervisor_gave_up_on_is_started(world: World) -> None:
    world.supervisor.show("gpu0", "FATAL", 0)
    world.tick()
    world.tick(after=6)
    assert world.supervisor.done == [("gpu0", "start")]


def test_the_next_watch_remembers_and_restarts_nothing(world: World) -> None:
    world.begin()
    world.supervisor.show("gpu1", "RUNNING", 99)
    world.tick()
    world.watch = world.new_watch()
    assert {"READY": 1} not in world.told[-1:]
    world.begin()
    document = json.loads((world.runtime / "watch.json").read_bytes())
    assert document["servers"]["1"]["condition"]["restart_count"] == 1
    assert world.supervisor.done == []
    assert (world.runtime / "watch.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "[]", '{"servers": {"0": {}}}', '{"servers": {"0": {"condition": {"x": 1}}}}'])
def test_a_memory_that_cannot_be_read_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "watch.json").write_text(content)
    assert load_memory(tmp_path) == {}


def test_a_server_is_counted_only_if_its_own_process_listens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def is_foreign(pid: int, port: int) -> bool:
        asked.append((pid, port))
        return port == 2

    monkeypatch.setattr(module, "is_foreign", is_foreign)
    monkeypatch.setattr(module, "holder", lambda port: f"process 812 (port {port})")
    world.begin()
    assert world.watch.status() == wording("1-2-servers-answer-gpu1-its")
    for _ in range(3):
        world.answer("0", "1")
        world.tick()
    assert asked == [(10, 1), (11, 2), (11, 2), (11, 2), (11, 2)]  # a server's own process is looked at once


def test_a_server_that_does_not_run_is_said_with_its_last_words_and_a_restart_by_a_person_as_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (world.runtime / "logs").mkdir()
    log = world.runtime / "logs" / "gpu1.log"
    log.write_text("time=2026-11-22T23:00:00.000Z level=INFO msg=x\nobcd: port 11433 is held by process 7 (nc)\n")
    world.supervisor.show("gpu1", "FATAL", 0)
    world.tick()
    assert world.watch.status().endswith(wording("gpu1-it-does-not-start-port"))
    world.supervisor.show("gpu0", "STOPPED", 0)
    world.tick()
    world.supervisor.show("gpu0", "STARTING", 20)
    with caplog.at_level("INFO"):
        world.tick()
    assert wording("gpu0-restarted-by-a-person") in caplog.messages
    assert wording("stopped-by-a-person") not in caplog.text


def test_a_full_disk_costs_watch_json_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def show_json(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("obcd.spool.folders.disk.show_json", show_json)
    told = [world.tick(TICK, after=2.0) for _ in range(3)]
    assert all({"WATCHDOG": 1} in item for item in told)
    assert sum("No space left" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("changes", [{"next_restart_at": "soon"}, {"restart_count": None}, {"pid": True}])
def test_a_memory_of_other_types_is_dropped(world: World, changes: dict[str, Any]) -> None:
    world.tick()
    document = world.written()
    assert load_memory(world.runtime)
    document["servers"]["0"]["condition"] |= changes
    (world.runtime / "watch.json").write_text(json.dumps(document))
    assert load_memory(world.runtime) == {}
