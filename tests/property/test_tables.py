"""Tables with quotes of every kind: rows are never joined, and what a CSV writer wrote is read back or refused."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from obcd.core.tables.csv_reader import Sheet
from obcd.errors import FormError

HEADER = ("id", "prompt", "label")
PIECES = st.sampled_from(['"', "a", "b c", " , ", '5" x', "no", '"He', "don't"])
TEXTS = st.lists(PIECES, min_size=1, max_size=4).map("".join)
LONG_TEXTS = st.lists(st.one_of(PIECES, st.sampled_from(["\n", "\t", "1,2\n"])), min_size=1, max_size=6).map("".join)


def read(raw: str, delimiter: str) -> list[Any]:
    return [json.loads(row.line) for row in Sheet(delimiter, 2**20).rows([raw.encode()])]


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=1, max_size=20))
def test_table_with_tabs_and_quotes_in_its_texts_has_one_request_a_line(texts: list[str]) -> None:
    assume(not any('""' in text for text in texts))  # which is what a CSV writer makes of a quote
    raw = "\t".join(HEADER) + "\n" + "".join(f"{number}\t{text}\tx\n" for number, text in enumerate(texts))

    assert [row["id"] for row in read(raw, "\t")] == [str(number) for number in range(len(texts))]


@settings(max_examples=50)
@given(st.lists(LONG_TEXTS.filter(str.strip), min_size=1, max_size=20), st.sampled_from(",;\t"))
def test_table_of_a_csv_writer_is_read_back_or_refused(texts: list[str], delimiter: str) -> None:
    # A cell with tabs and line breaks may look like rows of their own: nothing in the table shows what it is.
    assume(delimiter != "\t" or not any("\t" in text and "\n" in text for text in texts))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows([HEADER, *((number, text, "x") for number, text in enumerate(texts))])
    try:
        rows = read(out.getvalue(), delimiter)
    except FormError:
        return

    assert [row["id"] for row in rows] == [str(number) for number in range(len(texts))]


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=3, max_size=20), st.data(), st.sampled_from(",\t"))
def test_open_quote_swallows_no_row_silently(texts: list[str], data: st.DataObject, delimiter: str) -> None:
    at = data.draw(st.integers(0, len(texts) - 1))
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(HEADER)
    for number, text in enumerate(texts):
        if number == at:
            out.write(f'{number}{delimiter}"open{delimiter}x\n')
        else:
            writer.writerow((number, text, "x"))
    sheet = Sheet(delimiter, 2**20)
    try:
        rows = list(sheet.rows([out.getvalue().encode()]))
    except FormError:
        return

    assert len(rows) == len(texts)
    assert delimiter == "\t" or (at == len(texts) - 1 and sheet.cut)
