"""What a dropped file's name says of it: how its job is called, and in which form its lines come.

notes.jsonl   notes.csv   notes.tsv   notes.jsonl.gz   notes.csv.gz   notes.tsv.gz        all of them: job `notes`
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

SUFFIX = ".jsonl"
JSONL, CSV, TSV, GZ = "jsonl", "csv", "tsv", "gz"
#: {kind of a table: what stands between its fields}
DELIMITERS = {CSV: ",", TSV: "\t"}
#: The end of a drop's name, as a pattern.
ENDING = r"\.(?:jsonl|csv|tsv)(?:\.gz)?"
_NAME = re.compile(r"(?P<stem>.+)\.(?P<form>jsonl|csv|tsv)(?P<packed>\.gz)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a file's lines come: `jsonl`, `csv` or `tsv`, packed by gzip or not."""

    kind: str = JSONL
    is_packed: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether its lines are taken as they are."""
        return self == Form()

    def lacking(self, accepts: Set[str]) -> list[str]:
        """Return what `accept` has to name, beside what it does, for such a file to be taken; JSONL always is."""
        needed = ([self.kind] if self.kind != JSONL else []) + ([GZ] if self.is_packed else [])
        return [word for word in needed if word not in accepts]


def form_of(name: str) -> Form | None:
    """Return the form of a file of this name, None if no drop is called so."""
    match = _NAME.fullmatch(name)
    return Form(match["form"], match["packed"] is not None) if match else None


def stem_of(name: str) -> str:
    """Return the name of a drop's job: `notes` of `notes.csv.gz`."""
    match = _NAME.fullmatch(name)
    return match["stem"] if match else name


def why_not_taken(name: str, accepts: Set[str]) -> str:
    """Return why a drop of this name is not taken, as far as its form goes; "" if it is."""
    form = form_of(name)
    lacking = form.lacking(accepts) if form is not None else []
    if not lacking:
        return ""
    wanted = ", ".join(f'"{word}"' for word in sorted({JSONL, *accepts, *lacking}, key=(JSONL, CSV, TSV, GZ).index))
    what = {CSV: "CSV", TSV: "CSV with tabs", GZ: "a file packed by gzip"}[lacking[0]]
    return f"{what} is not taken here: let the profile take it (accept = [{wanted}]), or make it .jsonl (obcd convert)"
