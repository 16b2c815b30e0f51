"""The lines that are tried: some of all parts of a file, whatever its kind, with their numbers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from obcd.core.request.rows import PLAIN, Reading
from obcd.errors import InputError
from obcd.results.trying.sampling import LineSample, take_sample


def sample(path: Path, content: bytes, count: int = 5, reading: Reading = PLAIN) -> LineSample:
    path.write_bytes(content)
    return take_sample(path, count, reading, 2**20)


def line_of(words: int) -> bytes:
    return json.dumps({"prompt": "word " * words}).encode()


def test_short_and_long_lines_are_taken_from_everywhere_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [line_of(words) for words in (900, 5, 700, 10, 500, 20, 300, 40, 100, 80)]

    found = sample(tmp_path / "notes.jsonl", b"\n".join(lines) + b"\n")

    assert found.numbers == tuple(sorted(found.numbers))
    assert found.lines == tuple(lines[number - 1] for number in found.numbers)
    assert list(found.lengths) == list(map(len, lines))
    taken = sorted(map(len, found.lines))
    parts = sorted(map(len, lines))
    assert all(length in parts[2 * part : 2 * part + 2] for part, length in enumerate(taken))


def test_blank_lines_and_the_mark_at_the_beginning_are_no_prompts(tmp_path: Path) -> None:
    found = sample(tmp_path / "notes.jsonl", b'\xef\xbb\xbf{"prompt": "one"}\r\n\n  \n{"prompt": "two"}')

    assert (found.numbers, found.lines) == ((1, 4), (b'{"prompt": "one"}\r', b'{"prompt": "two"}'))
    assert found.content == b'{"prompt": "one"}\r\n{"prompt": "two"}\n'


def test_rows_of_a_packed_table_are_lines(tmp_path: Path) -> None:
    rows = b"id,prompt\n" + b"".join(b"%d,prompt %d\n" % (number, number) for number in range(1, 5))

    found = sample(tmp_path / "notes.csv.gz", gzip.compress(rows), 9)

    assert found.numbers == (1, 2, 3, 4)
    assert [json.loads(line)["prompt"] for line in found.lines] == [f"prompt {number}" for number in range(1, 5)]


def test_file_without_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prompt"):
        sample(tmp_path / "notes.jsonl", b"\n\n")
