"""What the name of a dropped file determines: the name of its job, and the format of its lines.

notes.jsonl   notes.csv   notes.tsv   notes.jsonl.gz   notes.csv.gz   notes.tsv.gz        all of them: job `notes`

The case of an ending does not matter: `VISITS.CSV`, as Excel and old systems name files, is CSV.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

SUFFIX = ".jsonl"
JSONL, CSV, TSV, GZ = "jsonl", "csv", "tsv", "gz"
#: {kind of a table: the default character between its fields}
DELIMITERS = {CSV: ",", TSV: "\t"}
#: The end of a drop's name, as a pattern.
ENDING = r"(?i:\.(?:jsonl|csv|tsv)(?:\.gz)?)"
_NAME = re.compile(r"(?P<stem>.+)\.(?P<form>jsonl|csv|tsv)(?P<packed>\.gz)?", re.DOTALL | re.IGNORECASE)
#: Advice for a JSON array where lines are needed.
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
    """The format of a file's lines: `jsonl`, `csv` or `tsv`, packed by gzip or not."""

    kind: str = JSONL
    is_packed: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether its lines are used without conversion."""
        return self == Form()

    def delimiter(self, chosen: str = "") -> str:
        """Return the character between the fields of a table; for CSV it may be chosen, in TSV it is a tab."""
        return chosen if chosen and self.kind == CSV else DELIMITERS[self.kind]

    def lacking(self, accepts: Set[str]) -> list[str]:
        """Return what `accept` lacks for such a file to be accepted; JSONL always is."""
        needed = ([self.kind] if self.kind != JSONL else []) + ([GZ] if self.is_packed else [])
        return [word for word in needed if word not in accepts]


def form_of(name: str) -> Form | None:
    """Return the form of a file of this name, or None if the name is not that of a drop."""
    match = _NAME.fullmatch(name)
    return Form(match["form"].lower(), match["packed"] is not None) if match else None


def stem_of(name: str) -> str:
    """Return the name of a drop's job: `notes` for `notes.csv.gz`."""
    match = _NAME.fullmatch(name)
    return match["stem"] if match else name


def kept_name(name: str) -> str:
    """Return the name under which a drop of this name is kept unchanged: `input.csv.gz`."""
    form = form_of(name) or Form()
    return f"input.{form.kind}{'.gz' if form.is_packed else ''}"


def why_not_taken(name: str, accepts: Set[str]) -> str:
    """Return why a drop of this name is not accepted because of its form, or "" if it is accepted."""
    form = form_of(name)
    lacking = form.lacking(accepts) if form is not None else []
    if not lacking:
        return ""
    wanted = ", ".join(f'"{word}"' for word in sorted({JSONL, *accepts, *lacking}, key=(JSONL, CSV, TSV, GZ).index))
    what = {CSV: "CSV", TSV: "CSV with tabs", GZ: "a file packed by gzip"}[lacking[0]]
    instead = "unpack it"
    if lacking[0] != GZ:
        instead = "make it .jsonl (obcd convert where a column is `prompt`, else obcd prepare --column NAME)"
    return f"{what} is not accepted here: let the profile accept it (accept = [{wanted}]), or {instead}"


def foreign_format(block: bytes) -> str | None:
    """Return the kind of a file with this beginning, if it is known not to be JSONL or CSV."""
    return next((what for magic, what in MAGIC.items() if block.startswith(magic)), None)


def is_delimiter(text: str) -> bool:
    """Return whether a text can be the character between the fields of CSV."""
    return len(text) == 1 and text not in '"\r\n\0\ufeff'
