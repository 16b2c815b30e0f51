"""The physical lines of a table, as spreadsheets, old systems and pandas end and begin them. Pure, a block at a time.

What is not a line of the table, or ends otherwise:

    EF BB BF sep=; CR LF     a byte order mark is passed over; `sep=;` names the delimiter (Excel)
    a,b CR 1,2 CR            lines that end in CR alone ("CSV (Macintosh)") end in LF
    … 1A 1A 1A               Ctrl-Z ends the file (DOS), if nothing but padding follows
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

BOM = b"\xef\xbb\xbf"
#: Most bytes that are searched for the end of the first line, and most that may follow a Ctrl-Z as padding.
HEAD_BYTES, PADDING_BYTES = 2**16, 2**16
#: Longest line that is searched for a delimiter: a spreadsheet may repeat it for each of its columns.
MAX_SEPARATOR_BYTES = 2**15
CTRL_Z, PADDING = b"\x1a", b"\x1a\0 \t\r\n"
_QUOTED = re.compile(rb'"[^"]*"')
_LONE_CR = re.compile(rb"\r(?!\n|\Z)")
_SEPARATOR = re.compile(r'"?sep=(\\t|[^\w"\r\n])"?\1*+[ \t]*+\r?\n?', re.IGNORECASE)


def split_lines(blocks: Iterable[bytes], most_bytes: int, end: bytes = b"\n") -> Iterator[bytes]:
    """Yield lines with an LF in place of their end; of a line that is too long, only a beginning that is too long."""
    rest = b""
    for block in blocks:
        *ended, tail = block.split(end)
        if ended:
            yield rest + ended[0] + b"\n"
            for line in ended[1:]:
                yield line + b"\n"
            rest = tail
        else:
            rest += tail
        if len(rest) > most_bytes:
            yield rest
            rest = b""
    if rest:
        yield rest


def table_lines(blocks: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """Yield the lines of a table, each with its LF except for a last one without; see above for what is changed."""
    rest = iter(without_ctrl_z(blocks))
    head = b""
    for block in rest:
        head += block
        if b"\n" in head or len(head) > HEAD_BYTES:
            break
    first = _QUOTED.sub(b"", head.partition(b"\n")[0])
    end = b"\r" if _LONE_CR.search(first) else b"\n"
    return split_lines(chain((head.removeprefix(BOM),), rest), most_bytes, end)


def find_separator(line: bytes) -> str:
    """Return the delimiter that a first line such as `sep=;` names, "" if it is not such a line."""
    if len(line) > MAX_SEPARATOR_BYTES:
        return ""
    found = _SEPARATOR.fullmatch(line.decode("utf-8", "replace"))
    return "" if found is None else "\t" if found[1] == r"\t" else found[1]


def without_ctrl_z(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield blocks without a Ctrl-Z at the end and the padding after it; an LF ends what is before it."""
    held = b""  # from a Ctrl-Z on, while nothing but padding follows
    last = b""
    for block in blocks:
        if held or CTRL_Z in block:
            whole = held + block
            at = whole.find(CTRL_Z, len(whole.rstrip(PADDING)))
            at = at if at >= 0 and len(whole) - at <= PADDING_BYTES else len(whole)
            whole, held = whole[:at], whole[at:]
        else:
            whole = block
        if whole:
            last = whole[-1:]
            yield whole
    if held and last not in (b"", b"\n", b"\r"):
        yield b"\n"
