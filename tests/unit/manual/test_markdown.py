from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from obcd.manual.markdown import (
    Block,
    BlockList,
    CodeBlock,
    Grid,
    Heading,
    Paragraph,
    StyledText,
    escape,
    parse_markdown,
    parse_spans,
    plain,
)
from tests.support import SOURCES


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("# One\ntwo\nthree\n\n## Four ##\n", (Heading(1, "One"), Paragraph("two three"), Heading(2, "Four"))),
        ("a\n```sh root\n# b\n\n- c\n```\nd", (Paragraph("a"), CodeBlock("# b\n\n- c", "sh root"), Paragraph("d"))),
        ("a\n\n    b\n\n      c\n\nd", (Paragraph("a"), CodeBlock("b\n\n  c"), Paragraph("d"))),
        (
            "| a | b |\n| --- | ---: |\n| `c` | x \\| y |\n\nd",
            (Grid(("a", "b"), (("`c`", "x | y"),)), Paragraph("d")),
        ),
        ("> a\n> b\n\n---\n<!-- no\n\nmore -->\nc", (Paragraph("a b"), Paragraph("c"))),
        ("```\nnever closed", (CodeBlock("never closed"),)),
        ("", ()),
    ],
)
def test_page_is_read_as_blocks(text: str, blocks: tuple[Block, ...]) -> None:
    assert parse_markdown(text) == blocks


def test_items_of_a_list_hold_blocks_and_lists() -> None:
    text = "- one\n  goes on\nlazily\n\n- two\n\n  ```\n  code\n  ```\n  1. a\n  2. b\n\nafter"

    inner = BlockList(((Paragraph("a"),), (Paragraph("b"),)), is_ordered=True)
    assert parse_markdown(text) == (
        BlockList(((Paragraph("one goes on lazily"),), (Paragraph("two"), CodeBlock("code"), inner))),
        Paragraph("after"),
    )


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("a `b *c*` d", [StyledText("a "), StyledText("b *c*", "code"), StyledText(" d")]),
        (
            "**a `b`** *c*",
            [StyledText("a ", "bold"), StyledText("b", "code"), StyledText(" "), StyledText("c", "italic")],
        ),
        (
            "[a `b`](c.md#d) <https://e.f>",
            [StyledText("a "), StyledText("b", "code"), StyledText(" "), StyledText("https://e.f")],
        ),
        ("[a](https://b.c)", [StyledText("a"), StyledText(" (https://b.c)")]),
        (r"\*a\* 2 * 3 * 4 num_ctx", [StyledText("*a* 2 * 3 * 4 num_ctx")]),
    ],
)
def test_line_is_read_as_spans(text: str, spans: list[StyledText]) -> None:
    assert parse_spans(text) == spans


@pytest.mark.parametrize("text", ["a *b* <c> \\%F \\d _x_ num_ctx", "**", "C:\\temp [x]"])
def test_escaped_text_is_shown_as_it_was(text: str) -> None:
    assert plain(escape(text)) == text


PAGES = [SOURCES / "README.md", *sorted((SOURCES / "etc").rglob("*.md"))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_of_this_project_keeps_its_code(path: Path) -> None:
    text = path.read_text("utf-8")

    count = sum(isinstance(block, CodeBlock) for block in every_block(parse_markdown(text)))

    assert count >= sum(line.lstrip().startswith("```") for line in text.splitlines()) // 2


def every_block(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, BlockList):
            yield from every_block(inner for item in block.items for inner in item)
