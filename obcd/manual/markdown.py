"""The manual's Markdown as blocks and spans, read by markdown-it-py (CommonMark with tables). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

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


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def parse_markdown(text: str) -> tuple[Block, ...]:
    """Return the blocks of a page; comments and rules are left out, and a quotation is what it holds."""
    return tuple(_blocks(SyntaxTreeNode(_parser().parse(text))))


def parse_spans(text: str) -> list[StyledText]:
    """Return the pieces of a line; a link is its label, with the address behind it where that is on the web."""
    (inline,) = SyntaxTreeNode(_parser().parseInline(text)).children
    return [span for span in _spans(inline) if span.text]


def plain(text: str) -> str:
    """Return a line without its Markdown."""
    return "".join(span.text for span in parse_spans(text))


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, apart from code in backticks."""
    return re.sub(r"\\(?=[!-/:-@\[-`{-~])|[*<]|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], text)


def _blocks(parent: SyntaxTreeNode) -> Iterator[Block]:
    for node in parent.children:
        match node.type:
            case "heading":
                yield Heading(int(node.tag[1:]), _line(node))
            case "paragraph":
                yield Paragraph(_line(node))
            case "fence" | "code_block":
                yield CodeBlock(node.content.rstrip("\n"), node.info.strip())
            case "bullet_list" | "ordered_list":
                items = tuple(tuple(_blocks(item)) for item in node.children)
                yield BlockList(items, is_ordered=node.type == "ordered_list")
            case "table":
                headings, *rows = (tuple(map(_line, row.children)) for part in node.children for row in part.children)
                yield Grid(headings, tuple(rows))
            case "blockquote":
                yield from _blocks(node)
            case _:  # a rule, or HTML: a comment
                pass


def _line(node: SyntaxTreeNode) -> str:
    """Return the Markdown inside a block as one line."""
    return " ".join(line.strip() for line in node.children[0].content.splitlines())


def _spans(parent: SyntaxTreeNode, style: Style = "plain") -> Iterator[StyledText]:
    for node in parent.children:
        match node.type:
            case "strong":
                yield from _spans(node, "bold")
            case "em":
                yield from _spans(node, "italic")
            case "link":
                yield from _spans(node, style)
                target = str(node.attrs["href"])
                if target.startswith("http") and node.info != "auto":
                    yield StyledText(f" ({target})", style)
            case "code_inline":
                yield StyledText(node.content, "code")
            case "softbreak" | "hardbreak":
                yield StyledText(" ", style)
            case _:
                yield StyledText(node.content, style)
