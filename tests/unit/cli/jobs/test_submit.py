from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from obcd.cli import main
from obcd.cli.jobs.submit import drain
from obcd.clock import monotonic
from obcd.spool.folders.layout import Layout
from obcd.spool.submit import exactly_once
from obcd.spool.submit.dropping import find_target
from tests.golden.wording import wording


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
