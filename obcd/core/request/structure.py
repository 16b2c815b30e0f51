"""Refuse a long line that would take a multiple of its size in memory once it is parsed. Pure.

The text of a JSON string takes the memory of its bytes. Everything else (`[],[],[]…`) becomes objects of 64 bytes for
three bytes of a line, at the clerk and in each slot of a worker.
"""

from __future__ import annotations

import re

#: Most bytes of a line beside its strings. A picture's line has a hundred.
MAX_STRUCTURE_BYTES = 2**20
MOSTLY_STRUCTURE = (
    f"more than {MAX_STRUCTURE_BYTES} bytes of numbers, names and brackets: remove what the prompt does not need, "
    "or set [spool] max_line_bytes to another value than its default"
)
#: A string, or an unfinished one to the end; possessive, so that no text takes more than linear time or any memory.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def is_mostly_structure(raw: bytes) -> bool:
    """Return whether a line has more than `MAX_STRUCTURE_BYTES` outside its strings, the quotes included."""
    if len(raw) <= MAX_STRUCTURE_BYTES:
        return False
    quotes = raw.count(b'"')
    if b'\\"' not in raw:  # every quote is the beginning or the end of a string: thirty times as fast
        return quotes > MAX_STRUCTURE_BYTES or quotes + _outside(raw) > MAX_STRUCTURE_BYTES
    outside = end = 0
    for match in _STRING.finditer(raw):
        outside += match.start() - end + 2
        end = match.end()
        if outside > MAX_STRUCTURE_BYTES:
            return True
    return outside + len(raw) - end > MAX_STRUCTURE_BYTES


def _outside(raw: bytes) -> int:
    """Return how many bytes are outside of strings and their quotes, where no quote is escaped."""
    outside = at = 0
    while (begin := raw.find(b'"', at)) >= 0:
        outside += begin - at
        end = raw.find(b'"', begin + 1)
        if end < 0:
            return outside
        at = end + 1
    return outside + len(raw) - at
