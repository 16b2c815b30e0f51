"""What documents and docstrings refer to is there: files, modules, and what is named in them."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
#: A file or folder of the repository; of a test maybe its name, of a module maybe what stands in it.
PATH = re.compile(
    r"(?<![\w/.-])((?:obcd|tests|etc|systemd)/[\w./@-]*\w/?)"
    r"(?:::(?P<test>\w+)|`: `(?P<name>\w+(?:\.\w+)*)`|: (?P<method>[A-Z]\w*(?:\.\w+)+))?"
)
#: A dotted name in backticks.
DOTTED = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:\(\))?`")
#: A name that is pointed to for more: "see `name`", or (`name`) at the end of what it explains.
POINTER = re.compile(r"(?:\bsee `|\(`)([a-z_]+)`")
#: Where the names of settings stand, to which any text may point.
SETTINGS = ("obcd/config/settings.py", "obcd/config/tables.py", "obcd/core/request/records.py")
#: Ends of names of files, which look like attributes.
FILE_ENDS = frozenset(
    [
        "jsonl",
        "json",
        "csv",
        "toml",
        "txt",
        "sqlite",
        "gz",
        "log",
        "md",
        "conf",
        "old",
        "new",
        "py",
        "duckdb",
        "parquet",
        "rejected",
    ]
)


class Text(NamedTuple):
    """A piece of prose and where it stands: the file relative to the repository, and the first line."""

    file: str
    line: int
    words: str


def prose_of(path: Path, *patterns: re.Pattern[str]) -> Iterator[Text]:
    """Yield the docstrings and comments of a module in which one of the patterns occurs."""
    source, file = path.read_text("utf-8"), str(path.relative_to(ROOT))
    if not any(pattern.search(source) for pattern in patterns):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            words = ast.get_docstring(node, clean=False)
            if words:
                yield Text(file, node.body[0].lineno, words)
    for number, line in enumerate(source.splitlines(), 1):
        comment = re.search(r"(?:^|\s)#:? .*", line)
        if comment is not None:
            yield Text(file, number, comment[0])


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def documents() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "tests").glob("*.md"), *(ROOT / "etc").rglob("*.md")]
    return sorted(path for path in found if path.name != "CHANGELOG.md")  # which says what was


@cache
def modules() -> dict[str, set[Path]]:
    """Return `{name of a module or package: its files}`."""
    found: dict[str, set[Path]] = defaultdict(set)
    for path in sources("obcd"):
        found[path.parent.name if path.name == "__init__.py" else path.stem].add(path)
    return found


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return what a module binds, in it and in its classes and functions: `Class`, `method`, `field`, `argument`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.split(".")[0])
            case _:
                pass
    return frozenset(found)


def resolves(dotted: str, path: Path) -> bool:
    """Return whether a dotted name leads to something in obcd, read from the file in which it stands."""
    first, *rest = dotted.split(".")
    if first == "obcd":
        return is_there(ROOT / "obcd", rest)
    starts = [module.parent if module.name == "__init__.py" else module for module in modules().get(first, ())]
    if any(is_there(start, rest) for start in starts):
        return True
    return first in names_in(path)


def is_there(start: Path, rest: list[str]) -> bool:
    """Return whether a path of names goes on from a package or module: `scheduler`, `Scheduler`, `assign`."""
    if not rest:
        return True
    if start.suffix == ".py":
        return set(rest) <= names_in(start)
    below = start / rest[0]
    if below.is_dir():
        return is_there(below, rest[1:])
    if below.with_suffix(".py").is_file():
        return is_there(below.with_suffix(".py"), rest[1:])
    own = [path for path in (start / "__init__.py", start / "__init__.pyi") if path.is_file()]
    return set(rest) <= frozenset().union(*map(names_in, own))


def lost_paths(text: Text) -> Iterator[str]:
    """Yield the paths in a text at which nothing is, and the names that their files do not have."""
    for found in PATH.finditer(text.words):
        path, name = found[1], found["test"] or found["name"] or found["method"]
        place = f"{text.file}:{text.line + text.words[: found.start()].count(chr(10))}"
        if not (ROOT / path).exists():
            yield f"{place}: {path}"
        elif name and path.endswith(".py") and not set(name.split(".")) <= names_in(ROOT / path):
            yield f"{place}: {path}: {name}"


def lost_names(text: Text) -> Iterator[str]:
    """Yield the names in a docstring or comment that lead nowhere."""
    path = ROOT / text.file
    if "`" not in text.words:
        return
    for found in DOTTED.finditer(text.words):
        dotted = found[1]
        is_file = not FILE_ENDS.isdisjoint(dotted.lower().split("."))
        if not is_file and not is_foreign(dotted.split(".")[0]) and not resolves(dotted, path):
            yield f"{text.file}:{text.line}: `{dotted}`"
    for found in POINTER.finditer(text.words):
        is_known = found[1] in modules() or any(found[1] in names_in(ROOT / file) for file in (text.file, *SETTINGS))
        if not is_known and f'"{found[1]}"' not in path.read_text("utf-8"):
            yield f"{text.file}:{text.line}: `{found[1]}`"


@cache
def is_foreign(name: str) -> bool:
    """Return whether a name is that of another package, or of a table of sysctl(8)."""
    return name == "kernel" or (name not in {"obcd", "tests"} and importlib.util.find_spec(name) is not None)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_refers_to_is_there(path: Path) -> None:
    assert list(lost_paths(Text(str(path.relative_to(ROOT)), 1, path.read_text("utf-8")))) == []


def test_files_that_docstrings_and_comments_refer_to_are_there() -> None:
    prose = (text for path in sources("obcd", "tests") for text in prose_of(path, PATH))

    assert [lost for text in prose for lost in lost_paths(text)] == []


def test_names_that_docstrings_and_comments_refer_to_are_there() -> None:
    prose = (text for path in sources("obcd") for text in prose_of(path, DOTTED, POINTER))

    assert [lost for text in prose for lost in lost_names(text)] == []


def test_reference_that_leads_nowhere_is_found() -> None:
    here = "obcd/core/scheduling/scheduler.py"
    words = "See tests/unit/test_nothing.py and obcd/core/scheduling/scheduler.py: Scheduler.vanish (see `fairness`); "
    text = Text(here, 1, words + "`core.scheduling.turns` and `obcd.core.scheduling.scheduler.Scheduler.assign`")

    assert list(lost_paths(text)) == [
        f"{here}:1: tests/unit/test_nothing.py",
        f"{here}:1: obcd/core/scheduling/scheduler.py: Scheduler.vanish",
    ]
    assert list(lost_names(text)) == [f"{here}:1: `core.scheduling.turns`", f"{here}:1: `fairness`"]
