"""Patterns in the form that the server gets: the same strings, and nothing that llama.cpp reads in another way."""

from __future__ import annotations

import json
import random
import re

import jsonschema_rs
import pytest

from obcd.core.schema.schemas import check_schema
from obcd.core.schema.server_pattern import ANY_TEXT, MAX_DEPTH, server_pattern

#: {pattern: what is sent}; `…` is any text.
REWRITTEN = {
    r"^\d{4}-\d\d$": "^[0-9]{4}-[0-9][0-9]$",
    r"^(?:a|b)c$": "^(a|b)c$",
    r"^(?<year>[0-9]+)/(?P<month>[0-9]+)$": "^([0-9]+)/([0-9]+)$",
    r"^[A-Z]{2,5}?$": "^[A-Z]{2,5}$",
    "abc": "^…abc…$",
    "^abc": "^abc…$",
    "abc$": "^…abc$",
    r"\d+": "^…[0-9]…$",
    "x?abc.*": "^…abc…$",
    "^a|b$": "^(a…|…b)$",
    "(^a$)|(^b$)": "^(a|b)$",
    r"^a\/b\-c$": "^a/b-c$",
    r"^\.+$": "^[.]+$",
    "^é+$": "^[é]+$",
    '^"$': r'^(\\["])$',
    "^[ -~]$": r'^([ !#-\[\]-~]|\\["\\])$',
    r"^\u0041\x42$": "^AB$",
    "": "",
    ".*": "",
    "a?": "",
}
#: Patterns that are sent as they are.
SAME = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "^(red|green)$", "^[a-zA-Z0-9_]+$", r"^[0-9]+\.[0-9]+$", "^$", r"^\([0-9]{3}\)$",
)  # fmt: skip
#: Patterns without an equal one; those of the first line end `ollama serve` v0.24, those of the last make no grammar.
LEFT_AWAY = (
    "^(?=a)b$", "^(?!a).*$", "(?i)abc", "^(?<=a)b$", "^*a$", "^(*a)$",
    r"^\bword\b$", r"^(a)\1$", r"^\p{L}+$", "^a++$", "^[[:alpha:]]$", "^[a&&b]$", "^(a$|b)c$", "^a{2}{3}$", "(",
    "^a{0,2000}$", "^(a*)*$", "^(a|)+$", "^" + "(" * 60 + "a" + ")" * 60 + "$", "^" + "a" * 6000 + "$",
)  # fmt: skip

#: What llama.cpp reads as it is meant; a quantifier only after one character, a set or a group.
TOKEN = re.compile(
    r"(?P<set>\[\^?(?:\\[\[\]\\]|\\x[0-9A-F]{2}|\\u[0-9A-F]{4}|\\U[0-9A-F]{8}|[^\]\\])+\])|(?P<end>\))"
    r"|(?P<one>[A-Za-z0-9 _\-:/,@#%&=~'<>!;`])|(?P<mark>[*+?]|\{[0-9]+(?:,[0-9]*)?\})"
    r"|(?P<other>\\[$.^\[\]()|{}*+?]|\\\\|\((?!\?)|\|)"
)


def reads_alike(pattern: str) -> bool:
    """Return whether llama.cpp reads a pattern as it is meant, token by token."""
    at, before = 1, ""
    while at < len(pattern) - 1:
        token = TOKEN.match(pattern, at)
        if token is None or (token.lastgroup == "mark" and before not in ("set", "end", "one")):
            return False
        at, before = token.end(), str(token.lastgroup)
    return pattern[0] == "^" and pattern[-1] == "$"


@pytest.mark.parametrize("pattern", REWRITTEN)
def test_pattern_is_rewritten_for_the_server(pattern: str) -> None:
    sent = server_pattern(pattern)

    assert sent is not None
    assert sent.replace(ANY_TEXT, "…") == REWRITTEN[pattern]


@pytest.mark.parametrize("pattern", SAME)
def test_pattern_that_the_server_reads_alike_is_sent_as_it_is(pattern: str) -> None:
    assert server_pattern(pattern) == pattern
    assert reads_alike(pattern)


@pytest.mark.parametrize("pattern", LEFT_AWAY)
def test_pattern_without_an_equal_one_is_not_sent(pattern: str) -> None:
    assert server_pattern(pattern) is None


def test_nesting_is_read_up_to_a_limit() -> None:
    assert server_pattern(f"^{'(' * MAX_DEPTH}a{')' * MAX_DEPTH}$") is not None


class _Dice(random.Random):
    """Makes patterns and strings."""

    def pattern(self, depth: int = 0) -> str:
        parts = "".join(self.part(depth) for _ in range(self.randint(0, 3)))
        return f"{parts}|{self.pattern(depth + 1)}" if depth < 2 and self.random() < 0.2 else parts

    def part(self, depth: int) -> str:
        if depth < 3 and self.random() < 0.25:
            atom = f"{self.choice(('(', '(?:', '(?<n>' if depth > 5 else '('))}{self.pattern(depth + 1)})"
        else:
            atom = self.choice(
                ("a", "b", "-", "é", '"', r"\\", r"\.", r"\n", ".", r"\d", r"\w", r"\S", r"\s", "[ab]", '[^a"]',
                 "[a-c1]", r"[\w.-]", r"[^\\]", r"\/", "1", " ", r"[\d\n]")
            )  # fmt: skip
        return atom + self.choice(("", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"))

    def text(self) -> str:
        return "".join(self.choices('ab1-é"\\.\n /c_', k=self.randint(0, 5)))


def test_what_is_sent_matches_the_json_of_the_same_strings() -> None:
    dice, compared = _Dice(1), 0
    for _ in range(600):
        pattern = dice.choice(("^", "")) + dice.pattern() + dice.choice(("$", ""))
        sent = server_pattern(pattern)
        if sent is None or check_schema({"pattern": pattern}):
            continue
        validator = jsonschema_rs.Draft202012Validator({"pattern": pattern})
        assert reads_alike(sent or "^$"), pattern
        read = re.compile(sent[1:-1] if sent else r"(?s:.*)")
        for text in (dice.text() for _ in range(12)):
            written = json.dumps(text, ensure_ascii=False)[1:-1]
            assert (read.fullmatch(written) is not None) == validator.is_valid(text), (pattern, sent, text)
            compared += 1
    assert compared > 4000
