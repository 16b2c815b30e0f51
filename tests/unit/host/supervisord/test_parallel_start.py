from __future__ import annotations

from types import SimpleNamespace

import pytest
from supervisor import events

from obcd.host.supervisord.parallel_start import make_interface


class Group:
    def __init__(self, name: str, started: list[str]) -> None:
        self.name, self._started = name, started

    def __lt__(self, other: Group) -> bool:
        return self.name < other.name

    def transition(self) -> None:
        self._started.append(self.name)


def test_programs_start_in_their_order_when_supervisord_runs_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "callbacks", [])
    started: list[str] = []
    make_interface(SimpleNamespace(process_groups={name: Group(name, started) for name in ("b", "a")}))
    assert started == []
    events.notify(events.SupervisorStoppingEvent())
    assert started == []
    events.notify(events.SupervisorRunningEvent())
    assert started == ["a", "b"]
