from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from obcd.core.tables.csv_reader import MAX_COLUMNS, Sheet, to_csv
from obcd.errors import FormError


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


def test_tabs_separate_in_tsv() -> None:
    assert read(b"a\tb\n1,5\t2\n", "\t")[0] == [{"a": "1,5", "b": "2"}]


def test_what_is_written_is_read_back() -> None:
    rows = [["", "a,b"], ["\r\n", '"'], ["x\r", "é"]]
    assert read(b"".join(to_csv(["p", "q"], rows)))[0] == [dict(zip("pq", row, strict=True)) for row in rows]
    assert read(b"".join(to_csv(["p"], [[""], ["\r"]])))[0] == [{"p": ""}, {"p": "\r"}]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"1,2,3\n", "it has 3 fields where the header has 2 (line 3 of the file)"),
        (b"1\n", "it has 1 fields where the header has 2 (line 3 of the file)"),
        (b"1,a\0b\n", "it holds a NUL character (line 3 of the file)"),
        (b"1,caf\xe9\n", "it is not UTF-8: save the file as UTF-8 (line 3 of the file)"),
        (b'1,"a"b\n', "it is no CSV: something stands behind a closing quote (line 3 of the file)"),
        (b"1,a\rb\n", "it is no CSV: a CR stands alone in it: end lines with LF, or CR and LF (line 3 of the file)"),
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
        (b"", "it is empty: a first line with the names of the columns is needed"),
        (b"\n\n", "it is empty"),
        (b"a,,b\n", "column 2 of its header has no name"),
        (b"a,b,a\n", "two columns of its header are named `a`: rename one"),
        (b"a;b\n1;2\n", "its header has semicolons where commas are needed"),
        (
            b'\xef\xbb\xbf"a,b";"c"\n1;2\n',
            'its header has semicolons where commas are needed: say so (delimiter = ";" in',
        ),
        (b"a\tb\n1\t2\n", "its header has tabs where commas are needed: name the file .tsv"),
        (b"a\0,b\n", "its header (the first line) is not UTF-8"),
        (b"caf\xe9,b\n", "its header (the first line) is not UTF-8"),
        (b'"a"x,b\n', "its header (the first line) is no CSV: something stands behind a closing quote"),
        (b'"a,b\n1,2\n', "its header (the first line) is no CSV: a quote is not closed"),
        (b"n" * 300 + b"\n", "the name of column 1 is longer than 200 characters"),
        (b",".join(b"c%d" % n for n in range(MAX_COLUMNS + 1)), f"columns, more than {MAX_COLUMNS}"),
        (b'a,b\n1,2\n3,"x\n' + b"y\n" * 20000, "the row that begins in line 3 is longer than 20000 bytes"),
        (b"a,b\n" + b"x" * 30000, "the row that begins in line 2 is longer than 20000 bytes ([spool] max_line_bytes)"),
    ],
)
def test_file_that_is_no_table_is_refused_as_a_whole(raw: bytes, sentence: str) -> None:
    with pytest.raises(FormError) as error:
        read(raw, most=20000, block=4096)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("raw", "cut"),
    [
        (b'a,b\n1,"x\ny', "its last row, from line 2 on, ends within quotes"),
        (b"a,b\n1,2\n3", "its last row (line 3) is cut off"),
        (b"a,b", "its header (the first line) has no end"),
        (b"a,b\n1,2\n3,", ""),
    ],
)
def test_end_that_looks_cut_off_is_told(raw: bytes, cut: str) -> None:
    assert read(raw)[2] == cut


@pytest.mark.parametrize(
    ("raw", "delimiter", "sentence"),
    [
        (b"a,b\n1,2\n", ";", 'its header has commas where semicolons are needed: say so (delimiter = "," in'),
        (b"a;b\n1;2\n", ",", "--delimiter ';' on command lines)"),
        (b"a,b\n1,2\n", "\t", "its header has commas where tabs are needed: name the file .csv"),
        (b"a;b\n1;2\n", "\t", 'where tabs are needed: name the file .csv and say so (delimiter = ";" in'),
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
