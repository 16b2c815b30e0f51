from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from obcd.cli import main
from obcd.cli.jobs.admission_forecast import foresee_late
from obcd.cli.jobs.submit import drain, parse_deadline, submit
from obcd.clock import monotonic
from obcd.coordinator.view import EndpointView, JobView, View
from obcd.errors import UsageError
from obcd.spool.folders.layout import Layout
from obcd.spool.submit import exactly_once
from obcd.spool.submit.dropping import Submitted
from obcd.spool.submit.target import find_target
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, make_layout


def test_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"prompts\n" * 1000)
    os.close(writing)

    with os.fdopen(reading, "rb") as reader:
        drain(reader, 60.0)

        assert reader.read() == b""


def test_generator_that_hangs_is_left_alone_after_a_time() -> None:
    reading, writing = os.pipe()
    began = monotonic()

    with os.fdopen(reading, "rb") as reader:
        drain(reader, 0.05)

    os.close(writing)
    assert 0.04 < monotonic() - began < 30


def test_generator_without_an_end_is_left_alone_after_a_time() -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(writing, b"x" * 4096)

    writer = threading.Thread(target=write)
    writer.start()
    began = monotonic()
    with os.fdopen(reading, "rb") as reader:
        drain(reader, 0.05)
    writer.join(30)
    os.close(writing)

    assert not writer.is_alive()
    assert monotonic() - began < 30


def test_file_need_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"prompts\n")

    with path.open("rb") as reader:
        drain(reader, 60.0)

        assert reader.read() == b"prompts\n"


def test_name_that_another_submit_works_on_keeps_no_other_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, state = Layout.at(tmp_path / "root"), tmp_path / "state"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    monkeypatch.setattr(exactly_once, "LOCK_SECONDS", 0.0)
    layout.create([])
    state.mkdir()
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.write_text('{"prompt": "one"}\n', "utf-8")
    record = exactly_once.record_path(state, layout.inbox, find_target(layout.inbox, "", "a"))

    with exactly_once.DropRecord(record, layout.inbox):
        code = main.run(["submit", "--root", str(layout.root), "--once", *map(str, paths)])

    assert code == 7
    assert capsys.readouterr().err.startswith(wording("obcd-another-submit-of-the-same"))
    assert sorted(path.name for path in layout.inbox.glob("*.jsonl")) == ["b.jsonl"]


def endpoint(**more: object) -> EndpointView:
    values: dict[str, object] = {
        "name": "gpu0", "url": "u", "gpu": 0, "slots": 10, "in_flight": 10, "state": "UP", "reason": "", "version": "",
        "answered": 0, "faults": 0, "tokens_per_second": 0.0,
    }  # fmt: skip
    return EndpointView(**{**values, **more})  # type: ignore[arg-type]


def status_of(paces: dict[str, float] | None, windows: dict[str, str] | None = None, **more: object) -> View:
    values: dict[str, object] = {
        "version": "1", "pid": 1, "root": "r", "inbox": "i", "outbox": "o", "state": "READY", "updated": 0.0,
        "updated_at": "", "endpoints": (endpoint(),),
    }  # fmt: skip
    return View(paces=paces, windows=windows, **{**values, **more})  # type: ignore[arg-type]


def dropped(prompts: int, profile: str = "") -> Submitted:
    return Submitted(name="notes.jsonl", profile=profile, drop_id="d1", prompts=prompts, bad=0, bad_lines=())


NOON = datetime(2026, 12, 1, 12, 0).timestamp()
HOUR = 3600.0


def late(view: View, prompts: int, hours: float, profile: str = "") -> list[str]:
    return foresee_late(view, [dropped(prompts, profile)], 7, NOON + hours * HOUR, NOON)


def test_deadline_that_cannot_be_met_is_said_at_once() -> None:
    view = status_of({"": 36.0})  # a hundred requests take six minutes

    assert late(view, 900, 1.0) == []
    (text,) = late(view, 2000, 1.0)
    assert text.startswith(wording("notes-jsonl-will-miss-13-00-by-about-1-h"))
    assert "14:0" in text


def test_other_jobs_and_their_submitters_count() -> None:
    job = {"name": "a.jsonl", "profile": "", "state": "RUNNING", "total": 5000, "done": 3000}
    mine = JobView(job="a", uid=7, **job)  # type: ignore[arg-type]

    assert late(status_of({"": 36.0}, jobs=(mine,)), 900, 1.0)
    assert late(status_of({"": 36.0}, jobs=(replace(mine, drop_id="d1"),)), 900, 1.0) == []  # it is this file itself
    assert late(status_of({"": 36.0}, jobs=(replace(mine, state="PAUSED"),)), 900, 1.0) == []


def test_window_that_opens_after_the_deadline_is_said_without_any_known_speed() -> None:
    view = status_of(None, {"night": "20:00-07:00"})

    (text,) = late(view, 1, 6.0, "night")
    assert text == wording("notes-jsonl-will-miss-18-00-its-window")
    assert late(view, 1, 6.0) == late(view, 1, 10.0, "night") == []
    assert late(status_of({"": 36.0}, {"night": "what a newer version writes"}), 1, 6.0, "night") == []


def test_deadline_is_understood_and_lies_ahead() -> None:
    assert parse_deadline("in 2 hours", NOON) == NOON + 7200
    for text in ("soon", "2026-12-01T11:59"):
        with pytest.raises(UsageError):
            parse_deadline(text, NOON)


def test_deadline_goes_into_the_marker_with_its_offset(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    source = tmp_path / "notes.jsonl"
    source.write_bytes(THREE)

    code = submit.main(
        [str(source), "--root", str(layout.root), "--by", "2030-01-01T06:00+01:00"], standalone_mode=False
    )

    marker = json.loads((layout.inbox / "notes.jsonl.done").read_text("utf-8"))
    assert code == 0
    assert datetime.fromisoformat(marker["by"]) == datetime(2030, 1, 1, 5, 0, tzinfo=UTC)
