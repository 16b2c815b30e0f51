"""What holds for any answer: JSON is found again, nothing raises, and order is kept."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from obcd.core.schema.extract import Found, NoJson, find_json
from obcd.results.merging.merge import JsonlWriter, JsonWriter, merge_answers
from obcd.results.merging.merge_rows import ObjectsWriter
from obcd.results.merging.merge_tables import CsvWriter
from obcd.results.reading.answers import Answer
from obcd.text_files import LeftOut

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
documents = st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4)
#: prose without brackets, fences and thinking: the only brackets are then the document's
prose = st.text().map(lambda text: text.translate(dict.fromkeys(map(ord, "[{`~<"), "-")))
#: brackets as people use them in prose, which open no JSON
asides = st.sampled_from(["", "[sic] ", "{name} ", "(see [the note]) ", "[a b] of {x} "])
indents = st.sampled_from([None, 0, 2])
hostile = st.text(alphabet='[]{}",:\\ \n`~1eE+-.tfnN<>/abu\ud800', max_size=200)


@given(document=documents, before=prose, after=prose, aside=asides, indent=indents, ascii_only=st.booleans())
def test_document_in_prose_is_found_again(
    document: Any, before: str, after: str, aside: str, indent: int | None, ascii_only: bool
) -> None:
    text = before + aside + json.dumps(document, indent=indent, ensure_ascii=ascii_only)

    assert find_json(f"{text} {after}") == Found(document)


@given(one=documents, other=documents, between=prose)
def test_two_documents_are_never_one(one: Any, other: Any, between: str) -> None:
    found = find_json(f"{json.dumps(one)}\n{between}\n{json.dumps(other)}")

    is_same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert found == Found(one) if is_same else isinstance(found, NoJson)


@given(document=values, before=prose, after=prose, indent=indents, fence=st.sampled_from(["```", "~~~", "````"]))
def test_value_in_a_fence_is_found_again(
    document: Any, before: str, after: str, indent: int | None, fence: str
) -> None:
    text = f"{before}\n{fence}json\n{json.dumps(document, indent=indent)}\n{fence}\n{after}"

    assert find_json(text) == Found(document)


@given(document=documents, end=st.integers(min_value=1))
def test_document_that_is_cut_short_gives_nothing(document: Any, end: int) -> None:
    text = json.dumps(document)
    part = text[: 1 + end % (len(text) - 1)] if len(text) > 2 else text[:1]

    assert part == text or isinstance(find_json(part), NoJson)


@given(text=st.text() | hostile)
def test_no_text_makes_extraction_raise_and_what_is_found_can_be_written(text: str) -> None:
    found = find_json(text)

    if isinstance(found, Found):
        assert json.loads(json.dumps(found.value, indent=2, allow_nan=False)) == found.value
    else:
        assert found.reason


@given(items=st.lists(values))
def test_json_document_has_the_bytes_of_one_dump(items: list[Any]) -> None:
    stream = io.BytesIO()
    writer = JsonWriter(stream)

    for item in items:
        writer.add(item, Answer(place="x", file="x", line=None, record={}))
    writer.finish()

    assert stream.getvalue() == json.dumps(items, indent=2).encode()


@given(rows=st.lists(st.dictionaries(st.text(), st.text(), max_size=4), min_size=1))
def test_csv_reads_back_as_written(rows: list[dict[str, str]]) -> None:
    stream = io.BytesIO()
    with closing(CsvWriter(stream)) as writer:
        for row in rows:
            writer.add(row, Answer(place="x", file="x", line=None, record={}))
        writer.finish()

    header, *cells = csv.reader(io.StringIO(stream.getvalue().decode(), newline=""), strict=True)

    keys = list(dict.fromkeys(key for row in rows for key in row)) or ["value"]
    assert [name.rstrip("_") for name in header] == [readable(key).rstrip("_") for key in keys]
    assert len(set(header)) == len(keys)
    assert cells == [[readable(row.get(key, "")) for key in keys] for row in rows]


def readable(text: str) -> str:
    """Return a text without the characters at which readers of CSV end a file."""
    return text.replace("\0", "\ufffd").replace("\x1a", "\ufffd")


keys = st.sampled_from(["id", "_id", "__id", "line", "_line", "a", "A", "value", ""])
parts = st.dictionaries(keys, st.integers() | st.none(), max_size=5)


@given(rows=st.lists(st.tuples(parts, parts), min_size=1))
def test_no_cell_of_a_row_is_lost_to_another_of_the_same_name(
    rows: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    stream = io.BytesIO()
    with closing(ObjectsWriter(JsonlWriter(stream), ("line", "id", "extra"))) as writer:
        for line, (extra, value) in enumerate(rows, 1):
            record = {"id": f"r{line}", "extra": extra}
            writer.add(value, Answer(place="x", file="x", line=line, record=record))
        writer.finish()

    written = [json.loads(text) for text in stream.getvalue().splitlines()]

    assert all(name.strip("_") == key.strip("_") for name, key in writer.renamed.items())
    for line, (row, (extra, value)) in enumerate(zip(written, rows, strict=True), 1):
        assert len(row) == 2 + len(extra) + len(value)
        assert list(row.values()) == [line, f"r{line}", *extra.values(), *value.values()]
        assert row.items() >= value.items()


@given(fates=st.lists(st.sampled_from(["json", "prose", "damaged", "failed"]), min_size=1))
def test_merge_keeps_the_order_of_the_lines_and_loses_none_silently(fates: list[str]) -> None:
    responses, errors = [], []
    for line, fate in enumerate(fates, 1):
        if fate == "failed":
            errors.append(json.dumps({"line": line, "id": line, "class": "timeout", "attempts": 3}))
        elif fate == "damaged":
            responses.append('{"line":')
        else:
            responses.append(json.dumps({"line": line, "response": f"[{line}]" if fate == "json" else "no"}))
    told: list[LeftOut] = []
    stream = io.BytesIO()

    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "manifest.json").write_text("{}")
        (folder / "responses.jsonl").write_text("".join(line + "\n" for line in responses))
        (folder / "errors.jsonl").write_text("".join(line + "\n" for line in errors))
        done = merge_answers([folder], JsonlWriter(stream), ignore=None, report=told.append)

    merged = [json.loads(line)[0] for line in stream.getvalue().splitlines()]
    assert merged == [line for line, fate in enumerate(fates, 1) if fate == "json"]
    assert done.values + done.left_out == len(fates)
    assert len(told) == done.left_out
