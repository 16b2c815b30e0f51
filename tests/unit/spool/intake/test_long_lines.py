"""Lines of pictures: as long as `obcd prepare --images` packs them, and no way to take more memory than they do."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path

import pytest

from obcd.config.tables import Spool
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.request.structure import MAX_STRUCTURE_BYTES, MOSTLY_STRUCTURE, is_mostly_structure
from obcd.core.user_limits import LINE_BYTES
from obcd.prompts.images import MAX_IMAGE_BYTES
from obcd.spool.folders.layout import Layout
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader
from tests.unit.spool.intake.test_acceptance import failures
from tests.unit.spool.spools import accept_bytes, make_layout

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path / "spool")


def kinds(layout: Layout, header: JobHeader) -> list[str]:
    return [json.loads(raw)["class"] for _, raw in ledger.read_valid(layout.jobs / header.id / ledger.NAME)]


def picture_line(size: int) -> bytes:
    image = base64.b64encode(PNG.ljust(size, b"\x55")).decode()
    return json.dumps({"id": "scan", "prompt": "What is this?", "images": [image]}).encode() + b"\n"


def test_r49_a_picture_of_3_mb_is_taken_by_default(layout: Layout) -> None:
    header = accept_bytes(layout, picture_line(3_000_000), max_line_bytes=Spool().max_line_bytes)

    assert (header.requests, header.bad_lines) == (1, 0)


def test_r49_the_largest_picture_that_prepare_packs_is_taken_by_default(layout: Layout) -> None:
    line = picture_line(MAX_IMAGE_BYTES)
    tracemalloc.start()
    header = accept_bytes(layout, line, max_line_bytes=Spool().max_line_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (header.requests, header.bad_lines) == (1, 0)
    assert peak < 6 * len(line)


@pytest.mark.parametrize(
    "junk",
    [b"[" + b"[]," * 700_000 + b"0]", b'{"a":' * 400_000, b"0," * 1_000_000, b'""' * 1_000_000, b'"a",' * 500_000],
    ids=["lists", "objects", "numbers", "texts", "a list of texts"],
)
def test_a_line_of_brackets_and_numbers_is_refused_before_it_is_parsed(layout: Layout, junk: bytes) -> None:
    line = b'{"prompt": "x", "junk": ' + junk + b"}\n"
    header = accept_bytes(layout, b'{"prompt": "one"}\n' + line, max_line_bytes=LINE_BYTES)

    assert failures(layout, header) == {2: MOSTLY_STRUCTURE}


def test_a_limit_that_somebody_chose_counts_alone(layout: Layout) -> None:
    numbers = b"0," * 600_000 + b"0"
    header = accept_bytes(layout, b'{"prompt": "x", "vector": [' + numbers + b"]}\n", max_line_bytes=2**22)

    assert header.bad_lines == 0


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ({"prompt": "x" * 3_000_000}, False),
        ({"prompt": "x" * 3_000_000, "options": {"num_ctx": 131072}}, True),
        ({"embed": ["x" * 1_000_000] * 3, "model": "e"}, True),  # each text is read alone
        ({"embed": ["x" * 3_000_000], "model": "e"}, False),
        ({"complete": "x" * 3_000_000}, False),
        ({"messages": [{"role": "user", "content": "x" * 1_500_000}] * 2}, False),
    ],
)
def test_a_text_that_no_context_holds_is_never_sent(layout: Layout, line: dict[str, object], fits: bool) -> None:
    header = accept_bytes(layout, json.dumps(line).encode() + b"\n", max_line_bytes=LINE_BYTES)

    assert header.bad_lines == (not fits)
    assert kinds(layout, header) == ([] if fits else [FaultKind.TOO_LONG])


@pytest.mark.parametrize(
    ("raw", "is_structure"),
    [
        (b'"' + b"," * 2 * MAX_STRUCTURE_BYTES + b'"', False),  # commas of a text
        (b'"' + rb"\"," * MAX_STRUCTURE_BYTES + b'"', False),  # escaped quotes do not end it
        (b'"' + rb"\"" * MAX_STRUCTURE_BYTES, False),  # nor does the end of the line
        (b"," * (MAX_STRUCTURE_BYTES + 1), True),
        (b'"x"' + b" " * MAX_STRUCTURE_BYTES, True),
    ],
)
def test_only_what_is_outside_of_strings_counts(raw: bytes, is_structure: bool) -> None:
    assert is_mostly_structure(raw) is is_structure
