"""A coordinator keeps its history, and `obcd batch` does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.daemon import _Display
from obcd.coordinator.history.minutes import LINE_SECONDS
from obcd.coordinator.main_loop import Coordinator
from obcd.spool.folders.layout import Layout
from obcd.spool.history.history_files import FOLDER, read_history
from obcd.spool.history.history_line import IdleReason
from tests.support import wait_until


@pytest.mark.parametrize("takes_drops", [True, False])
def test_coordinator_that_takes_drops_keeps_its_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes_drops: bool
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    layout = Layout.at(tmp_path / "root")
    layout.root.mkdir()
    layout.runtime.mkdir()
    settings = Settings.model_validate({"ollama_instances": {"a": 0, "b": 1}})
    made = Coordinator(settings, layout, takes_drops=takes_drops)
    made.scheduler.on_probe("a", {}, None, 0.0)
    monkeypatch.setattr("obcd.coordinator.jobs.job_lifecycle.Jobs.requests_left", lambda *_: 5)
    display = _Display(made, takes_reloads=False, shares_status=False)

    for second in range(int(LINE_SECONDS) + 2):
        display.tick(1000.0 + second)
    display.finish(1000.0 + LINE_SECONDS + 10)
    made._recorder.stop(5)

    if not takes_drops:
        assert not (layout.root / FOLDER).exists()
        return
    wait_until(lambda: len(list(read_history(layout.root))) == 2, 5)
    first, last = read_history(layout.root)
    assert (first.seconds, last.seconds) == (LINE_SECONDS, 10.0)
    assert (first.endpoints.name, first.endpoints.state) == (("a", "b"), ("UP", "STARTING"))
    assert first.idle_seconds.keys() == {IdleReason.NO_FITTING_REQUEST, IdleReason.ENDPOINT_STARTING}
