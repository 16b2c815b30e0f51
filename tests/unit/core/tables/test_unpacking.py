from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from obcd.core.tables import unpacking
from obcd.core.tables.unpacking import unpack
from obcd.errors import CutOffError, FormError
from tests.golden.wording import wording

TEXT = b"".join(b'{"prompt": "%d"}\n' % number for number in range(100_000))


def unpacked(raw: bytes, most: int = 2**30, block: int = 2**20) -> bytes:
    def blocks() -> Iterator[bytes]:
        for start in range(0, len(raw), block):
            yield raw[start : start + block]

    parts = list(unpack(blocks(), most))
    assert all(len(part) <= unpacking.BLOCK_BYTES for part in parts)
    return b"".join(parts)


@pytest.mark.parametrize("block", [1000, 2**20])
def test_members_behind_each_other_and_padding_are_one_text(block: int) -> None:
    raw = gzip.compress(TEXT) + gzip.compress(b"") + gzip.compress(b"end") + b"\0" * 700

    assert unpacked(raw, block=block) == TEXT + b"end"


def test_tiny_members_come_in_large_blocks() -> None:
    raw = b"".join(gzip.compress(bytes([65 + number % 26]) * 1000) for number in range(900))

    parts = list(unpack([raw], 2**30))

    assert b"".join(parts) == b"".join(bytes([65 + number % 26]) * 1000 for number in range(900))
    assert len(parts) <= 900_000 // unpacking.BLOCK_BYTES + 2


@pytest.mark.parametrize("left", [0, 1, 12, 5000, -1])
def test_missing_end_is_told(left: int) -> None:
    with pytest.raises(CutOffError, match=wording("it-is-cut-off-the-end")):
        unpacked(gzip.compress(TEXT)[:left])


def test_bombs_are_refused() -> None:
    bomb = gzip.compress(b"\n" * (unpacking.FREE_BYTES + 2**20))

    with pytest.raises(FormError, match=wording("it-unpacks-to-more-than-200")):
        unpacked(bomb)
    with pytest.raises(FormError, match=wording("it-is-longer-than-1000-bytes")):
        unpacked(gzip.compress(TEXT), most=1000)
    with pytest.raises(FormError, match=wording("it-is-made-of-thousands-of")):
        unpacked(gzip.compress(b"") * 5000)


def test_what_is_no_gzip_file_is_refused() -> None:
    with pytest.raises(FormError, match=wording("it-is-no-gzip-file-although")):
        unpacked(b'{"prompt": "x"}\n')
    raw = bytearray(gzip.compress(TEXT))
    raw[-6] ^= 1
    for block in (1000, 2**20):
        with pytest.raises(FormError, match=wording("it-is-damaged-although-its-name")):
            unpacked(bytes(raw), block=block)
