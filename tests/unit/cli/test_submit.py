from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from obcd.cli.submit import drain
from obcd.clock import monotonic


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
