"""Sessions with Ray that a line of Python stands in for: they are refused, hang, are killed, and are tried again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import AlreadyRunningError, NoEndpointError, ObcdError
from obcd.ray import link
from obcd.ray.link import RaySession, Said
from obcd.ray.place import KeeperPlace
from obcd.ray.session import Order
from obcd.ray.supervision import PAUSES, supervise
from tests.unit.ray.test_link import NO_TOKEN

pytestmark = pytest.mark.integration

ORDER = Order(do="keep", address="auto", namespace="obcd")
CONNECTED = """print('{"kind": "connected"}', flush=True)\n"""
BEAT = """print('{"kind": "beat", "servers": 2, "target": 3}', flush=True)\n"""
ENDED = """print('{"kind": "result", "ended": true}', flush=True)\n"""


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a session whose process is a line of Python."""

    def run(script: str) -> RaySession:
        monkeypatch.setattr(link, "COMMAND", (sys.executable, "-ISc", f"import json, os, sys, time\n{script}"))
        return RaySession(ORDER.to_json())

    return run


def line(kind: str, **document: object) -> str:
    return f"print({json.dumps({'kind': kind, **document})!r}, flush=True)\n"


def test_lines_come_until_the_result_and_what_else_is_printed_does_not_matter(session: Any) -> None:
    noise = "print('Ray says hello', flush=True); print('{\"kind\": 7}', flush=True); print('[]', flush=True)\n"
    with session(line("connected") + noise + line("result", gpus=8)) as running:
        found = list(running.lines())

    assert [item.kind for item in found] == [Said.CONNECTED, Said.RESULT]
    assert found[-1].document == {"gpus": 8}


def test_a_refused_token_ends_the_session_at_once(session: Any) -> None:
    with (
        session(f"sys.stderr.write({NO_TOKEN!r}); sys.stderr.flush(); time.sleep(60)") as running,
        pytest.raises(NoEndpointError, match="requires a token"),
    ):
        list(running.lines())


def test_a_session_that_is_not_connected_in_time_is_no_head(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_SECONDS", 0.1)
    with session("time.sleep(60)") as running, pytest.raises(NoEndpointError, match="no Ray head answers"):
        list(running.lines())
    assert running.is_connected is False


def test_a_session_that_hangs_later_ends_too(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.1)
    with session(line("connected") + "time.sleep(60)") as running, pytest.raises(NoEndpointError):
        list(running.lines())
    assert running.is_connected is True


def test_a_session_that_is_killed_says_so(session: Any) -> None:
    with session(line("connected") + "os.kill(os.getpid(), 9)") as running, pytest.raises(NoEndpointError, match="9"):
        list(running.lines())


def test_an_error_keeps_its_exit_code(session: Any) -> None:
    script = line("failed", text="held by m2/9", code=int(AlreadyRunningError.exit_code))
    with session(script) as running, pytest.raises(ObcdError, match="m2/9") as caught:
        list(running.lines())
    assert caught.value.exit_code == AlreadyRunningError.exit_code


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeeperPlace:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = KeeperPlace("obcd")
    made.folder.mkdir()
    return made


class Sessions:
    """Runs one script after the other; a pause brings the next one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
        self._patch, self._scripts = monkeypatch, list(scripts)
        self.pauses: list[float] = []
        self._next()

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._next()

    def _next(self) -> None:
        self._patch.setattr(link, "COMMAND", (sys.executable, "-ISc", self._scripts.pop(0)))


def test_a_cluster_that_cannot_be_reached_at_first_is_an_error(
    place: KeeperPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(monkeypatch, "")
    with pytest.raises(NoEndpointError):
        supervise(ORDER, place, sessions.sleep)
    assert sessions.pauses == []


def test_a_cluster_that_is_lost_later_is_tried_again_with_pauses(
    place: KeeperPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(monkeypatch, CONNECTED + BEAT, "", "", CONNECTED + BEAT + ENDED)

    supervise(ORDER, place, sessions.sleep)

    assert sessions.pauses == [PAUSES[0], 2 * PAUSES[0], 4 * PAUSES[0]]
    assert place.read() == {"servers": 2, "target": 3}
