"""`obcd convert` from files that are not lines."""

from __future__ import annotations

import io
import json
import lzma
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from obcd.cli.main import run
from obcd.core.tables.converting import LineShape
from obcd.core.tables.file_format import Form
from obcd.core.tables.json_shape import open_json
from obcd.errors import FormError
from obcd.prompts.convert import Wanted, convert
from obcd.text_files import LeftOut

TWO = [{"id": "a", "prompt": "one"}, {"id": "b", "prompt": "two", "options": {"temperature": 1}}]


def converted(source: BinaryIO, form: Form) -> tuple[list[object], list[LeftOut]]:
    stream, left_out = io.BytesIO(), list[LeftOut]()
    convert(source, form, Wanted(shape=LineShape.OURS), stream, left_out.append)
    return [json.loads(line) for line in stream.getvalue().splitlines()], left_out


class Pipe(io.BytesIO):
    """Standard input: it can be read once."""

    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("packing", ["", "xz"])
def test_r31_array_is_converted_by_its_first_bytes(indent: int | None, packing: str) -> None:
    raw = json.dumps([*TWO, 7], indent=indent).encode()

    lines, left_out = converted(Pipe(lzma.compress(raw) if packing else raw), Form(packing=packing))

    assert lines == TWO
    assert [item.place for item in left_out] == ["line 3"]


def test_r35_parquet_is_converted_from_a_pipe_as_from_a_file(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([TWO[1], TWO[0]]).take([1, 0]), tmp_path / "p.parquet")

    lines, left_out = converted(Pipe((tmp_path / "p.parquet").read_bytes()), Form("parquet"))

    assert (lines, left_out) == (TWO, [])
    assert run(["convert", str(tmp_path / "p.parquet"), "-o", str(tmp_path / "p.csv")]) == 0
    assert (tmp_path / "p.csv").read_text().splitlines()[1] == '"a","one",""'


def test_array_that_is_a_conversation_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"role": "user", "content": "a"}]')

    assert run(["convert", str(tmp_path / "a.json"), "-o", str(tmp_path / "b.jsonl")]) == 5
    assert not (tmp_path / "b.jsonl").exists()


def array_of(megabytes: int, element: bytes) -> Iterator[bytes]:
    yield b"[" + element
    for _ in range(megabytes):
        yield (b",\n " + element) * (2**20 // (len(element) + 3) + 1)
    yield b"]"


@pytest.mark.parametrize(
    "element", [b'{"prompt": "' + b'x\\n\\"' * 400 + b'"}', b'{"prompt": "' + b"x" * 2**22 + b'"}']
)
def test_memory_is_that_of_a_block_whatever_the_size_of_the_array_and_of_its_elements_is(element: bytes) -> None:
    tracemalloc.start()
    try:
        size = sum(map(len, open_json(array_of(12, element), Form(), 2**40).blocks))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert size > 11 * 2**20
    assert peak < 16 * 2**20 + 2 * len(element)  # the elements are this test's own


@pytest.mark.parametrize("raw", [b"PAR1 no", b"not Parquet"])
def test_what_is_no_parquet_is_named(raw: bytes) -> None:
    with pytest.raises(FormError):
        converted(io.BytesIO(raw), Form("parquet"))
