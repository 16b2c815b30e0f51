from __future__ import annotations

from itertools import count

import pytest

from obcd.spool.intake.first_lines import first_lines


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a\nb\nc\n", b"a\nb\n"),
        (b"\n  \na\n\r\nb\nc", b"\n  \na\n\r\nb\n"),
        (b"a\nb", b"a\nb"),
        (b"a", b"a"),
        (b"", b""),
    ],
)
def test_the_first_two_lines_are_taken_whatever_the_blocks_are(content: bytes, wanted: bytes, size: int) -> None:
    blocks = (content[start : start + size] for start in range(0, len(content), size))

    assert b"".join(first_lines(blocks, 2)) == wanted


def test_no_more_is_read_than_is_needed() -> None:
    endless = (b"line\n" for _ in count())

    assert list(first_lines(endless, 3)) == [b"line\n"] * 3
