"""Unpack gzip data a block at a time, with limits against files that are a bomb. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from obcd.core.tables.file_format import Form, foreign_format
from obcd.errors import CutOffError, FormError

#: The amount that is unpacked at once.
BLOCK_BYTES = 2**18
#: A part that grows to more than this many times its size, and beyond `FREE_BYTES`, is a bomb: texts grow 3 to 20-fold.
MAX_RATIO, FREE_BYTES = 200, 2**26
#: Members of a file that may be small: `cat a.gz b.gz` has two, and those of bgzip have 64 KB each.
FREE_MEMBERS, LEAST_MEMBER_BYTES = 1000, 256
MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS


def unfold(blocks: Iterable[bytes], form: Form, most_bytes: int) -> Iterator[bytes]:
    """Yield the content of a file, unpacked if it is packed.

    Args:
        most_bytes: The largest size of an unpacked file.

    Raises:
        FormError: If it is not what its name says, or a bomb.
        CutOffError: If its end is missing.
    """
    if form.is_packed:
        blocks = unpack(blocks, most_bytes)
    is_first = True
    for block in blocks:
        what = foreign_format(block) if is_first else None
        if what is not None:
            raise FormError(f"it is {what}")
        is_first = False
        yield block


def unpack(blocks: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield the content of packed blocks, in blocks of at most `BLOCK_BYTES`.

    Args:
        most_bytes: The largest size of the content.

    Raises:
        FormError: If it is not a gzip file, a damaged one, or a bomb.
        CutOffError: If its end is missing.
    """
    members = _Members()
    packed = unpacked = 0
    for block in blocks:
        for start in range(0, len(block), BLOCK_BYTES // 4):
            piece = block[start : start + BLOCK_BYTES // 4]
            packed += len(piece)
            for part in members.take(piece):
                unpacked += len(part)
                if unpacked > most_bytes:
                    raise FormError(f"it is longer than {most_bytes} bytes unpacked ([spool] max_expanded_bytes)")
                if unpacked > FREE_BYTES and unpacked > packed * MAX_RATIO:
                    raise FormError(f"it unpacks to more than {MAX_RATIO} times its size: send it unpacked")
                yield part
    members.end()


class _Members:
    """The gzip members of a file, one after the other."""

    def __init__(self) -> None:
        self._inner: zlib._Decompress | None = None
        self._count = self._bytes = 0
        self._is_gzip = False  # by its first two bytes

    def take(self, piece: bytes) -> Iterator[bytes]:
        self._is_gzip |= not self._bytes and piece.startswith(MAGIC)
        self._bytes += len(piece)
        while piece:
            if self._inner is None:
                if self._count and not piece.strip(b"\0"):  # padding, as tapes add it
                    return
                self._count += 1
                if self._count > FREE_MEMBERS and self._bytes < self._count * LEAST_MEMBER_BYTES:
                    raise FormError("it is made of thousands of tiny gzip files: pack it as one")
                self._inner = zlib.decompressobj(_GZIP)
            try:
                part = self._inner.decompress(piece, BLOCK_BYTES)
            except zlib.error:
                what = "it is damaged" if self._is_gzip else "it is not a gzip file"
                raise FormError(f"{what}, although its name ends in .gz: pack it again, or rename it") from None
            if part:
                yield part
            while len(part) == BLOCK_BYTES and not self._inner.eof and not self._inner.unconsumed_tail:
                part = self._inner.decompress(b"", BLOCK_BYTES)  # there may be more than one block
                if part:
                    yield part
            if self._inner.eof:
                piece, self._inner = self._inner.unused_data, None
            else:
                piece = self._inner.unconsumed_tail

    def end(self) -> None:
        if self._inner is not None or not self._count:
            raise CutOffError("it is cut off: the end of the packed file is missing")
