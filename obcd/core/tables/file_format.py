"""What a dropped file's name says of it: how its job is called, and in which form its lines come.

notes.jsonl   notes.csv   notes.tsv   notes.jsonl.gz   notes.csv.gz   notes.tsv.gz        all of them: job `notes`

An ending counts in any case: what Excel and old systems call `VISITS.CSV` is CSV.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

SUFFIX = ".jsonl"
JSONL, CSV, TSV, GZ = "jsonl", "csv", "tsv", "gz"
#: {kind of a table: what stands between its fields, where nothing else is said}
DELIMITERS = {CSV: ",", TSV: "\t"}
#: The end of a drop's name, as a pattern.
ENDING = r"(?i:\.(?:jsonl|csv|tsv)(?:\.gz)?)"
_NAME = re.compile(r"(?P<stem>.+)\.(?P<form>jsonl|csv|tsv)(?P<packed>\.gz)?", re.DOTALL | re.IGNORECASE)
#: What helps who has one JSON array where lines are needed.
ARRAY_ADVICE = "a JSON array becomes lines by jq -c '.[]' FILE"
#: {first bytes: what such a file is}; none of them holds lines or rows.
MAGIC = {
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"PK\x03\x04": "a zip file: unpack it first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    b"\x7fELF": "a program, not JSONL",
    b"\x89PNG": "a picture, not JSONL",
    b"%PDF": "a PDF, not JSONL",
}


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a file's lines come: `jsonl`, `csv` or `tsv`, packed by gzip or not."""

    kind: str = JSONL
    is_packed: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether its lines are taken as they are."""
        return self == Form()

    def delimiter(self, chosen: str = "") -> str:
        """Return what stands between the fields of a table; CSV's may be chosen, in TSV it is a tab."""
        return chosen if chosen and self.kind == CSV else DELIMITERS[self.kind]

    def lacking(self, accepts: Set[str]) -> list[str]:
        """Return what `accept` has to name, beside what it does, for such a file to be taken; JSONL always is."""
        needed = ([self.kind] if self.kind != JSONL else []) + ([GZ] if self.is_packed else [])
        return [word for word in needed if word not in accepts]


def form_of(name: str) -> Form | None:
    """Return the form of a file of this name, None if no drop is called so."""
    match = _NAME.fullmatch(name)
    return Form(match["form"].lower(), match["packed"] is not None) if match else None


def stem_of(name: str) -> str:
    """Return the name of a drop's job: `notes` of `notes.csv.gz`."""
    match = _NAME.fullmatch(name)
    return match["stem"] if match else name


def kept_name(name: str) -> str:
    """Return what a drop of this name is called where it is kept as it came: `input.csv.gz`."""
    form = form_of(name) or Form()
    return f"input.{form.kind}{'.gz' if form.is_packed else ''}"


def why_not_taken(name: str, accepts: Set[str]) -> str:
    """Return why a drop of this name is not taken, as far as its form goes; "" if it is."""
    form = form_of(name)
    lacking = form.lacking(accepts) if form is not None else []
    if not lacking:
        return ""
    wanted = ", ".join(f'"{word}"' for word in sorted({JSONL, *accepts, *lacking}, key=(JSONL, CSV, TSV, GZ).index))
    what = {CSV: "CSV", TSV: "CSV with tabs", GZ: "a file packed by gzip"}[lacking[0]]
    instead = "unpack it"
    if lacking[0] != GZ:
        instead = "make it .jsonl (obcd convert where a column is `prompt`, else obcd prepare --column NAME)"
    return f"{what} is not taken here: let the profile take it (accept = [{wanted}]), or {instead}"


def foreign_format(block: bytes) -> str | None:
    """Return what a file is that begins like this, where it is known to be no JSONL or CSV."""
    return next((what for magic, what in MAGIC.items() if block.startswith(magic)), None)


def is_delimiter(text: str) -> bool:
    """Return whether a text can stand between the fields of CSV."""
    return len(text) == 1 and text not in '"\r\n\0\ufeff'
