"""What the name of a dropped file determines: the name of its job, and the format of its lines.

notes.jsonl   notes.json   notes.csv   notes.tsv   notes.parquet   notes.jsonl.gz   notes.csv.xz      all: job `notes`

The case of an ending does not matter: `VISITS.CSV`, as Excel and old systems name files, is CSV. `.ndjson`, `.jl` and
`.jsonlines` are other names of `.jsonl`. A file of JSON is opened by its first bytes (`json_shape`), whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

SUFFIX = ".jsonl"
JSONL, JSON, CSV, TSV, PARQUET, GZ, XZ, ZST = "jsonl", "json", "csv", "tsv", "parquet", "gz", "xz", "zst"
#: All words of `accept`, in the order in which messages name them.
WORDS = (JSONL, JSON, CSV, TSV, PARQUET, GZ, XZ, ZST)
#: {kind of a table: the default character between its fields}
DELIMITERS = {CSV: ",", TSV: "\t"}
_JSONL_ENDINGS = ("jsonl", "ndjson", "jl", "jsonlines")
_TEXTS, _PACKINGS = "|".join((*_JSONL_ENDINGS, JSON, CSV, TSV)), "|".join((GZ, XZ, ZST))
#: The end of a drop's name, as a pattern.
ENDING = rf"(?i:\.(?:(?:{_TEXTS})(?:\.(?:{_PACKINGS}))?|parquet))"
_NAME = re.compile(
    rf"(?P<stem>.+)\.(?:(?P<text>{_TEXTS})(?:\.(?P<packing>{_PACKINGS}))?|(?P<whole>parquet))",
    re.DOTALL | re.IGNORECASE,
)
#: {word of `accept`: what such a file is}
_NAMES = {
    JSON: "a JSON file",
    CSV: "CSV",
    TSV: "CSV with tabs",
    PARQUET: "Parquet",
    GZ: "a file packed by gzip",
    XZ: "a file packed by xz",
    ZST: "a file packed by zstd",
}
#: {word of `accept`: (modules of which one is needed, the extra that has it)}
_EXTRAS = {PARQUET: (("pyarrow",), "parquet"), ZST: (("compression.zstd", "backports.zstd"), "zst")}


@dataclass(frozen=True, slots=True)
class Form:
    """The format of a file's lines, by its name.

    Attributes:
        kind: `jsonl`, `json`, `csv`, `tsv` or `parquet`.
        packing: `gz`, `xz` or `zst`; "" if it is not packed.
    """

    kind: str = JSONL
    packing: str = ""

    @property
    def is_packed(self) -> bool:
        """Whether it is unpacked before it is read."""
        return self.packing != ""

    @property
    def is_json(self) -> bool:
        """Whether it holds JSON; its first bytes determine whether that is a value a line."""
        return self.kind in (JSONL, JSON)

    @property
    def is_plain(self) -> bool:
        """Whether its lines can be used without conversion."""
        return self.is_json and not self.is_packed

    def delimiter(self, chosen: str = "") -> str:
        """Return the character between the fields of a table; for CSV it may be chosen, in TSV it is a tab."""
        return chosen if chosen and self.kind == CSV else DELIMITERS[self.kind]

    @property
    def words(self) -> list[str]:
        """What `accept` must have for such a file to be accepted; JSONL always is."""
        return [word for word in (self.kind, self.packing) if word not in (JSONL, "")]

    def lacking(self, accepts: Set[str]) -> list[str]:
        """Return what `accept` lacks for such a file to be accepted."""
        return [word for word in self.words if word not in accepts]


def form_of(name: str) -> Form | None:
    """Return the form of a file of this name, or None if the name is not that of a drop."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    kind = (match["text"] or match["whole"]).lower()
    return Form(JSONL if kind in _JSONL_ENDINGS else kind, (match["packing"] or "").lower())


def stem_of(name: str) -> str:
    """Return the name of a drop's job: `notes` for `notes.csv.gz`."""
    match = _NAME.fullmatch(name)
    return match["stem"] if match else name


def kept_name(name: str) -> str:
    """Return the name under which a drop of this name is kept unchanged: `input.csv.gz`."""
    form = form_of(name) or Form()
    return ".".join(filter(None, ("input", form.kind, form.packing)))


def why_not_taken(name: str, accepts: Set[str]) -> str:
    """Return why a drop of this name is not accepted because of its form, or "" if it is accepted."""
    form = form_of(name)
    if form is None:
        return ""
    lacking = form.lacking(accepts)
    if not lacking:
        return why_no_reader(form)
    instead = "unpack it"
    if lacking[0] not in (GZ, XZ, ZST):
        instead = "make it .jsonl (obcd convert where a column is `prompt`, else obcd prepare --column NAME)"
    if lacking[0] in (JSON, PARQUET):
        instead = "make it .jsonl (obcd convert)"
    return f"{_NAMES[lacking[0]]} is not accepted here: {how_to_accept(accepts, lacking)}, or {instead}"


def how_to_accept(accepts: Set[str], lacking: Iterable[str]) -> str:
    """Return what the administrator can do for files of these kinds."""
    wanted = ", ".join(f'"{word}"' for word in sorted({JSONL, *accepts, *lacking}, key=WORDS.index))
    return f"let the profile accept it (accept = [{wanted}])"


def why_no_reader(form: Form) -> str:
    """Return which extra of obcd is missing to read such a file, or "" if nothing is."""
    for word in form.words:
        modules, extra = _EXTRAS.get(word, ((), ""))
        if modules and not any(map(_has_module, modules)):
            return f"{_NAMES[word]} needs an extra of obcd: pip install 'obcd[{extra}]' (where obcd runs)"
    return ""


@cache
def _has_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent package
        return False


def is_delimiter(text: str) -> bool:
    """Return whether a text can be the character between the fields of CSV."""
    return len(text) == 1 and text not in '"\r\n\0\ufeff'
