"""States through a pipe: the newest one counts, and nobody waits for a reader."""

from __future__ import annotations

import os
from dataclasses import replace

from obcd.client.watching.progress_pipe import CAPACITY, VARIABLE, ProgressPipe, ProgressWriter
from tests.unit.client.watching.test_progress import view


def test_newest_state_counts_and_stays() -> None:
    with ProgressPipe() as pipe:
        writer = ProgressWriter.find({VARIABLE: str(pipe.writing)})
        assert writer is not None
        assert pipe.newest() is None

        writer.write(view("first"))
        writer.write(view("second"))

        assert [pipe.newest(), pipe.newest()] == [view("second")] * 2


def test_nobody_waits_for_a_reader_and_a_long_state_is_not_written() -> None:
    with ProgressPipe() as pipe:
        writer = ProgressWriter(os.dup(pipe.writing))
        writer.write(replace(view(), trouble="x" * 5000))
        assert pipe.newest() is None

        for _ in range(CAPACITY // 100):
            writer.write(view("again"))

        assert pipe.newest() == view("again")


def test_process_without_such_a_pipe_writes_nothing() -> None:
    assert ProgressWriter.find({}) is None
    assert ProgressWriter.find({VARIABLE: "two"}) is None
    assert ProgressWriter.find({VARIABLE: "999999"}) is None
