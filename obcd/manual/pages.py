"""The pages of the manual: one file each in etc/manual/, in a checkout and in an installed package alike."""

from __future__ import annotations

import re

from obcd.manual.markdown import Paragraph, parse_markdown, plain
from obcd.package_data import shared

#: The pages in the order of reading; what is not named here comes behind them, by name.
READING_ORDER = (
    "concepts",
    "glossary",
    "dropping-files",
    "formats",
    "structured-answers",
    "openai-batches",
    "operating",
    "monitoring",
    "registering-hosts",
    "on-slurm",
    "on-ray",
    "configuration",
    "commands",
    "measuring",
    "performance",
    "troubleshooting",
    "security",
    "design",
)
NAME = re.compile(r"^[a-z0-9][a-z0-9-]*$", re.ASCII)
#: The end of a sentence, in Markdown; "e.g." and numbers with a point are none.
SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)[.:?!](?=\s+[A-Z`\"(\[*<])")


def page_names() -> list[str]:
    """Return the names of all pages in the order of reading, e.g. `["concepts", …]`."""
    try:
        folder = shared("manual")
    except FileNotFoundError:
        return []
    names = {path.stem for path in folder.glob("*.md") if NAME.match(path.stem)}
    return [name for name in READING_ORDER if name in names] + sorted(names.difference(READING_ORDER))


def read_page(name: str) -> str:
    """Return a page as Markdown.

    Raises:
        FileNotFoundError: If there is no page of this name.
    """
    return shared(f"manual/{name}.md").read_text("utf-8")


def first_sentence(page: str) -> str:
    """Return the first sentence of a page without its Markdown, "" where it has no paragraph."""
    paragraphs = (block.text for block in parse_markdown(page) if isinstance(block, Paragraph))
    text = next(paragraphs, "")
    end = SENTENCE_END.search(text)
    return plain(text[: end.end()] if end else text)
