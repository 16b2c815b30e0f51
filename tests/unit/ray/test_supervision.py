"""`obcd ray up` outlives its session: Ray ends a process whose head stays away."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from obcd.errors import NoEndpointError
from obcd.ray import link
from obcd.ray.place import KeeperPlace
from obcd.ray.session import Order
from obcd.ray.supervision import PAUSES, supervise

ORDER = Order(do="keep", address="auto", namespace="obcd")
CONNECTED = """print('{"kind": "connected"}', flush=True)\n"""
BEAT = """print('{"kind": "beat", "servers": 2, "target": 3}', flush=True)\n"""
ENDED = """print('{"kind": "result", "ended": true}', flush=True)\n"""


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
