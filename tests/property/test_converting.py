"""Conversions round trip: what is converted there and back asks the same, or is refused by a sentence."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from obcd.core.request.lines import parse_line
from obcd.core.tables.converting import LineShape, read_ours, write_line
from obcd.core.tables.file_format import Form
from obcd.errors import InputError, LineError
from obcd.prompts.convert import Wanted, convert
from obcd.text_files import LeftOut

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
PROMPTS = TEXTS.filter(str.strip)
OPTIONS = st.fixed_dictionaries(
    {}, optional={"temperature": st.floats(0, 2), "seed": st.integers(0, 99), "num_predict": st.integers(1, 99)}
)
ECHOED = st.dictionaries(st.sampled_from(["ward", "Größe", "a b", "_id"]), st.just("") | TEXTS, max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": PROMPTS}), min_size=1, max_size=3
)


def lines(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw lines of ours that every shape but the seed's can hold."""
    wishes: dict[str, st.SearchStrategy[Any]] = {
        "id": TEXTS,
        "system": PROMPTS,
        "options": OPTIONS,
        "format": st.sampled_from(["", "json", {"type": "object"}]),
    }
    wishes |= {"think": st.sampled_from([False, "low"]), "n": st.integers(1, 9), **more}
    asked = st.one_of(st.fixed_dictionaries({"prompt": PROMPTS}), st.fixed_dictionaries({"messages": MESSAGES}))
    return st.builds(
        lambda *parts: parts[0] | parts[1] | parts[2], ECHOED, asked, st.fixed_dictionaries({}, optional=wishes)
    )


def asks(document: dict[str, Any]) -> Any:
    return parse_line(json.dumps(document).encode(), 1)


def converted(raw: bytes, form: Form, wanted: Wanted) -> tuple[bytes, list[LeftOut]]:
    out, left = io.BytesIO(), list[LeftOut]()
    convert(io.BytesIO(raw), form, wanted, out, left.append)
    return out.getvalue(), left


@given(lines(), st.sampled_from([",", "\t"]))
def test_table_there_and_back_is_the_same_line(ours: dict[str, Any], delimiter: str) -> None:
    raw = json.dumps(ours).encode()

    table, left = converted(raw, Form(), Wanted(shape=LineShape.TABLE, delimiter=delimiter))
    back, left_back = converted(table, Form("csv" if delimiter == "," else "tsv"), Wanted(shape=LineShape.OURS))

    assert (left, left_back) == ([], [])
    assert json.loads(back) == ours


@given(lines())
def test_openai_there_and_back_asks_the_same(ours: dict[str, Any]) -> None:
    raw = write_line(ours, 1, LineShape.OPENAI, "m")

    back, before = asks(read_ours(raw, 1)), asks(ours)
    opening = [{"role": "system", "content": before.system}] if before.system else []
    assert back.messages == opening + before.messages
    assert (back.id, back.model) == (str(before.id), "m")
    assert (back.options, back.format, back.think, back.count, back.extra) == (
        *(before.options, before.format, before.think, before.count),
        before.extra,
    )


@given(PROMPTS, ECHOED, st.one_of(st.just({}), st.fixed_dictionaries({"id": TEXTS})))
def test_seed_there_and_back_is_the_same_line(prompt: str, echoed: dict[str, str], number: dict[str, str]) -> None:
    ours = {"prompt": prompt, **echoed, **number}

    assert read_ours(write_line(ours, 1, LineShape.SEED), 1) == ours


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["a", "type"]), inner, max_size=2)
    ),
    max_leaves=4,
)
KEYS = "id prompt messages complete embed suffix raw system model options format think tools n logprobs role content x"


@given(st.dictionaries(st.sampled_from(KEYS.split()), JSON, max_size=4), st.sampled_from(LineShape))
def test_any_line_is_converted_or_refused_and_never_asks_something_else(
    document: dict[str, Any], shape: LineShape
) -> None:
    raw = json.dumps(document).encode()
    try:
        out, _ = converted(raw, Form(), Wanted(shape=shape, model="m"))
        written = out if shape is not LineShape.TABLE else converted(out, Form("csv"), Wanted(shape=LineShape.OURS))[0]
        found = parse_line(written.removesuffix(b"\n"), 1)
    except (InputError, LineError):
        return
    before = parse_line(raw, 1)
    assert (found.kind, found.prompt, found.count, found.inputs) == (
        *(before.kind, before.prompt, before.count),
        before.inputs,
    )
