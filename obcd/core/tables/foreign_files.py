"""Files of other kinds, by their first bytes: what each is, and how to get text from it. Pure.

Sources: the formats' specifications, and the `magic` database of file(1).
"""

from __future__ import annotations

import re

_SHEET = 'save it as "CSV UTF-8" in the spreadsheet program (or make it .jsonl)'
_TEXT = "save it as plain text, then make prompts of it with obcd prepare"
_LINES = 'write its rows as JSON lines (in pandas: to_json("notes.jsonl", orient="records", lines=True))'
_UTF8 = "save it as UTF-8"

#: {first bytes: what such a file is}; none of them holds lines or rows. Longer beginnings come first.
MAGIC = {
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"\xfd7zXZ\x00": "an xz file: unpack it first, or add .xz to its name",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first, or add .zst to its name",
    b"BZh": "a bzip2 file: unpack it first, or pack it with gzip",
    b"\x04\x22\x4d\x18": "an lz4 file: unpack it first, or pack it with gzip",
    b"\x1f\x9d": "a file packed by compress: unpack it first, or pack it with gzip",
    b"]\x00\x00": "an lzma file: unpack it first, or pack it with xz",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip file: unpack it first",
    b"Rar!\x1a\x07": "a RAR file: unpack it first",
    b"\x00\x00\xfe\xff": f"UTF-32 text: {_UTF8}",
    b"\xff\xfe": f"UTF-16 text: {_UTF8}",
    b"\xfe\xff": f"UTF-16 text: {_UTF8}",
    b"PAR1": "a Parquet file: end its name in .parquet",
    b"ARROW1": "an Arrow file: save it as Parquet, or as JSON lines",
    b"\xff\xff\xff\xff": "an Arrow stream: save it as Parquet, or as JSON lines",
    b"FEA1": "a Feather file: save it as Parquet, or as JSON lines",
    b"Obj\x01": "an Avro file: save it as Parquet, or as JSON lines",
    b"ORC": "an ORC file: save it as Parquet, or as JSON lines",
    b"\x89HDF\r\n": f"an HDF5 file: {_LINES}",
    b"\x93NUMPY": f"a NumPy array: {_LINES}",
    **{bytes((0x80, version)): f"a Python pickle, which is never opened: {_LINES}" for version in range(2, 6)},
    b"SQLite format 3\x00": "an SQLite database: export a table as CSV (sqlite3 -header -csv FILE 'select …')",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": f"an old Office file (such as .xls): {_SHEET}",
    b"%PDF": f"a PDF, not JSONL: {_TEXT}",
    b"{\\rtf": f"an RTF document: {_TEXT}",
    b"GGUF": "the weights of a model, not prompts",
    b"\x7fELF": "a program, not JSONL",
    b"\x89PNG": "a picture, not JSONL: obcd prepare --images makes prompts of pictures",
    b"\xff\xd8\xff": "a picture, not JSONL: obcd prepare --images makes prompts of pictures",
    b"GIF8": "a picture, not JSONL",
    b"II*\x00": "a picture, not JSONL",
    b"MM\x00*": "a picture, not JSONL",
    b"OggS": "a recording, not JSONL",
    b"ID3": "a recording, not JSONL",
    b"fLaC": "a recording, not JSONL",
}
#: What a zip file is, by a name in it; the first match counts.
_ZIPPED = (
    (b"xl/", f"an Excel workbook: {_SHEET}"),
    (b"word/", f"a Word document: {_TEXT}"),
    (b"ppt/", f"a PowerPoint file: {_TEXT}"),
    (b"opendocument.spreadsheet", f"an OpenDocument spreadsheet: {_SHEET}"),
    (b"opendocument", f"an OpenDocument file: {_TEXT}"),
    (b"epub+zip", f"an e-book: {_TEXT}"),
    (b".npy", f"NumPy arrays: {_LINES}"),
    (b"/data.pkl", f"a PyTorch file: {_LINES}"),
)
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:(\?xml|\?mso)|!doctype html|html)", re.IGNORECASE)
#: UTF-16 without its mark, whose text begins with ASCII.
_UTF16 = re.compile(rb"(?:[\t\n\r -~]\0){8}|(?:\0[\t\n\r -~]){8}")
#: What a file is whose lines are not UTF-8 (`json_objects.parse_object`, `csv_reader`): Excel's plain "CSV" has the
#: encoding of its country.
OTHER_ENCODING = 'not UTF-8 (but Latin-1, perhaps): save it as UTF-8, a table as "CSV UTF-8"'
#: The bytes from the beginning that are needed.
HEAD_BYTES = 2**14


def foreign_format(head: bytes) -> str | None:
    """Return the kind of a file with this beginning, if it is known to hold neither lines nor rows."""
    if head.startswith(b"PK\x03\x04"):
        return next((what for part, what in _ZIPPED if part in head[:HEAD_BYTES]), "a zip file: unpack it first")
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head.startswith(b"RIFF") and head[8:12] in (b"WEBP", b"WAVE"):
        return "a picture or a recording, not JSONL"
    markup = _MARKUP.match(head[:200])
    if markup is not None:
        return f"XML: {_LINES}" if markup[1] else f"a web page: {_TEXT}"
    known = next((what for magic, what in MAGIC.items() if head.startswith(magic)), None)
    return known or (f"UTF-16 text: {_UTF8}" if _UTF16.match(head) else None)


#: {ending of a name: how to get text from such a file}, for names that are not those of drops.
_BY_NAME = {
    **dict.fromkeys(("xlsx", "xlsm", "xls", "ods", "numbers"), f"if it is a spreadsheet, {_SHEET}"),
    **dict.fromkeys(("docx", "doc", "odt", "rtf", "pdf", "epub", "html"), f"if it is a document, {_TEXT}"),
    **dict.fromkeys(("zip", "7z", "rar", "tar", "tgz", "bz2", "lz4", "lzma"), "unpack it, or pack it with gzip"),
    **dict.fromkeys(("pkl", "pickle", "npy", "npz", "h5", "hdf5"), _LINES),
    **dict.fromkeys(("arrow", "feather", "orc", "avro"), "save it as Parquet, or as JSON lines"),
    **dict.fromkeys(("db", "sqlite", "sqlite3"), "if it is a database, export a table as CSV"),
    **dict.fromkeys(("png", "jpg", "jpeg", "webp", "gif"), "obcd prepare --images makes prompts of pictures"),
}


def advice_by_name(name: str) -> str:
    """Return how to make prompts of a file that its name shows to be of another kind; "" if it shows none."""
    return _BY_NAME.get(name.rpartition(".")[2].lower(), "") if "." in name else ""
