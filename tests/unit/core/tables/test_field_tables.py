"""Tables as Excel, pandas, old systems and sets of language data write them; cases by their numbers in the field."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from obcd.core.tables import csv_table
from obcd.core.tables.csv_lines import PADDING_BYTES, find_separator, without_ctrl_z
from obcd.core.tables.csv_reader import Sheet
from obcd.errors import CutOffError, FormError
from tests.golden.wording import wording


def blocks_of(raw: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(raw), size):
        yield raw[start : start + size]


def read(raw: bytes | str, delimiter: str = ",", quotes: bool | None = None) -> tuple[list[Any], Sheet]:
    """Return the rows, the same for blocks of any size, and the sheet."""
    data = raw.encode() if isinstance(raw, str) else raw
    found: list[Any] = []
    sheet = Sheet(delimiter, 2**20, quotes)
    for size in (1, 7, 2**20):
        sheet = Sheet(delimiter, 2**20, quotes)
        rows = [json.loads(row.line) for row in sheet.rows(blocks_of(data, size))]
        assert not found or rows == found
        found = rows
    return found, sheet


def refusal(raw: str, delimiter: str = ",", quotes: bool | None = None) -> FormError:
    with pytest.raises(FormError) as error:
        read(raw, delimiter, quotes)
    return error.value


def test_r36_rows_without_a_text_are_nothing() -> None:
    rows, sheet = read("id,prompt,ward\n" + ",,\n" * 100 + "1,a,\n2,b,\n ,\t,\n" + ",,\n" * 100 + "3,c,\n\n  \n")

    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert sheet.cut == ""


@pytest.mark.parametrize(
    "raw",
    [
        "id,prompt,,,\n1,a,,,\n2,b,,,\n",
        ",,\n,,\nid,prompt,\n1,a,\n2,b\n",
        "id,prompt\n1,a,,,\n2,b,\n",
        "id, ,prompt\n1,,a\n2, ,b\n",
        "id,prompt" + "," * 16382 + "\n1,a" + "," * 16382 + "\n2,b\n",
    ],
)
def test_r36_columns_without_a_name_and_without_a_text_are_nothing(raw: str) -> None:
    rows, sheet = read(raw)

    assert rows == [{"id": "1", "prompt": "a"}, {"id": "2", "prompt": "b"}]
    assert (sheet.nameless, sheet.header) == ({}, ["id", "prompt"])


def test_r37_index_without_a_name_is_column_1() -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([["", "prompt"], [0, "a"], [1, "b"], [2, "c"]])  # as pandas writes a frame

    rows, sheet = read(out.getvalue())

    assert rows == [{"column_1": str(number), "prompt": text} for number, text in enumerate("abc")]
    assert (sheet.nameless, sheet.header) == ({"column_1": 1}, ["column_1", "prompt"])


def test_column_without_a_name_takes_none_that_is_there() -> None:
    rows, sheet = read("column_1,prompt,,column_3\nx,a,,\nx,b,left,\n")

    assert rows[1] == {"column_1": "x", "prompt": "b", "_column_3": "left", "column_3": ""}
    assert sheet.nameless == {"_column_3": 2}


def test_cells_beyond_the_header_are_a_fault_of_their_row() -> None:
    assert read("id,prompt\n1,a,left\n2,b\n")[0] == [["1,a,left"], {"id": "2", "prompt": "b"}]


@pytest.mark.parametrize(
    ("line", "separator"),
    [
        ("sep=,\n", ","),
        ("sep=;\r\n", ";"),
        ('"sep=|"\r\n', "|"),
        ("SEP=\t\n", "\t"),
        ("sep=\\t\n", "\t"),
        ("sep=;;;\n", ";"),
        ("sep=x\n", ""),
        ("sep=\n", ""),
        ("separator,b\n", ""),
        ("sep=,b\n", ""),
    ],
)
def test_r38_first_line_names_the_delimiter(line: str, separator: str) -> None:
    assert find_separator(line.encode()) == separator
    if separator:
        raw = f"\ufeff{line}id{separator}prompt\n1{separator}a\n"
        rows, sheet = read(raw, "," if separator == ";" else ";")
        assert rows == [{"id": "1", "prompt": "a"}]
        assert sheet.cut == ""


def test_lines_are_numbered_with_the_line_that_names_the_delimiter() -> None:
    rows = list(Sheet(",", 100).rows([b"sep=;\nid;prompt\n1;a;b\n"]))

    assert "(line 3 of the file)" in rows[0].fault


@pytest.mark.parametrize("end", ["\x1a", "\n\x1a", "\r\n\x1a\x1a\x1a", "\n\x1a\0\0\0", "\n\x1a\r\n", "\x1a" * 1000])
def test_ctrl_z_ends_the_file(end: str) -> None:
    rows, sheet = read("id,prompt\r\n1,a\r\n2,b" + end)

    assert rows == [{"id": "1", "prompt": "a"}, {"id": "2", "prompt": "b"}]
    assert sheet.cut == ""


def test_ctrl_z_before_other_content_is_content() -> None:
    assert read("id,prompt\n1,a\x1ab\n\x1a\n2,c\n")[0] == [
        {"id": "1", "prompt": "a\x1ab"},
        ["\x1a"],
        {"id": "2", "prompt": "c"},
    ]
    raw = b"\x1a" * (3 * PADDING_BYTES)
    assert b"".join(without_ctrl_z(blocks_of(raw, 4096))).startswith(b"\x1a" * PADDING_BYTES)
    assert b"".join(without_ctrl_z([b"\x1a"])) == b""


@pytest.mark.parametrize(
    "raw", ['id,prompt\r1,a\r2,"b\rb"\r', 'sep=;\rid;prompt\r1;a\r2;"b\rb"', '"id",prompt\r1,a\r2,"b\rb"']
)
def test_lines_that_end_in_cr_alone_are_lines(raw: str) -> None:
    assert read(raw)[0] == [{"id": "1", "prompt": "a"}, {"id": "2", "prompt": "b\nb"}]


def test_cr_within_the_quotes_of_a_header_ends_no_line() -> None:
    assert read('id,"a\rb"\n1,x\n')[0] == [{"id": "1", "a\rb": "x"}]


GLUE = [
    ("index", "sentence1", "prompt"),
    ("7", "plain", "text"),
    ("8", '"No, he said.', "open at its beginning"),
    ("9", 'He said "no', "x"),
    ("10", '"Yes" and "no', "text behind a quote"),
    ("11", 'closed here"', '"'),
    ("12", '"whole"', "y"),
    ("13", '5" pipe', 'and "'),
]


def table_of(rows: Sequence[tuple[str, ...]], delimiter: str = "\t") -> str:
    return "".join(delimiter.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("quotes", [None, False])
def test_r39_every_row_with_quotes_in_its_text_is_one_request(quotes: bool | None) -> None:
    rows, _ = read(table_of(GLUE), "\t", quotes)

    assert rows == [dict(zip(GLUE[0], row, strict=True)) for row in GLUE[1:]]


@pytest.mark.parametrize("seed", range(4))
def test_r39_balanced_by_chance_joins_no_rows(seed: int) -> None:
    texts = ['"opens', '"both"', 'closes"', "neither", 'in "the" middle'][seed:]
    rows = [("id", "prompt", "label"), *((str(number), texts[number % len(texts)], "0") for number in range(50))]

    found, _ = read(table_of(rows), "\t")

    assert [row["prompt"] for row in found] == [row[1] for row in rows[1:]]


@pytest.mark.parametrize(
    "texts",
    [
        ['"opens', "x", 'closes"'],  # one cell by RFC 4180, and three rows
        ['5" pipe', '"whole"', '"also"'],  # a quote in a cell without quotes around it, before the first one with
        ['"whole"', '5" pipe', "x"],
    ],
)
def test_each_sign_that_quotes_are_text_counts(texts: list[str]) -> None:
    found, _ = read(table_of([("id", "prompt"), *((str(number), text) for number, text in enumerate(texts))]), "\t")

    assert [row["prompt"] for row in found] == texts


def test_doubled_quotes_say_that_quotes_enclose_cells() -> None:
    raw = 'id\tprompt\n1\t"5"" pipe"\n2\t"6"" pipe"\n3\t"whole"\n4\t7" pipe\n'

    assert [row["prompt"] for row in read(raw, "\t")[0]] == ['5" pipe', '6" pipe', "whole", '7" pipe']


def test_tabs_and_line_breaks_within_quotes_are_text_where_quotes_enclose_cells() -> None:
    rows = [["id", "prompt", "label"]] + [[str(n), 'tab\there\nline "two"\n\nfour', "a\nb"] for n in range(30)]
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\r\n").writerows(rows)

    assert read(out.getvalue(), "\t")[0] == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_header_with_quotes_says_that_quotes_enclose_cells() -> None:
    rows = [["id", "prompt"], ["1", "a\n2\tb"], ["3", '"']]
    out = io.StringIO()
    csv.writer(out, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)

    assert read(out.getvalue(), "\t")[0] == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_column_alone_keeps_its_lines_within_quotes() -> None:
    assert read('prompt\n"one\ntwo"\nthree\n', "\t")[0] == [{"prompt": "one\ntwo"}, {"prompt": "three"}]


def test_quote_far_behind_the_window_joins_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_table, "WINDOW_BYTES", 200)
    rows = [("id", "prompt"), ("0", '"whole"'), *((str(number), "text") for number in range(1, 99))]
    broken = [*rows, ("99", '"opens'), ("100", "x"), ("101", 'closes"'), ("102", "y")]

    error = refusal(table_of(broken), "\t")

    assert wording("a-quote-makes-one-row-of", 101, 3, 101, 103) in str(error)
    assert error.option == "--no-quotes or --quotes"
    assert len(read(table_of(broken), "\t", quotes=False)[0]) == 103
    assert len(read(table_of(broken), "\t", quotes=True)[0]) == 101


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        # the quote of a later cell ends it, and text follows
        ('id,prompt\n1,a\n2,"open\n3,c\n4,"d, e"\n5,f\n', (3, 3, 3, 5)),
        # a later cell ends with a quote: correct by RFC 4180, and the ids go on
        ('id,prompt\n1,"open\n2,b\n3,closed"\n4,d\n', (2, 3, 2, 4)),
        # ids of one form
        ('id,prompt\na7f0,x\nb1c9,"open\n\nc3d2,b, c\nfff1,closed"\nd4,d\n', (3, 4, 3, 6)),
        ('id,prompt\n100200,"open\n300100,closed"\n', (2, 2, 2, 3)),
        ('id,prompt,n\nr-9,"open,1\nr-10,b,1\nr-11,closed",1\n', (2, 3, 2, 4)),
    ],
)
def test_broken_quote_that_swallows_rows_refuses_the_file_with_their_number(raw: str, lines: tuple[int, ...]) -> None:
    error = refusal(raw)

    assert wording("a-quote-makes-one-row-of", *lines) in str(error)
    assert "quotes = false" in str(error)
    assert error.option.startswith("--no-quotes")


def test_quote_that_never_ends_says_how_far_it_reaches() -> None:
    error = refusal('id,prompt\n1,a\n2,"open\n' + "3,x\n" * 500)

    assert isinstance(error, CutOffError)
    assert wording("its-last-row-ends-within-quotes-line", 3, 503) in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ann,\nno, thank you,\nbye",
        "Items:\n1,5 kg\n2,5 kg",
        "a,b\n1,2\n3,4",
        "x\n\ny",
        "see 1\n2,b",
        "year:\n2019,5\n2020,6",
        "x7,\ny8,",
        'say "no"\n"',
    ],
)
def test_texts_of_several_lines_with_commas_stay_whole(text: str) -> None:
    rows = [["id", "prompt"], ["7", text], ["8", text], ["9", "z"]]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)

    assert read(out.getvalue())[0] == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_row_of_several_lines_names_all_of_them() -> None:
    rows = list(Sheet(",", 1000).rows([b'id,prompt\n7,"a\nb",left\n8,c\n']))

    assert rows[0].fault == wording("it-has-3-fields-lines-2-to-3")
    assert [json.loads(row.line) for row in rows] == [['7,"a\nb",left'], {"id": "8", "prompt": "c"}]


def test_broken_quote_of_one_line_is_a_fault_of_its_row() -> None:
    assert read('id,prompt\n1,"a"b\n2,c\n')[0] == [['1,"a"b'], {"id": "2", "prompt": "c"}]
