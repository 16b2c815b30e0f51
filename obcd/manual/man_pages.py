"""The man pages: obcd(1), obcd.toml(5), obcd-host(8), obcd-coordinator(8), made of the pages of the manual. Pure.

commands.md ─► obcd(1), obcd-host(8), obcd-coordinator(8)     configuration.md ─► obcd.toml(5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from obcd import __version__
from obcd.manual.markdown import Block, BlockList, CodeBlock, Heading, Paragraph, parse_markdown
from obcd.manual.roff import head, literal, to_roff


@dataclass(frozen=True, slots=True, kw_only=True)
class ManPage:
    """One man page.

    Attributes:
        section: Of the system's manual: 1 commands, 5 files, 8 daemons.
        summary: What whatis(1) shows.
        source: The page of obcd's manual that it is made of.
        commands: The commands that it describes; the first is the page's own. () for a page that is taken whole.
        files: `{path: what it is}`.
        environment: `{variable: what it says}`.
        see: Other man pages.
    """

    name: str
    section: int
    summary: str
    source: str
    commands: tuple[str, ...] = ()
    files: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    see: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """Where it lies below share/man, e.g. `man1/obcd.1`."""
        return f"man{self.section}/{self.name}.{self.section}"


CONFIGURATION_FILES = {
    "/etc/obcd/obcd.toml": "The configuration of the system.",
    "~/.config/obcd/obcd.toml": "The configuration of a user, where the system has none.",
}
SPOOL_FILES = {
    "/var/spool/obcd": "The spool: `inbox/`, `jobs/` and `outbox/`.",
    "~/.local/share/obcd": "The spool of a user, where `/etc/obcd/obcd.toml` does not exist.",
}
#: {paragraph of a command's help: the section of a man page that it begins}
HEADED = {"Options:": "Options", "Commands:": "Commands", "Examples:": "Examples", "Example:": "Examples"}
SIGNALS = "Signals: "
MAN_PAGES = (
    ManPage(
        name="obcd",
        section=1,
        summary="batch prompts over GPUs that run Ollama",
        source="commands",
        commands=("obcd", "obcd *"),
        files={**CONFIGURATION_FILES, **SPOOL_FILES},
        environment={
            "OBCD_CONFIG": "The configuration file, where `--config` is not given.",
            "OBCD_ROOT": "The spool, where `--root` is not given.",
        },
        see=("obcd.toml(5)", "obcd-host(8)", "obcd-coordinator(8)"),
    ),
    ManPage(
        name="obcd.toml",
        section=5,
        summary="configuration of obcd",
        source="configuration",
        files=CONFIGURATION_FILES,
        see=("obcd(1)", "obcd-host(8)", "obcd-coordinator(8)"),
    ),
    ManPage(
        name="obcd-host",
        section=8,
        summary="run one Ollama server per GPU",
        source="commands",
        commands=("obcd host", "obcd host *", "obcd serve-gpu"),
        files={**CONFIGURATION_FILES, "/run/obcd-host": "What a running host keeps: its socket and its plan."},
        see=("obcd(1)", "obcd.toml(5)", "obcd-coordinator(8)", "systemctl(1)"),
    ),
    ManPage(
        name="obcd-coordinator",
        section=8,
        summary="accept dropped files, send their requests, publish the results",
        source="commands",
        commands=("obcd coordinator", "obcd reload", "obcd check"),
        files={**CONFIGURATION_FILES, **SPOOL_FILES},
        see=("obcd(1)", "obcd.toml(5)", "obcd-host(8)", "systemctl(1)"),
    ),
)


def render_man_page(page: ManPage, read: Callable[[str], str]) -> bytes:
    """Return a man page as a file holds it.

    Args:
        read: Returns a page of the manual by its name, as `pages.read_page` does.
    """
    blocks = parse_markdown(read(page.source))
    body = _whole(blocks) if not page.commands else _commands(blocks, page.commands)
    name = f'.SH "NAME"\n{literal(page.name)} \\- {literal(page.summary)}\n'
    text = head(page.name, page.section, f"obcd {__version__}") + name + to_roff([*body, *_end(page)])
    return text.encode("ascii")


def _whole(blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield a page: what stands before its first section is the description, its sections are parts of one."""
    at = next((n for n, block in enumerate(blocks) if isinstance(block, Heading) and block.level == 2), len(blocks))
    yield from (Heading(2, "Description"), *blocks[:at], Heading(2, "Keys"))
    yield from map(_deeper, blocks[at:])


def _commands(blocks: Sequence[Block], patterns: tuple[str, ...]) -> Iterator[Block]:
    """Yield the page's own command by sections, the others as parts of one."""
    sections = _sections(blocks)
    first, *_ = patterns
    usage, *rest = sections[first]
    yield from (Heading(2, "Synopsis"), usage, Heading(2, "Description"))
    for block in rest:
        yield from _with_heading(block)
    others = [title for title in sections if title != first and any(_fits(title, item) for item in patterns)]
    if others:
        yield Heading(2, "Command reference")
    for title in others:
        yield Heading(3, title)
        yield from sections[title]


def _with_heading(block: Block) -> tuple[Block, ...]:
    """Return what begins a section of a man page with its heading, e.g. `Examples:`."""
    if not isinstance(block, Paragraph):
        return (block,)
    if block.text in HEADED:
        return (Heading(2, HEADED[block.text]),)
    if block.text.startswith("Exit code"):
        return (Heading(2, "Exit status"), block)
    if block.text.startswith(SIGNALS):
        return (Heading(2, "Signals"), Paragraph(block.text.removeprefix(SIGNALS)))
    return (block,)


def _deeper(block: Block) -> Block:
    """Return a heading one level down."""
    return replace(block, level=block.level + 1) if isinstance(block, Heading) else block


def _fits(title: str, pattern: str) -> bool:
    return title.startswith(pattern[:-1]) if pattern.endswith("*") else title == pattern


def _sections(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return `{heading of level 2: what stands below it}`; deeper headings go one level down."""
    sections: dict[str, list[Block]] = {}
    below: list[Block] = []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            below = sections.setdefault(block.text, [])
        else:
            below.append(_deeper(block))
    return sections


def _end(page: ManPage) -> Iterator[Block]:
    for heading, terms in (("Environment", page.environment), ("Files", page.files)):
        if terms:
            yield Heading(2, heading)
            yield BlockList(tuple((Paragraph(f"`{term}`: {text}"),) for term, text in terms.items()))
    yield Heading(2, "See also")
    yield Paragraph(", ".join(f"**{name[:-3]}**{name[-3:]}" for name in page.see))
    yield Paragraph("`obcd help` lists the pages of the manual, and `obcd help PAGE` shows one:")
    yield CodeBlock(f"obcd help {page.source}")
