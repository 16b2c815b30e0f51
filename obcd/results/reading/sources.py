"""Find the sources of answers: published folders and per-prompt files. Only names and paths; it reads no content.

DIR/1700000000-1.json              per-prompt file as the seed writes it (only directly in the given DIR)
DIR/notes/manifest.json …          published folder: DIR itself, or a subfolder at any depth
DIR/notes.partial/, .obcd/ …       ignored, like folders of another submitter
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import InputError
from obcd.results.reading.seed_files import STAMP
from obcd.spool.folders import acl
from obcd.text import printable
from obcd.text_files import LeftOut

#: suffixes of folders in the outbox that hold no answers
UNFINISHED_SUFFIXES = (".partial", ".waiting", ".rejected", ".repeated")

_NUMBERED = re.compile(r"(\d{1,18})-(\d{1,18})\.json", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A per-prompt file: `{"prompt": "…", "response": "…"}`."""

    path: Path
    name: str  # `1700000000-1.json`, ready to print


@dataclass(frozen=True, slots=True)
class PublishedFolder:
    """A published job: manifest.json, responses.jsonl, and errors.jsonl if some lines failed."""

    path: Path
    name: str  # name for people, ready to print: `notes`, or `profile/notes` below the given DIR


Source = PromptFile | PublishedFolder | LeftOut


def find_sources(folder: Path, ignore: Path | None = None) -> list[Source]:
    """Return the sources in a DIR in a stable order: per-prompt files by time and number, then folders by name.

    Args:
        folder: a published folder, or one that contains per-prompt files, published folders, or both.
        ignore: a file that is not a source although it is there, such as the output of an earlier merge.

    Raises:
        InputError: If `folder` does not exist, is not a folder, cannot be read, or belongs to an unfinished job.
    """
    shown = printable(str(folder))
    if not folder.is_dir():
        if not folder.exists():
            raise InputError(f"there is no folder {shown}: give the folder that holds the answers")
        where = printable(str(folder.parent)) if _is_published(folder.parent) else "the folder that holds the answers"
        raise InputError(f"{shown} is not a folder: give {where}")
    name = folder.name or folder.resolve().name
    if name.endswith(UNFINISHED_SUFFIXES):
        raise InputError(f"{shown} holds no answers: read the folder beside it, without the ending, when that exists")
    if _is_published(folder):
        return [PublishedFolder(folder, printable(Path(os.path.abspath(folder)).name))]
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read {shown}: {error.strerror}") from error
    ignored = None if ignore is None else os.path.realpath(ignore)
    files = [entry for entry in entries if _is_prompt_file(entry) and os.path.realpath(entry.path) != ignored]
    published = list(_published_below(entries, ""))
    twins = {_stamp(item.path) for item in published if isinstance(item, PublishedFolder)}
    files = [file for file in files if file.name.partition("-")[0] not in twins]
    return [*(PromptFile(Path(file.path), printable(file.name)) for file in sorted(files, key=_order)), *published]


def _stamp(published: Path) -> str:
    """Return the second in the names of the files that `obcd batch --files` wrote: these are not separate sources."""
    try:
        return str(json.loads((published / STAMP).read_bytes())["epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _published_below(entries: list[os.DirEntry[str]], prefix: str) -> Iterator[Source]:
    """Yield the published folders among these entries and below them, depth first, in the order of names."""
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(UNFINISHED_SUFFIXES):
            continue
        if not entry.is_dir(follow_symlinks=False):  # a link could lead in a circle
            continue
        name = prefix + printable(entry.name)
        if _is_published(Path(entry.path)):
            yield PublishedFolder(Path(entry.path), name)
            continue
        try:
            inner = sorted(os.scandir(entry.path), key=lambda each: each.name)
        except OSError as error:
            if isinstance(error, PermissionError) and acl.readers(Path(entry.path)):
                continue  # another submitter's home
            yield LeftOut(f"{name}/", f"the folder cannot be read: {error.strerror}")
            continue
        yield from _published_below(inner, f"{name}/")


def _is_published(folder: Path) -> bool:
    """Return whether a folder has the files of a published job; if every line failed it may have no responses."""
    # os.path: files in a folder that this user may not enter count as missing.
    has_lines = any(os.path.isfile(folder / name) for name in ("responses.jsonl", "errors.jsonl"))
    return has_lines and os.path.isfile(folder / "manifest.json")


def _is_prompt_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(".json") and not entry.name.startswith(".") and entry.is_file()


def _order(entry: os.DirEntry[str]) -> tuple[bool, int, int, str]:
    """Sort `<epoch>-<n>.json` by its two numbers, any other name after them."""
    match = _NUMBERED.fullmatch(entry.name)
    if match is None:
        return (True, 0, 0, entry.name)
    return (False, int(match[1]), int(match[2]), entry.name)
