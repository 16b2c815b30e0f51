"""Files of JSON that are not a value a line, written as lines."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obcd.core.tables import json_shape
from obcd.core.tables.file_format import Form
from obcd.core.tables.json_shape import JsonShape, open_json, recognise
from obcd.errors import CutOffError, FormError
from tests.golden.wording import wording

LINES, ARRAY, OBJECTS = JsonShape.LINES, JsonShape.ARRAY, JsonShape.OBJECTS
PRETTY = b'{\n  "prompt": "a"\n}\n'


def in_blocks(raw: bytes, size: int = 2**20) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


def lines_of(raw: bytes, size: int = 2**20) -> list[bytes]:
    found = b"".join(open_json(in_blocks(raw, size), Form(), 2**40).blocks)
    assert found.endswith(b"\n") or not found
    return found.split(b"\n")[:-1]


@pytest.mark.parametrize(
    ("raw", "shape"),
    [
        (b'{"prompt": "a"}\n{"prompt": "b"}\n', LINES),
        (b"", LINES),
        (b"\n\n", LINES),
        (b"Why is the sky blue?\n", LINES),
        (b'{"prompt": "a"}', LINES),
        (b'{"prompt": "\xff"}\n', LINES),  # no UTF-8, which its line says
        (b'{"prompt": "a"},\n{"prompt": "b"},\n', LINES),  # lines, each with a comma that has no meaning
        (b'{"prompt": "a"} // x\n{"prompt": "b"}\n', LINES),
        (b'{"prompt": "a"\n{"prompt": "b"}\n{"prompt": "c"}\n', LINES),  # its first line alone is bad
        (b'{"prompt": "a\n{"prompt": "b"}\n', LINES),
        (b'{"prompt": "one\ntwo"}\n{"prompt": "b"}\n', LINES),
        (b'{"messages": [\n{"prompt": "b"}\n{"prompt": "c"}\n', LINES),
        (b'{"prompt": "a", }\n{"prompt": "b"}\n', LINES),
        (b'[{"role": "user", "content": "a"}]\n[{"role": "user", "content": "b"}]\n', LINES),
        (b'[{"role": "user", "content": "a"}\n[{"role": "user", "content": "b"}]\n', LINES),
        (b'[{"role": "user", "content": "a"}],\n\n[{"role": "user", "content": "b"}]', LINES),
        (b'["8,one field too many,x"]\n', LINES),  # a bad row, in a retry
        (b'[{"prompt": "a"}]', ARRAY),
        (b'\xef\xbb\xbf \r\n [{"prompt": "a"}]\n\n', ARRAY),
        (b'[\n{"prompt": "a"}\n', ARRAY),
        (b'[{"prompt": "a"},\n[1]]\n', ARRAY),
        (b'[{"prompt": "]}\\""}, 1]', ARRAY),
        (b'[{"prompt": "a",}, {"prompt": "b"}]', ARRAY),  # an element is bad
        (PRETTY * 2, OBJECTS),
        (PRETTY.replace(b"\n}", b",\n}"), OBJECTS),  # as people write it, with a comma too many
        (b'{"prompt":\n"a"}', OBJECTS),
        (b'{"prompt": "a"} {"prompt": "b"}\n', OBJECTS),
        (b'{"prompt": "a"}{"prompt": "b"}', OBJECTS),
        (b'{"prompt": "a"}, {"prompt": "b"}', OBJECTS),
        (b'{"prompt": "a"}\r{"prompt": "b"}\r', OBJECTS),  # lines of an old Macintosh
        (b'{"a": "' + b"x" * 2**22 + b'"}\n{}\n', LINES),
        (b'{\n"a": "' + b"x" * 2**22 + b'"}\n', OBJECTS),
    ],
)
@pytest.mark.parametrize("size", [1000, 2**20])
def test_shape_is_recognised_by_the_first_bytes(raw: bytes, shape: JsonShape, size: int) -> None:
    found, blocks = recognise(in_blocks(raw, size))

    assert found is shape
    assert b"".join(blocks) == raw


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b'[{"prompt":"a"},{"prompt":"b"}]', [b'{"prompt":"a"}', b'{"prompt":"b"}']),
        (b'[ 1.50e+1 , "a, ]", null,\n[ 1, 2 ] , {} ]', [b"1.50e+1", b'"a, ]"', b"null", b"[1,2]", b"{}"]),
        (b'[{"b": 1, "a": 00}, {"a" : "\\u00e9\\/ \\\\"}]', [b'{"b":1,"a":00}', b'{"a":"\\u00e9\\/ \\\\"}']),
        (b'[{"a": 1 2}, {"a": tr ue}]', [b'{"a":1 2}', b'{"a":tr ue}']),  # what was not valid does not become so
        (b'[{"a": 1},, {"a": 2} {"a": 3},]', [b'{"a":1}', b'{"a":2}', b'{"a":3}']),
        (b'[{"a":1}]\n[{"a":2}],\n', None),
        (b'[\n{"a":1}]\n[{"a":2}],\n\x1a', [b'{"a":1}', b'{"a":2}']),
        (b"[]", []),
        (b'{\n"a": 1}\n,\n{"a": [\n{}]}{}\x1a', [b'{"a":1}', b'{"a":[{}]}', b"{}"]),
        (b'{\n"a": 1}\n\xef\xbb\xbf{"a": 2}', [b'{"a":1}', b'{"a":2}']),
        (b"[" + b'{"a":' * 9 + b"1" + b"}" * 9 + b", 2]", [b'{"a":' * 9 + b"1" + b"}" * 9, b"2"]),
    ],
)
def test_each_element_is_a_line_byte_for_byte(raw: bytes, lines: list[bytes] | None) -> None:
    assert lines_of(raw) == (raw.split(b"\n")[:-1] if lines is None else lines)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), min_size=1, max_size=4),
    st.sampled_from([None, 0, 3]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 40),
)
@settings(max_examples=30)
def test_elements_come_out_as_they_went_in_however_they_are_written_and_cut_into_blocks(
    items: list[dict[str, object]], indent: int | None, is_array: bool, is_ascii: bool, size: int
) -> None:
    def written(value: object) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=is_ascii)

    raw = (written(items) if is_array else "\n".join(map(written, items))).encode("utf-8", "surrogatepass")
    bare = [json.dumps(item, separators=(",", ":"), ensure_ascii=is_ascii) for item in items]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_shape, "BLOCK_BYTES", size)
        converter = json_shape._Converter(ARRAY if is_array else OBJECTS)
        found = b"".join(converter.convert(in_blocks(raw, 7)))

    assert found == "".join(line + "\n" for line in bare).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("indent", [None, 2])
def test_array_that_is_cut_anywhere_has_no_end(indent: int | None) -> None:
    whole = json.dumps([{"prompt": 'a "b" \\', "options": {"stop": ["]", "}"]}}, 12, [1]], indent=indent).encode()

    for end in range(1, len(whole)):
        with pytest.raises(CutOffError):
            lines_of(whole[:end])
    assert len(lines_of(whole)) == 3


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"[" * 100_000 + b"]" * 100_000, wording("it-is-nested-deeper-than-1000")),
        (b'[{"a":' * 50_000 + b"1" + b"}]" * 50_000, wording("it-is-nested-deeper-than-1000")),
        (b'[\n{"prompt": "a"},\n{"prompt": "b},\n{"prompt": "c"}\n]', wording("a-text-in-line-3-of")),
        (b'[\n{"prompt": "a"}\n] x', wording("there-is-something-that-belongs-to")),
        (b'[\n{"prompt": "a"}]]', wording("there-is-one-too-many")),
        (PRETTY + b"x\n" + PRETTY, wording("there-is-something-that-belongs-to")),
        (b'[{"role": "user", "content": "a"}]', wording("it-is-one-conversation-every-element")),
        (
            b'[\n{"role": "user", "content": "a"},\n{"role": "assistant"}\n]',
            wording("it-is-one-conversation-every-element"),
        ),
    ],
)
def test_file_whose_elements_cannot_be_told_apart_is_refused(raw: bytes, sentence: str) -> None:
    with pytest.raises(FormError, match=sentence):
        lines_of(raw)


def test_array_of_rows_with_a_role_is_data_where_a_template_makes_the_prompts() -> None:
    content = open_json(in_blocks(b'[{"role": "nurse"}]'), Form(), 2**40, is_data=True)

    assert b"".join(content.blocks) == b'{"role":"nurse"}\n'


def test_time_is_linear_whatever_the_brackets_and_quotes_are() -> None:
    generator = random.Random(7)
    worst = [b"[{" * 100_000, b'\\"' * 100_000, b"[ 1" * 100, b'{"a":[1,' * 90, b" " * 2**20, b"[]" * 9_000]
    worst.append(bytes(generator.choice(b'[]{},:"\\1 \n') for _ in range(20_000)))

    for part in worst:
        for begin in (b"[ ", b"[\n", b'{\n"a":'):
            with contextlib.suppress(FormError):
                list(open_json(in_blocks(begin + part), Form(), 2**40).blocks)
