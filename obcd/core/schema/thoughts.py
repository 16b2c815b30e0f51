"""Thoughts that a model writes into its answer: `<think>…</think>` and its kin, and Harmony's analysis channel. Pure.

    <think>hm</think>Hello                                                             → thoughts `hm`, answer `Hello`
    [THINK]hm[/THINK]Hello                                                                                    the same
    <|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello       the same

Servers separate the thoughts of the models that they know; these are those of all others. Harmony is the format of
gpt-oss (OpenAI: "Harmony response format"). Of the tags, `[THINK]` is Magistral's, `◁think▷` Kimi's, `<seed:think>`
Seed-OSS's, `<|begin_of_thought|>` Sky-T1's and OpenThinker's, `<unused94>` MedGemma's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: The tags, and the beginning of a Harmony message of a channel other than the final one. `tag` is the same in both
#: tags of a kind and differs between kinds.
MARK = re.compile(
    r"(?:<(?=/?(?:think|thinking|thought|reasoning|seed:think)>|\|(?:begin|end)_of_thought\|>|unused9[45]>)"
    r"|\[(?=/?(?-i:THINK)\])|◁(?=/?think▷))"
    r"(?:\|begin|unused94|(?P<close>/|\|end|unused95))?(?P<tag>[a-z:_|]*+[>\]▷])"
    r"|(?P<channel>(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b[^<]{0,200}"
    r"(?:<\|constrain\|>[^<]{0,50})?<\|message\|>)",
    re.IGNORECASE,
)
#: With what a tag may begin.
TAG_BEGINS = "<[◁"
#: Most blocks of thoughts, one after the other, that are passed over.
MOST_BLOCKS = 8
_SPACE = re.compile(r"\s*+")
#: What ends a Harmony message.
_END = re.compile(r"<\|(?:end|return|call)\|>|(?=<\|(?:start|channel)\|>)")
#: The frame of Harmony's final message.
_FINAL = re.compile(r"\s*+(?:<\|start\|>assistant)?<\|channel\|>final[^<]{0,200}<\|message\|>")
_FINAL_END = re.compile(r"(?:<\|(?:end|return)\|>\s*)+$")


class Split(NamedTuple):
    """An answer whose beginning is thoughts.

    Attributes:
        thoughts: Without white space around them; "" if there are none.
        answer: The text behind them.
        is_closed: Whether the thoughts have an end. Without one, the answer is empty.
    """

    thoughts: str
    answer: str
    is_closed: bool = True


def split_thoughts(text: str) -> Split | None:
    """Return thoughts and answer of a text that begins with thoughts; None if it does not."""
    mark = MARK.match(text, _end_of_space(text))
    if mark is None or mark["close"]:
        return None
    if mark["channel"]:
        return _split_harmony(text, mark)
    end = end_of_thoughts(text, mark)
    if end is None:
        return Split(text[mark.end() :].strip(), "", is_closed=False)
    return Split(text[mark.end() : end[0]].strip(), text[end[1] :])


def end_of_thoughts(text: str, opening: re.Match[str]) -> tuple[int, int] | None:
    """Return where the mark that ends thoughts begins and ends, or None if nothing ends them.

    A tag inside the thoughts may have its own end. If not all of them have one, the first end is that of the thoughts.
    """
    if opening["channel"]:
        end = _END.search(text, opening.end())
        return end and end.span()
    depth, first = 1, None
    for mark in MARK.finditer(text, opening.end()):
        if (mark["tag"] or "").lower() != opening["tag"].lower():
            continue
        if not mark["close"]:
            depth += 1
            continue
        depth, first = depth - 1, first or mark
        if not depth:
            return mark.span()
    return first and first.span()


def is_empty(text: str) -> bool:
    """Return whether the text of an answer says nothing: white space, or thoughts alone."""
    for _ in range(MOST_BLOCKS):
        text = text.strip()
        split = split_thoughts(text) if text[:1] in TAG_BEGINS else None
        if split is None:
            break
        text = split.answer
    return not text.strip()


def _split_harmony(text: str, mark: re.Match[str] | None) -> Split:
    """Take all messages before the final one, and the frame of that one."""
    thoughts, at = [], 0
    while mark is not None and mark["channel"]:
        end = end_of_thoughts(text, mark)
        thoughts.append(text[mark.end() : end[0] if end else len(text)].strip())
        if end is None:
            return Split("\n".join(filter(None, thoughts)), "", is_closed=False)
        at = end[1]
        mark = MARK.match(text, _end_of_space(text, at))
    final = _FINAL.match(text, at)
    answer = _FINAL_END.sub("", text[final.end() :]) if final else text[at:]
    return Split("\n".join(filter(None, thoughts)), answer)


def _end_of_space(text: str, at: int = 0) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
