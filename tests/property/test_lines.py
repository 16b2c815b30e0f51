"""No bytes whatever raise anything but LineError, and every valid line survives its way to the server's body."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from obcd.core.request.lines import KIND_KEYS, MESSAGE_KEYS, OPTION_RANGES, OPTION_TYPES, parse_line
from obcd.core.request.records import JobSettings, Request, request_body, signature_of
from obcd.errors import LineError
from obcd.ollama.client import encode_body

JOB = JobSettings(model="llama3.2", system="Be brief.")

#: Any character, lone surrogates included: JSON can write them, so prompts can hold them.
texts = st.text(st.characters(codec=None), max_size=30)
prompts = texts.filter(str.strip)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
keys = (
    st.sampled_from(sorted(frozenset().union(*KIND_KEYS.values()) | MESSAGE_KEYS | {"custom_id", "body", "endpoint"}))
    | texts
)
options = st.dictionaries(
    st.sampled_from(sorted(OPTION_TYPES)) | texts, scalars | st.lists(texts, max_size=3), max_size=4
)

messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": prompts})
#: What JSON can hold: no NaN, no infinity.
json_scalars = scalars.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
good_options = st.fixed_dictionaries(
    {},
    optional={
        "num_ctx": st.integers(*OPTION_RANGES["num_ctx"]),
        "num_predict": st.integers(*OPTION_RANGES["num_predict"]),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "temperature": st.floats(0, 2) | st.integers(0, 2),
        "stop": st.lists(texts, max_size=3),
        "use_mmap": st.booleans(),
    },
)
wishes = {
    "id": st.integers() | texts | st.lists(texts, max_size=2),
    "model": prompts.filter(str.isprintable),
    "system": texts,
    "options": good_options,
    "format": st.just("json")
    | st.dictionaries(texts.map("x-{}".format), json_scalars, max_size=3).map(lambda more: {"type": "object", **more}),
    "think": st.booleans() | st.sampled_from(["low", "max"]),
    "tools": st.lists(
        st.fixed_dictionaries({"type": st.just("function"), "function": st.fixed_dictionaries({"name": prompts})}),
        max_size=2,
    ),
}
good_lines = st.fixed_dictionaries({"prompt": prompts}, optional=wishes) | st.fixed_dictionaries(
    {"messages": st.lists(messages, min_size=1, max_size=4)}, optional=wishes
)


def try_line(raw: bytes) -> Request | None:
    with contextlib.suppress(LineError):
        return parse_line(raw, 1)
    return None


@given(st.binary(max_size=200))
@example(b"[" * 200_000)
@example(b'{"a":' * 100_000)
@example(b'{"prompt": ' + b"9" * 100_000 + b"}")
@example(b"\xef\xbb\xbf")
@example(b'{"\\ud800": 1, "\\ud800": 1}')
@example(b'{"prompt": "a", "options": {"\\ud800": 1}}')
def test_no_bytes_raise_anything_but_a_line_error(raw: bytes) -> None:
    request = try_line(raw)

    assert request is None or request.messages or request.inputs or request.prompt


@given(st.dictionaries(keys, values | options, max_size=6))
def test_no_document_raises_anything_but_a_line_error(document: dict[str, Any]) -> None:
    request = try_line(json.dumps(document).encode())

    if request is not None:
        json.loads(encode_body(request_body(request, JOB)))
        hash(signature_of(request, JOB))


@given(st.text(max_size=20), st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_line_cut_anywhere_is_refused_and_no_damage_raises_anything_else(
    prompt: str, place: int, damage: bytes
) -> None:
    raw = json.dumps({"prompt": prompt + "."}).encode()
    cut = min(place, len(raw) - 1)

    request = try_line(raw[:cut])

    assert request is None
    try_line(raw[:cut] + damage + raw[cut:])


@given(good_lines)
def test_every_valid_line_reaches_the_body_unchanged(document: dict[str, Any]) -> None:
    # when
    request = parse_line(json.dumps(document).encode(), 5)
    body = json.loads(encode_body(request_body(request, JOB)))

    # then
    asked = document.get("messages") or [{"role": "user", "content": document["prompt"]}]
    system = document.get("system", JOB.system)
    assert body["messages"] == ([{"role": "system", "content": system}] if system else []) + asked
    assert body["model"] == document.get("model", JOB.model)
    limits = {"num_ctx": JOB.num_ctx, "num_predict": JOB.num_predict}
    assert body["options"] == {**limits, **document.get("options", {})}
    for wish in ("format", "think", "tools"):
        assert body.get(wish) == document.get(wish)
    assert request.id == document.get("id", 5)


@given(st.fixed_dictionaries({"role": st.just("user"), "content": prompts}), st.dictionaries(texts, values, max_size=4))
def test_every_seed_line_is_asked_as_it_stands_and_its_other_keys_are_echoed(
    message: dict[str, Any], others: dict[str, Any]
) -> None:
    # given keys that no shape knows
    strangers = {f"x-{key}": value for key, value in others.items()}

    # when
    request = try_line(json.dumps({**strangers, **message}).encode())

    # then: nested too deep, or taken whole
    if request is not None:
        assert request.messages == [message]
        assert request.extra == json.loads(json.dumps(strangers))
