"""Keys of a line that may be meant to have an effect, but are only echoed there. Pure.

Every key that obcd does not know is echoed, so that results can be joined with their source. But a `temperature`
beside `prompt`, or a `model` beside `role` and `content`, was probably meant to have an effect.
"""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.request.lines import KIND_KEYS, OPTION_TYPES, ends_with_answer
from obcd.core.request.records import Request

#: {name of a setting elsewhere: its place in an obcd line}
_ELSEWHERE = {
    "max_tokens": "`options.num_predict`",
    "max_completion_tokens": "`options.num_predict`",
    "response_format": "`format`",
    "reasoning_effort": "`think`",
    "system_prompt": "`system`",
    "system_message": "`system`",
    "input": "`embed`",
}
#: Stands for a last message of the assistant, after which there is nothing to answer.
_LAST_MESSAGE = "messages[-1]"
_OURS = frozenset().union(*KIND_KEYS.values())
_MEANT = _OURS | OPTION_TYPES.keys() | _ELSEWHERE.keys()


def note_unobeyed(found: dict[str, int], request: Request) -> None:
    """Record the keys of a line that look like settings and are only echoed, each with the first line that has it.

    The same for a conversation that ends with the assistant's message, which few models continue.
    """
    if ends_with_answer(request):
        found.setdefault(_LAST_MESSAGE, request.line)
    if not request.extra or request.extra.keys().isdisjoint(_MEANT):
        return
    for key in sorted(request.extra.keys() & _MEANT):
        found.setdefault(key, request.line)


def describe_ignored(found: Mapping[str, int]) -> list[str]:
    """Return a sentence for each."""
    return [_describe(key, line) for key, line in found.items()]


def _describe(key: str, line: int) -> str:
    if key == _LAST_MESSAGE:
        return (
            f"the conversation in line {line} ends with the assistant's message, so that nothing is left to answer: "
            "drop_last_assistant = true in the profile drops such messages"
        )
    place = _ELSEWHERE.get(key) or (f"`options.{key}`" if key in OPTION_TYPES else "")
    if place:
        return f"`{key}` (line {line}) is only echoed: write {place}"
    return f"`{key}` (line {line}) is only echoed: it has no effect in a line of that shape"
