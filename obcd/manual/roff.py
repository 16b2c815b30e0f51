r"""Blocks of Markdown as a manual page in roff, by the macros of man(7). Pure.

It uses what groff and mandoc both know, and nothing else: `.SH`, `.SS`, `.PP`, `.TP`, `.IP`, `.RS`, `.nf`, and tbl(1)
for tables. Characters outside ASCII are written as `\[u00E9]`, so the page needs no encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from obcd.manual.markdown import Block, BlockList, CodeBlock, Grid, Heading, Paragraph, parse_spans, plain

#: An item that explains a term: `` `--from DIR`: drop every … ``.
TERM = re.compile(r"^(`[^`]+`(?:, `[^`]+`)*): +(.*)$")
#: {what roff would read otherwise: how it is written}, groff_char(7).
SPECIAL = {"\\": "\\(rs", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
FONTS = {"plain": "", "code": "\\fB", "bold": "\\fB", "italic": "\\fI"}


def head(name: str, section: int, source: str) -> str:
    """Return the first lines of a page: its names, and no hyphens or wide gaps where lines end.

    Args:
        source: What the page belongs to, e.g. `obcd 0.2.0`.
    """
    return f'\'\\" t\n.TH {name.upper()} {section} "" "{source}" "obcd manual"\n.nh\n.ad l\n'


def to_roff(blocks: Iterable[Block]) -> str:
    """Return blocks as roff; a heading of level 2 begins a section, one of level 3 a part of it."""
    lines: list[str] = []
    for line in (line for block in blocks for line in _lines(block)):
        is_first = not lines or lines[-1].startswith((".SH ", ".SS "))  # which begin a paragraph themselves
        if line != ".PP" or not is_first:
            lines.append(line)
    return "\n".join(lines) + "\n"


def literal(text: str) -> str:
    """Return text that roff prints as it is, every hyphen a minus sign that can be copied into a shell."""
    return _escaped(text).replace("-", "\\-")


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Heading(level=level, text=text):
            yield from _heading(level, text)
        case Paragraph(text=text):
            yield from (".PP", _inline(text))
        case CodeBlock(text=text):
            yield from (".PP", ".RS 4", ".nf", *(_guarded(literal(line)) for line in text.splitlines()), ".fi", ".RE")
        case BlockList(items=items, is_ordered=is_ordered):
            for number, item in enumerate(items, 1):
                yield from _item(item, f"{number}." if is_ordered else "\\(bu")
        case Grid(headings=headings, rows=rows):
            yield from _table(headings, rows)


def _heading(level: int, text: str) -> Iterator[str]:
    match level:
        case 1:
            return  # the title stands in the head
        case 2:
            yield f".SH {_quoted(plain(text).upper())}"
        case 3:
            yield f".SS {_quoted(plain(text))}"
        case _:
            yield from (".PP", f"\\fB{literal(plain(text))}\\fR")


def _quoted(text: str) -> str:
    return f'"{literal(text)}"'


def _item(blocks: tuple[Block, ...], mark: str) -> Iterator[str]:
    first, *rest = blocks or (Paragraph(""),)
    term = TERM.match(first.text) if isinstance(first, Paragraph) else None
    if term is not None:
        yield from (".TP", _inline(term[1]), _inline(term[2]))
    elif isinstance(first, Paragraph):
        yield from (f'.IP "{mark}" 4', _inline(first.text))
    else:
        yield f'.IP "{mark}" 4'
        rest = [first, *rest]
    if rest:
        yield ".RS"
        for block in rest:
            yield from _lines(block)
        yield ".RE"


def _table(headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """Yield a table of tbl(1), whose cells are blocks of text that are filled."""
    count = max(map(len, (headings, *rows)))
    has_headings = any(headings)
    yield from (".PP", ".TS", "tab(\t);")
    if has_headings:
        yield " ".join(["lb"] * count)
    yield " ".join(["l"] * (count - 1) + ["lx"]) + "."
    for row in (headings, *rows) if has_headings else rows:
        cells = [*row, *[""] * (count - len(row))]
        yield "\t".join(f"T{{\n{_inline(cell)}\nT}}" if cell else "" for cell in cells)
    yield ".TE"


def _inline(text: str) -> str:
    """Return a line with its fonts."""
    parts = []
    for span in parse_spans(text):
        font = FONTS[span.style]
        words = _escaped(span.text) if span.style in ("plain", "italic") else literal(span.text)
        parts.append(f"{font}{words}\\fR" if font else words)
    return _guarded("".join(parts))


def _guarded(line: str) -> str:
    """Return a line that is no request: one begins with a dot or an apostrophe."""
    return "\\&" + line if line.startswith((".", "'")) else line


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(char, char) if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
