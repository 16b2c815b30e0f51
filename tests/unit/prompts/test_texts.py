from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.prompts import texts
from obcd.prompts.texts import (
    Columns,
    Prompt,
    csv_columns,
    prompt_from_file,
    prompts_from_csv,
    prompts_from_folder,
    prompts_from_lines,
)
from obcd.text_files import LeftOut
from tests.golden.wording import wording


def shown(items: object) -> list[tuple[object, str]]:
    """Return (id, text) of prompts and (place, reason) of what was left out."""
    assert hasattr(items, "__iter__")
    return [(item.id, item.text) if isinstance(item, Prompt) else (item.place, item.reason) for item in items]


def rows(data: bytes | str, columns: Columns, name: str = "visits.csv") -> list[Prompt | LeftOut]:
    raw = data if isinstance(data, bytes) else data.encode()
    return list(prompts_from_csv(io.BytesIO(raw), name, columns))


def test_folder_gives_its_text_files_by_name_with_their_paths_as_ids(tmp_path: Path) -> None:
    for name in ["b.txt", "a.md", "ward/2.TXT", "ward/10.txt", "no.csv", ".hidden.txt", ".git/x.txt"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}\n\n")

    assert shown(prompts_from_folder(tmp_path)) == [
        ("a.md", "text of a.md"),
        ("b.txt", "text of b.txt"),
        ("ward/10.txt", "text of ward/10.txt"),
        ("ward/2.TXT", "text of ward/2.TXT"),
    ]


@pytest.mark.parametrize(("glob", "ids"), [("*.rst", ["a.rst", "w/b.rst"]), ("w/*", ["w/b.rst", "w/c.txt"]), ("x", [])])
def test_globs_choose_files_by_name_or_path(tmp_path: Path, glob: str, ids: list[str]) -> None:
    (tmp_path / "w").mkdir()
    for name in ["a.rst", "w/b.rst", "w/c.txt"]:
        (tmp_path / name).write_text("x")

    assert [place for place, _ in shown(prompts_from_folder(tmp_path, (glob,)))] == ids


def test_what_is_no_text_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "b.txt").write_bytes(b" \n")
    (tmp_path / "c.txt").symlink_to("b.txt")
    (tmp_path / "d").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "e.txt")
    (tmp_path / "f.txt").write_text("fine")
    (tmp_path / "g.txt").write_bytes("fine".encode("utf-16-le"))
    (tmp_path / "h\x1b.txt").write_bytes(b"")

    assert shown(prompts_from_folder(tmp_path)) == [
        ("a.txt", wording("it-is-not-utf-8-byte")),
        ("b.txt", wording("it-is-empty")),
        ("c.txt", wording("it-is-a-symbolic-link-which")),
        ("d", wording("it-is-a-symbolic-link-which")),
        ("e.txt", wording("it-is-not-a-regular-file-2")),
        ("f.txt", "fine"),
        ("g.txt", wording("it-is-no-text-it-holds")),
        (r"h\x1b.txt", wording("it-is-empty")),
    ]


def test_file_name_that_is_not_utf_8_still_gives_an_id_of_plain_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    path.write_text("x")

    assert shown(prompts_from_folder(tmp_path)) == [("caf\\udce9.txt", "x")]


def test_text_file_keeps_all_but_its_last_line_breaks_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf  one\r\n\r\ntwo \r\n\n")

    assert shown([prompt_from_file(tmp_path / "a.txt", "a.txt")]) == [("a.txt", "  one\r\n\r\ntwo ")]


def test_text_above_the_limit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 4)
    (tmp_path / "a.txt").write_text("12345")

    assert shown([prompt_from_file(tmp_path / "a.txt", "a.txt")]) == [("a.txt", wording("it-is-longer-than-0-mib"))]
    assert shown(prompts_from_lines(io.BytesIO(b"12345678901\n1234\n"))) == [
        ("line 1", wording("it-is-longer-than-0-mib")),
        (2, "1234"),
    ]


def test_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        list(prompts_from_folder(tmp_path / "no"))


def test_lines_are_numbered_with_the_blank_ones_and_split_at_lf_only() -> None:
    stream = io.BytesIO("\ufeffone\r\n\n  \ntwo\u2028still two\rand still\n".encode() + b"\xff\nlast")

    assert shown(prompts_from_lines(stream)) == [
        (1, "one"),
        (4, "two\u2028still two\rand still"),
        ("line 5", wording("it-is-not-utf-8-byte-2")),
        (6, "last"),
    ]


def test_csv_column_gives_prompts_with_row_numbers() -> None:
    data = '\ufeffmrn,note\n1,"two\nlines, ""quoted"""\n\n2,short\n'

    assert shown(rows(data, Columns(text="note"))) == [(1, 'two\nlines, "quoted"'), (2, "short")]


def test_csv_id_and_kept_columns() -> None:
    data = "mrn,note,ward,model,_model\n007,text,3b,theirs,x\n"

    [prompt] = rows(data, Columns(text="note", id="mrn", keep=True))

    assert prompt == Prompt("007", "text", "visits.csv row 1", {"ward": "3b", "__model": "theirs", "_model": "x"})


def test_csv_first_column_with_a_byte_order_mark_is_found() -> None:
    assert shown(rows(b"\xef\xbb\xbfnote;x\r\nhi;1\r\n", Columns(text="note", delimiter=";"))) == [(1, "hi")]


def test_csv_field_above_the_modules_limit_works() -> None:
    csv.field_size_limit(128 * 1024)
    long = "x" * 300_000

    assert shown(rows(f"note\n{long}\n", Columns(text="note"))) == [(1, long)]


def test_csv_rows_that_do_not_fit_are_left_out_by_number() -> None:
    data = "a,note\n1,fine\n2\n3,x,y\n4, \n5,fine too\n"

    assert shown(rows(data, Columns(text="note"))) == [
        (1, "fine"),
        ("visits.csv row 2", wording("it-has-1-fields-where-the-2")),
        ("visits.csv row 3", wording("it-has-3-fields-where-the-2")),
        ("visits.csv row 4", wording("it-is-empty")),
        (5, "fine too"),
    ]


@pytest.mark.parametrize(
    ("data", "columns", "reason"),
    [
        (b"a,b\n1,2\n", Columns(text="note"), wording("no-column-named-note-its-columns")),
        (b"", Columns(text="note"), wording("it-is-empty-a-first-line")),
        (b"note,b\n1,2\n", Columns(text="note", id="mrn"), "no column named mrn"),
        (b"note,note\n1,2\n", Columns(text="note"), wording("more-than-one-column-named-note")),
        (b"note,w,w\n1,2,3\n", Columns(text="note", keep=True), wording("keep-cannot-tell-them-apart")),
        (b'note,b\n1,"never ends\n2,3\n', Columns(text="note"), "from line 2 on, ends within quotes"),
        (b"note\ncaf\xe9\n", Columns(text="note"), "not UTF-8"),
    ],
)
def test_csv_that_cannot_be_used_is_an_input_error(data: bytes, columns: Columns, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        rows(data, columns)


def test_csv_columns_for_a_message() -> None:
    assert csv_columns(io.BytesIO(b"\xef\xbb\xbfa,b\r\n1,2\r\n"), ",") == ["a", "b"]
