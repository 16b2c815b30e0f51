from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from obcd.core.tables import csv_table
from obcd.core.tables.csv_reader import Sheet, to_csv
from obcd.core.tables.csv_table import MAX_COLUMNS
from obcd.errors import FormError
from tests.golden.wording import wording


def read(raw: bytes, delimiter: str = ",", most: int = 1000, block: int = 7) -> tuple[list[object], list[str], str]:
    def blocks() -> Iterator[bytes]:
        for start in range(0, len(raw), block):
            yield raw[start : start + block]

    sheet = Sheet(delimiter, most)
    rows = list(sheet.rows(blocks()))
    assert all(isinstance(json.loads(row.line), list) == bool(row.fault) for row in rows)
    return [json.loads(row.line) for row in rows], [row.fault for row in rows], sheet.cut


def test_rows_become_objects_by_the_names_of_the_header() -> None:
    found = read('\ufeffid,note\r\n1,"a ""b"",\r\nç"\r\n\r\n2,x'.encode())

    assert found == ([{"id": "1", "note": 'a "b",\r\nç'}, {"id": "2", "note": "x"}], ["", ""], "")


def test_row_of_too_many_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "MAX_ROW_LINES", 3)

    assert read(b'id,note\n1,"a\nb\nc"\n2,x\n')[1] == ["", ""]
    with pytest.raises(FormError, match=wording("has-more-than-3-lines")):
        read(b'id,note\n1,x\n2,"a\nb\nc\nd"\n')


def test_tabs_separate_in_tsv() -> None:
    assert read(b"a\tb\n1,5\t2\n", "\t")[0] == [{"a": "1,5", "b": "2"}]


def test_what_is_written_is_read_back() -> None:
    rows = [["", "a,b"], ["\r\n", '"'], ["x\r", "é"]]
    assert read(b"".join(to_csv(["p", "q"], rows)))[0] == [dict(zip("pq", row, strict=True)) for row in rows]
    assert read(b"".join(to_csv(["p"], [["x"], ["\ry"]])))[0] == [{"p": "x"}, {"p": "\ry"}]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"1,2,3\n", wording("it-has-3-fields-where-the")),
        (b"1\n", wording("it-has-1-fields-where-the")),
        (b"1,a\0b\n", wording("it-holds-a-nul-character-line")),
        (b"1,caf\xe9\n", wording("it-is-not-utf-8-save")),
        (b'1,"a"b\n', wording("it-is-no-csv-something-stands")),
        (b"1,a\rb\n", wording("it-is-no-csv-a-cr")),
    ],
)
def test_row_that_is_none_fails_alone_and_keeps_its_text(row: bytes, fault: str) -> None:
    documents, faults, cut = read(b"a,b\n1,2\n" + row + b"3,4\n")

    assert (faults, cut) == (["", fault, ""], "")
    text = row.decode("utf-8", "surrogateescape").rstrip("\n")
    assert documents == [{"a": "1", "b": "2"}, [text], {"a": "3", "b": "4"}]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", wording("it-is-empty-a-first-line")),
        (b"\n\n", wording("it-is-empty")),
        (b"a,b,a\n", wording("two-columns-of-its-header-are")),
        (b"a;b\n1;2\n", wording("its-header-has-semicolons-where-commas")),
        (b'\xef\xbb\xbf"a,b";"c"\n1;2\n', wording("its-header-has-semicolons-where-commas-2")),
        (b"a\tb\n1\t2\n", wording("its-header-has-tabs-where-commas")),
        (b"a\0,b\n", wording("its-header-the-first-line-is")),
        (b"caf\xe9,b\n", wording("its-header-the-first-line-is")),
        (b'"a"x,b\n', wording("its-header-the-first-line-is-2")),
        (b'"a,b\n1,2\n', wording("its-header-is-not-csv-a-quote")),
        (b"n" * 300 + b"\n", wording("the-name-of-column-1-is")),
        (b",".join(b"c%d" % n for n in range(MAX_COLUMNS + 1)), wording("columns-more-than", MAX_COLUMNS)),
        (b'a,b\n1,2\n3,"x\n' + b"y\n" * 20000, wording("the-row-that-begins-in-line")),
        (b"a,b\n" + b"x" * 30000, wording("the-row-that-begins-in-line-2")),
    ],
)
def test_file_that_is_no_table_is_refused_as_a_whole(raw: bytes, sentence: str) -> None:
    with pytest.raises(FormError) as error:
        read(raw, most=20000, block=4096)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (b'a,b\n1,"x', wording("its-last-row-from-line-2-2")),
        (b"a,b\n1,2\n3", wording("its-last-row-line-3-is")),
        (b"a,b", wording("its-header-the-first-line-has")),
        (b"a,b\n1,2\n3,", ""),
    ],
)
def test_end_that_looks_cut_off_is_told(raw: bytes, cut: str) -> None:
    assert read(raw)[2] == cut


@pytest.mark.parametrize(
    ("raw", "delimiter", "sentence"),
    [
        (b"a,b\n1,2\n", ";", wording("its-header-has-commas-where-semicolons")),
        (b"a;b\n1;2\n", ",", wording("its-header-has-semicolons-where-commas-3")),
        (b"a,b\n1,2\n", "\t", wording("its-header-has-commas-where-tabs")),
        (b"a;b\n1;2\n", "\t", wording("where-tabs-are-needed-name-the")),
    ],
)
def test_header_with_another_sign_between_its_names_says_how_to_name_it(
    raw: bytes, delimiter: str, sentence: str
) -> None:
    with pytest.raises(FormError) as error:
        read(raw, delimiter)
    assert sentence in str(error.value)


def test_signs_within_a_quoted_name_are_part_of_it() -> None:
    assert read(b'"a;b"\n1\n')[0] == [{"a;b": "1"}]
    assert read(b"a;b\n1;2,5\n", ";")[0] == [{"a": "1", "b": "2,5"}]
