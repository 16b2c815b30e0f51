"""The beginning of a file up to its n-th request (`obcd batch --limit`). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def first_lines(blocks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Yield the bytes of a file up to the end of its n-th line that is not blank, in the blocks of the file."""
    left, is_blank = count, True  # whether the line at hand is blank so far
    for block in blocks:
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            is_blank = is_blank and not block[start:end].strip()
            left -= not is_blank
            start, is_blank = end + 1, True
            if not left:
                yield block[:start]
                return
        is_blank = is_blank and not block[start:].strip()
        yield block
