from __future__ import annotations

import time

import pytest

from obcd.core.schema import extract
from obcd.core.schema.extract import MAX_DEPTH, MOST_VALUES, Found, NoJson, find_json
from tests.golden.wording import wording


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("  [1, 2.5]\n", [1, 2.5]),
        ("42", 42),
        ('"yes"', "yes"),
        ("null", None),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is:\n\n```\r\n{"a": 1}\r\n```\r\nAnything else?', {"a": 1}),
        ("~~~\n[1]\n~~~", [1]),
        ('```json\n{"a": "``` inside"}\n', {"a": "``` inside"}),  # never closed
        ('````\n```\nno\n```\n````\n```\n{"a": 1}\n```', {"a": 1}),
        ('```json {"a": 1} ```', {"a": 1}),
        ("```\n42\n```", 42),
        ('Sure! {"a": [1, {"b": "}"}]} Bye.', {"a": [1, {"b": "}"}]}),
        ('As {name} said [sic]: {"a": 1}', {"a": 1}),
        ('[see: {"a": 1}]', {"a": 1}),
        ('{ {"a": 1} }', {"a": 1}),
        ('{"a": "\\u00e4\\"\\\\"} trailing', {"a": 'ä"\\'}),
        ('{"a": 1, } oops, again: {"a": 2}', {"a": 2}),
        ('<think>maybe {"a": 0}?</think>\n{"a": 1}', {"a": 1}),
        # equal values are one; a part of one at the end is the same again
        ('{"a": 1, "b": 2}\n{"b": 2, "a": 1}', {"a": 1, "b": 2}),
        ('{"a": 1}\n{"a": 1}\n{"a"', {"a": 1}),
        # asides of a sentence, which count where nothing else does
        ('As in [1] and [2, 3]: {"a": 1}', {"a": 1}),
        ('As in [1][2], {"a": 1}. See also [3].', {"a": 1}),
        ('It returns {} or [] if there is none.\n```\n{"a": 1}\n```', {"a": 1}),
        ("The primes are [2, 3].", [2, 3]),
        # what is broken ends at a fence and at the end of thoughts
        ('The key {"a is open:\n```json\n{"a": 1}\n```', {"a": 1}),
        ('Hm {"a": 0, </think>{"a": 1}', {"a": 1}),
    ],
)
def test_json_is_found(text: str, value: object) -> None:
    assert find_json(text) == Found(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", wording("it-is-empty")),
        (" \n\t", wording("it-is-empty")),
        ("<think>for ever", wording("its-thoughts-have-no-end")),
        ("<think>hm</think>\n", wording("there-is-nothing-behind-its")),
        ("I cannot answer that.", wording("there-is-no-json-in-it")),
        ("as {name} said [sic]", wording("there-is-no-json-in-it")),
        ('[{"a": 1}, {"a": 2}, {"a"', wording("its-json-is-cut-short")),
        ('{"patient": {"name": "Ada"}, "note": "cut in the mid', wording("its-json-is-cut-short")),
        ('{"a": "text } and [ more', wording("its-json-is-cut-short")),
        ('{"patient": {"name": "Ada"}, oops {"b": 1}}', wording("its-json-is-not-valid-from")),
        ("{'a': 1, 'a': {\"c\": 1}}", wording("its-json-is-not-valid-from-2")),
        ('{a: x, b: {"c": 1}}', wording("its-json-is-not-valid-from-2")),
        ('{"a": <string>}', wording("its-json-is-not-valid-from-4")),
        ('{"n": 1}\n{"n": 2', wording("its-json-is-cut-short")),
        ('{"a": 1, "a": 2}', wording("a-key-stands-in-its-json")),
        ('So: [{"b": {"a": 1, "a": 1}}], as asked.', wording("a-key-stands-in-its-json")),
        ('```json\n{"a": 1, "a": 2}\n```', wording("a-key-stands-in-its-json")),
        ("NaN", wording("its-json-holds-nan-infinity-or")),
        ('{"a": [NaN, {"b": 1}]}', wording("its-json-is-not-valid-from-5")),
        ("[-Infinity]", wording("its-json-is-not-valid-from-2")),
        ("1e999", wording("its-json-holds-nan-infinity-or")),
        ('so: {"a": 1e999}', wording("its-json-is-not-valid-from-6")),
        ("9" * 5000, wording("its-json-holds-nan-infinity-or")),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), wording("its-json-is-nested-more-than-2", MAX_DEPTH)),
        ("so " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), wording("its-json-is-nested-more-than-2", MAX_DEPTH)),
    ],
)
def test_what_is_not_whole_and_valid_is_refused_with_a_reason(text: str, reason: str) -> None:
    assert find_json(text) == NoJson(reason)


def test_deepest_nesting_is_taken() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH

    assert isinstance(find_json(text), Found)
    assert isinstance(find_json(f"so {text}"), Found)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('[{"n": 1}]\n[{"n": 2}]', 2),
        ('{"n": 1}{"n": 2} {"n": 3}', 3),
        ('```json\n{"n": 1}\n```\nor\n```\n{"n": 2}\n```', 2),
        ('```\n{"n": 1}\n{"n": 2}\n```', 2),
        ('A draft: {"n": 1}\n```\n{"n": 2}\n```', 2),
        ("{'n': 1}\n{'n': 2,}", 2),
        ("[1]\n[1.0]\n[true]", 3),
        ('{"n": 1} [1, 2]', 2),  # not in a sentence
        ('{"n": {"a": [{}]}} [1, 2]', 2),
    ],
)
def test_r01_several_values_are_never_one(text: str, count: int) -> None:
    assert find_json(text) == NoJson(wording("it-holds-json-values", count))


def test_r03_citation_does_not_stand_before_the_record() -> None:
    assert find_json('See {1}. Result: {"city": "Bonn"}') == Found({"city": "Bonn"})
    assert find_json('See [1]. Result: {"city": "Bonn"}') == Found({"city": "Bonn"})


def test_r04_boxes_of_a_list_do_not_stand_before_the_record() -> None:
    assert find_json('- [x] done\n- [ ] open\n- [X] "so"\n\n{"city": "Bonn"}') == Found({"city": "Bonn"})


@pytest.mark.parametrize(
    "text",
    [
        '<reasoning>{"city": "X"}</reasoning>{"city": "Bonn"}',
        '<thinking>\n{"city": "X"}\n</thinking>\n```json\n{"city": "Bonn"}\n```',
        '<THINK>{"city": "X"}</THINK>{"city": "Bonn"}',
        'Sure.\n<think>\n```json\n{"city": "X"}\n```\n</think>\n{"city": "Bonn"}',
        '{"city": "X"}? No. </think>{"city": "Bonn"}',  # the template wrote the opening tag
        '<think>a <think>{"city": "X"}</think> {"city": "Y"}</think>{"city": "Bonn"}',
        'So. <think>a <think>b</think> {"city": "Y"}</think>{"city": "Bonn"}',
        '{"city": "Bonn"} <think>or {"city": "X"}',  # never closed
        '<|channel|>analysis<|message|>{"city": "X"}<|end|><|channel|>final<|message|>{"city": "Bonn"}<|return|>',
        '<|start|>assistant<|channel|>analysis<|message|>{"city": "X"}<|end|>{"city": "Bonn"}<|return|>',
        'So <|channel|>commentary to=f <|constrain|>json<|message|>{"city": "X"}<|call|>{"city": "Bonn"}',
        '<thought>{"city": "X"}</thought>{"city": "Bonn"}',
        '[THINK]{"city": "X"}[/THINK]{"city": "Bonn"}',
        'So: [THINK]{"city": "X"}[/THINK]{"city": "Bonn"}',
        'See [1]. {"city": "X"}? No. [/THINK]{"city": "Bonn"}',
        '<seed:think>{"city": "X"}</seed:think>{"city": "Bonn"}',
        '◁think▷{"city": "X"}◁/think▷{"city": "Bonn"}',
        '<|begin_of_thought|>{"city": "X"}<|end_of_thought|>{"city": "Bonn"}',
        '<unused94>thought {"city": "X"}<unused95>{"city": "Bonn"}',
    ],
)
def test_r05_thoughts_are_never_the_source(text: str) -> None:
    assert find_json(text) == Found({"city": "Bonn"})


@pytest.mark.parametrize(
    "text",
    [
        '<think>{"a": 1}',
        'So <think>{"a": 1}',
        '{"a": 1}</think>',
        '<|channel|>analysis<|message|>{"a": 1}',
        '<think>{"a"',
        '[THINK]{"a": 1}',
        'So [THINK]{"a": 1}[/THINK] No.',
    ],
)
def test_thoughts_alone_are_no_source_either(text: str) -> None:
    assert isinstance(find_json(text), NoJson)


def test_thousands_of_values_are_no_answer_unless_they_were_thoughts() -> None:
    text = "".join(f'{{"n": {number}}}' for number in range(3000))

    assert find_json(text) == NoJson(wording("it-holds-json-values", MOST_VALUES))
    assert find_json(f'{text} </think> {{"n": 1}}') == Found({"n": 1})


def test_keys_without_quotes_inside_a_text_may_be_code() -> None:
    assert find_json("{a: 1}") == Found({"a": 1})
    assert find_json("So:\n```js\n{a: 1}\n```\n") == Found({"a": 1})
    assert isinstance(find_json("function f() { return {a: 1}; }"), NoJson)
    assert find_json("Not {a : 1}, but {'b': 2}") == Found({"b": 2})


def test_tag_in_a_value_is_text() -> None:
    assert find_json('So: {"a": "<think>"} and no more') == Found({"a": "<think>"})
    assert find_json('So: ["</think>", 1]') == Found(["</think>", 1])


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "{",
        '{"a":',
        '["',
        '\\"',
        '"',
        '["\\"',
        "[1,",
        "[ ",
        "```\n",
        "[]x",
        '{"a":1}}',
        "[x",
        "[" * 150 + "x",
        '["a" ',
    ],
)
@pytest.mark.parametrize("prefix", ["x", "x[", 'x{"', "[1,"])
def test_hostile_text_takes_linear_time(prefix: str, unit: str) -> None:
    text = prefix + unit * (30_000 // len(unit))

    started = time.process_time()
    find_json(text)

    # A second scan of the rest for each unit would take longer by far.
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    "unit",
    [
        "<think>",
        "</think>",
        "<think></think>",
        "<think><think></think>",
        '{"a" <think></think>',
        '{"a" x\n```\n```\n',
        '{"a" x\n```\n',
        "```\n{'a'\n```\n",
        "<|channel|>analysis<|message|>",
        "<|channel|>analysis<|message|>x<|end|>",
        '{"a":1}',
        "{'a':1}",
        "['",
        "[1,'",
        "['a', /*",
        "['a', //",
        "['a',,",
        "[1] see ",
    ],
)
def test_hostile_marks_take_linear_time(unit: str) -> None:
    text = "x[" + unit * (20_000 // len(unit))

    started = time.process_time()
    find_json(text)

    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("unit", ["{ ", "```\n", "</think>", "x [sic] "])
def test_no_more_than_so_many_marks_are_looked_at(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    text = 'So: {"a": 1} ' + unit * 200
    monkeypatch.setattr(extract, "MOST_STEPS", 100)

    assert find_json(text) == NoJson(wording("it-holds-too-many-brackets"))
    assert find_json('So: {"a": 1} ' + "{name} " * 90) == Found({"a": 1})


def test_longer_text_counts_only_if_all_of_it_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "MOST_CHARS", 20)
    text = '{"a": "' + 20 * "x" + '"}'

    assert find_json(text) == Found({"a": 20 * "x"})
    assert find_json(f"So: {text}") == NoJson(wording("it-is-not-json-and-longer", 20))
