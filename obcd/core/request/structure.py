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
    outside = end = 0
    for match in _STRING.finditer(raw):
        outside += match.start() - end + 2
        end = match.end()
        if outside > MAX_STRUCTURE_BYTES:
            return True
    return outside + len(raw) - end > MAX_STRUCTURE_BYTES
