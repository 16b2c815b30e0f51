"""Unpack gzip, xz and zstd data a block at a time, with limits against files that are a bomb. Pure."""

from __future__ import annotations

import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from obcd.core.tables.file_format import GZ, XZ, ZST, Form, why_no_reader
from obcd.core.tables.foreign_files import foreign_format
from obcd.errors import CutOffError, FormError

#: The amount that is unpacked at once.
BLOCK_BYTES = 2**18
#: A part that grows to more than this many times its size, and beyond `FREE_BYTES`, is a bomb: texts grow 3 to 20-fold.
MAX_RATIO, FREE_BYTES = 200, 2**26
#: Members of a file that may be small: `cat a.gz b.gz` has two, and those of bgzip have 64 KB each.
FREE_MEMBERS, LEAST_MEMBER_BYTES = 1000, 256
#: Most memory that one file may make its decompressor use: `xz -9` needs 65 MiB, `zstd --ultra -22` 128 MiB.
MAX_WINDOW_LOG = 27
MAX_MEMORY_BYTES = 2**MAX_WINDOW_LOG


class Packing(NamedTuple):
    """How files of a packing begin, and what they are called."""

    magic: bytes
    name: str


PACKINGS = {
    GZ: Packing(b"\x1f\x8b", "a gzip file"),
    XZ: Packing(b"\xfd7zXZ\x00", "an xz file"),
    ZST: Packing(b"\x28\xb5\x2f\xfd", "a zstd file"),
}


class Decompressor(Protocol):
    """Unpacks one member, as `lzma.LZMADecompressor` does."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing more to be had without further input."""

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the member."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most `max_length` bytes; what is left of the input is kept."""


class _Gzip:
    """`zlib.decompressobj` with the interface of `lzma.LZMADecompressor`."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        part = self._inner.decompress(self._inner.unconsumed_tail + data, max_length)
        self.needs_input = not self._inner.unconsumed_tail and len(part) < max_length
        return part


def _zstd() -> tuple[Callable[[], Decompressor], type[Exception]]:
    module = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    options = {module.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    return lambda: cast("Decompressor", module.ZstdDecompressor(options=options)), module.ZstdError


def _codec(packing: str) -> tuple[Callable[[], Decompressor], type[Exception]]:
    """Return what makes a decompressor of a member, and the error that it raises."""
    if packing == GZ:
        return _Gzip, zlib.error
    if packing == XZ:
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_MEMORY_BYTES), lzma.LZMAError
    if why := why_no_reader(Form(packing=packing)):
        raise FormError(why)
    return _zstd()


def unfold(blocks: Iterable[bytes], form: Form, most_bytes: int) -> Iterator[bytes]:
    """Yield the content of a file, unpacked if it is packed.

    Args:
        most_bytes: The largest size of an unpacked file.

    Raises:
        FormError: If it is not what its name says, or a bomb.
        CutOffError: If its end is missing.
    """
    if form.is_packed:
        blocks = unpack(blocks, most_bytes, form.packing)
    is_first = True
    for block in blocks:
        what = foreign_format(block) if is_first else None
        if what is not None:
            raise FormError(f"it is {what}")
        is_first = False
        yield block


def unpack(blocks: Iterable[bytes], most_bytes: int, packing: str = GZ) -> Iterator[bytes]:
    """Yield the content of packed blocks, in blocks of at most `BLOCK_BYTES`, and half of that on average.

    Small ones would cost the square of a line's length: readers append each to the line so far.

    Args:
        most_bytes: The largest size of the content.

    Raises:
        FormError: If it is not such a file, a damaged one, or a bomb; or an extra of obcd is missing.
        CutOffError: If its end is missing.
    """
    members = _Members(packing)
    packed = unpacked = 0
    held = bytearray()
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
                if held and len(held) + len(part) > BLOCK_BYTES:
                    yield bytes(held)
                    held.clear()
                held += part
    if held:
        yield bytes(held)
    members.end()


class _Members:
    """The members of a packed file (frames, with zstd), one after the other."""

    def __init__(self, packing: str) -> None:
        self._ending = packing
        self._magic, self._name = PACKINGS[packing]
        self._make, self._error = _codec(packing)
        self._inner: Decompressor | None = None
        self._count = self._bytes = 0
        self._is_so = False  # whether it is what its name says, by its first bytes

    def take(self, piece: bytes) -> Iterator[bytes]:
        self._is_so |= not self._bytes and piece.startswith(self._magic)
        self._bytes += len(piece)
        while piece:
            if self._inner is None:
                if self._count and not piece.strip(b"\0"):  # padding, as tapes add it, and xz
                    return
                self._count += 1
                if self._count > FREE_MEMBERS and self._bytes < self._count * LEAST_MEMBER_BYTES:
                    raise FormError(f"it is made of thousands of tiny {self._name.split()[1]} files: pack it as one")
                self._inner = self._make()
            yield from self._take_from(self._inner, piece)
            piece = b""
            if self._inner.eof:
                piece, self._inner = self._inner.unused_data, None

    def _take_from(self, inner: Decompressor, piece: bytes) -> Iterator[bytes]:
        """Yield what a member holds so far."""
        while True:
            try:
                part = inner.decompress(piece, BLOCK_BYTES)
            except MemoryError:
                raise FormError(f"it needs more than {MAX_MEMORY_BYTES} bytes of memory: pack it with gzip") from None
            except self._error as error:
                if "emory" in str(error):  # a window or dictionary beyond the limit
                    raise FormError(
                        f"it needs more than {MAX_MEMORY_BYTES} bytes of memory: pack it with gzip"
                    ) from None
                what = "it is damaged" if self._is_so else f"it is not {self._name}"
                raise FormError(
                    f"{what}, although its name ends in .{self._ending}: pack it again, or rename it"
                ) from None
            if part:
                yield part
            if inner.eof or inner.needs_input:
                return
            piece = b""

    def end(self) -> None:
        if self._inner is not None or not self._count:
            raise CutOffError("it is cut off: the end of the packed file is missing")
