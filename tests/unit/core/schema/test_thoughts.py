"""Thoughts at the beginning of a text, and answers that say nothing."""

from __future__ import annotations

import pytest

from obcd.core.schema.thoughts import Split, is_empty, split_thoughts

ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("<think>hm</think>Hello", Split("hm", "Hello")),
        ("\n <thinking>\nhm\n</thinking>\nHello", Split("hm", "\nHello")),
        ("<Reasoning>hm</reasoning>", Split("hm", "")),
        ("<think>a <think>b</think> c</think>Hello", Split("a <think>b</think> c", "Hello")),
        ("<think>the tag <think> is odd</think>Hello", Split("the tag <think> is odd", "Hello")),
        ("<think>the tag </thinking> too</think>Hello", Split("the tag </thinking> too", "Hello")),
        ("<thought>hm</thought>Hello", Split("hm", "Hello")),
        ("[THINK]hm[/THINK]Hello", Split("hm", "Hello")),
        ("<seed:think>hm</seed:think>Hello", Split("hm", "Hello")),
        ("◁think▷hm◁/think▷Hello", Split("hm", "Hello")),
        ("<|begin_of_thought|>hm<|end_of_thought|>Hello", Split("hm", "Hello")),
        ("<unused94>hm<unused95>Hello", Split("hm", "Hello")),
        ("[THINK]hm</think>", Split("hm</think>", "", is_closed=False)),
        ("<think>hm", Split("hm", "", is_closed=False)),
        (f"{ANALYSIS}hm<|end|>{FINAL}Hello<|return|>", Split("hm", "Hello")),
        (f"<|start|>assistant{ANALYSIS}hm<|end|><|start|>assistant{ANALYSIS}so<|end|>{FINAL}Hi", Split("hm\nso", "Hi")),
        (f"{ANALYSIS}hm{FINAL}Hello<|end|>\n", Split("hm", "Hello")),
        (f"{ANALYSIS}hm", Split("hm", "", is_closed=False)),
        ("Hello <think>hm</think>", None),
        ("hm</think>Hello", None),
        ("</think>Hello", None),
        ("<thinker>hm</thinker>", None),
        ("[Think]hm[/Think]", None),
        ("[thinking]hm", None),
        ("<unused96>hm", None),
    ],
)
def test_thoughts_at_the_beginning_are_split_off(text: str, split: Split | None) -> None:
    assert split_thoughts(text) == split


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t\u00a0",
        "<think>hm</think>",
        "<think>hm</think>\n \n",
        "<think>a</think><think>b</think>",
        "[THINK]a[/THINK]",
        "◁think▷a◁/think▷",
        f"{ANALYSIS}hm<|end|>{FINAL}",
    ],
)
def test_r08_white_space_and_thoughts_say_nothing(text: str) -> None:
    assert is_empty(text)


@pytest.mark.parametrize("text", [".", "null", '""', "<think>hm</think>.", "<b></b>", "hm</think>"])
def test_anything_else_says_something(text: str) -> None:
    assert not is_empty(text)
