r"""Markdown as blocks and spans: the part of CommonMark that the manual uses. Pure.

Read: headings (`#`), paragraphs, fenced and indented code, lists of both kinds (nested by indentation), tables,
quotations (as what they hold), comments and rules (left out); inside a line code, bold, italic, links, escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FENCE = re.compile(r"^(`{3,}|~{3,})\s*(.*)$")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
MARKER = re.compile(r"^([-*+]|\d{1,9}[.)])(\s+)(?=\S)")
TABLE_RULE = re.compile(r"^\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?\s*)?$")
RULE = re.compile(r"^([-*_])(\s*\1){2,}$")
SPAN = re.compile(
    r"(?P<ticks>`+)(?P<code>.+?)(?P=ticks)"
    r"|\\(?P<escaped>[!-/:-@\[-`{-~])"
    r"|\[(?P<label>(?:`[^`]*`|[^\]])*)\]\((?P<target>[^)\s]*)\)"
    r"|<(?P<url>https?://[^>\s]+)>"
    r"|\*\*(?P<bold>.+?)\*\*"
    r"|\*(?P<italic>[^*\s](?:[^*]*[^*\s])?)\*"
)

Style = Literal["plain", "code", "bold", "italic"]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 1 is the title of the page."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text in one line, with its Markdown inside."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Lines to show as they are.

    Attributes:
        tag: The words behind the fence, e.g. `sh root`; "" for indented code.
    """

    text: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class BlockList:
    """A list; each item holds blocks."""

    items: tuple[tuple[Block, ...], ...]
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its headings and its rows, each cell with its Markdown inside."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | CodeBlock | BlockList | Grid


@dataclass(frozen=True, slots=True)
class StyledText:
    """A piece of a line in one style."""

    text: str
    style: Style = "plain"


def parse_markdown(text: str) -> tuple[Block, ...]:
    """Return the blocks of a page."""
    return tuple(_blocks(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).splitlines()))


def parse_spans(text: str) -> list[StyledText]:
    """Return the pieces of a line; a link is its label, with the address behind it where that is on the web."""
    spans: list[StyledText] = []
    end = 0
    for found in SPAN.finditer(text):
        spans.append(StyledText(text[end : found.start()]))
        spans += _spans_of(found)
        end = found.end()
    spans.append(StyledText(text[end:]))
    return [span for span in spans if span.text]


def plain(text: str) -> str:
    """Return a line without its Markdown."""
    return "".join(span.text for span in parse_spans(text))


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, apart from code in backticks."""
    return re.sub(r"\\(?=[!-/:-@\[-`{-~])|[*<]|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], text)


def _spans_of(found: re.Match[str]) -> list[StyledText]:
    match found.lastgroup:
        case "code":
            return [StyledText(found["code"].strip() or found["code"], "code")]
        case "target":
            target = found["target"]
            return parse_spans(found["label"]) + ([StyledText(f" ({target})")] if target.startswith("http") else [])
        case "bold":
            return [
                span if span.style == "code" else StyledText(span.text, "bold") for span in parse_spans(found["bold"])
            ]
        case "italic":
            return [StyledText(plain(found["italic"]), "italic")]
        case _:
            return [StyledText(found["escaped"] or found["url"])]


def _blocks(lines: list[str]) -> Iterator[Block]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip() or RULE.match(line):
            at += 1
        elif fence := FENCE.match(line):
            end = next((n for n in range(at + 1, len(lines)) if lines[n].strip() == fence[1]), len(lines))
            yield CodeBlock("\n".join(lines[at + 1 : end]), fence[2].strip())
            at = end + 1
        elif heading := HEADING.match(line):
            yield Heading(len(heading[1]), heading[2])
            at += 1
        elif line.startswith("    "):
            end = _end_of_indented(lines, at, 4)
            yield CodeBlock("\n".join(item[4:] for item in lines[at:end]).rstrip())
            at = end
        elif _is_table(lines, at):
            end = next((n for n in range(at, len(lines)) if "|" not in lines[n]), len(lines))
            headings, _, *rows = lines[at:end]
            yield Grid(_cells(headings), tuple(map(_cells, rows)))
            at = end
        elif MARKER.match(line):
            items, is_ordered = [], line[0].isdigit()
            while at < len(lines) and (marker := MARKER.match(lines[at])) and lines[at][0].isdigit() == is_ordered:
                end = _end_of_item(lines, at, len(marker[0]))
                inner = [
                    lines[at][len(marker[0]) :],
                    *(item.removeprefix(" " * len(marker[0])) for item in lines[at + 1 : end]),
                ]
                items.append(tuple(_blocks(inner)))
                at = end
            yield BlockList(tuple(items), is_ordered)
        elif line.startswith(">"):
            end = next((n for n in range(at, len(lines)) if not lines[n].startswith(">")), len(lines))
            yield from _blocks([item[1:].removeprefix(" ") for item in lines[at:end]])
            at = end
        else:
            end = next((n for n in range(at + 1, len(lines)) if _ends_paragraph(lines, n)), len(lines))
            yield Paragraph(" ".join(item.strip() for item in lines[at:end]))
            at = end


def _ends_paragraph(lines: list[str], at: int) -> bool:
    line = lines[at]
    is_other = any(pattern.match(line) for pattern in (FENCE, HEADING, MARKER))
    return is_other or not line.strip() or line.startswith(">") or _is_table(lines, at)


def _is_table(lines: list[str], at: int) -> bool:
    return "|" in lines[at] and at + 1 < len(lines) and bool(TABLE_RULE.match(lines[at + 1].strip()))


def _cells(line: str) -> tuple[str, ...]:
    inside = re.sub(r"^\s*\||(?<!\\)\|\s*$", "", line)
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inside))


def _end_of_indented(lines: list[str], at: int, width: int) -> int:
    """Return where lines end that are indented, or blank with an indented one behind them."""
    end = at + 1
    for number in range(at + 1, len(lines)):
        if lines[number].startswith(" " * width):
            end = number + 1
        elif lines[number].strip():
            break
    return end


def _end_of_item(lines: list[str], at: int, width: int) -> int:
    """Return where an item of a list ends: its lines are indented, or go on with its paragraph.

    Blank lines behind it belong to it, so that the next item is of the same list.
    """
    end = at + 1
    while end < len(lines):
        line = lines[end]
        is_lazy = bool(lines[end - 1].strip()) and not _ends_paragraph(lines, end)
        if line.strip() and not line.startswith(" " * width) and not is_lazy:
            break
        end += 1
    return end
