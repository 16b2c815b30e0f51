"""What the author of a file should know, once: keys that have no effect, schemas that are read in another way. Pure.

Every key that obcd does not know is echoed, so that results can be joined with their source. But a `temperature`
beside `prompt`, or a `model` beside `role` and `content`, was probably meant to have an effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from obcd.core.request.keys.dropped_keys import has_no_effect
from obcd.core.request.lines import KIND_KEYS, OPTION_TYPES, ends_with_answer
from obcd.core.request.records import JobSettings, Request
from obcd.core.schema.server_schema import schema_remarks

#: {name of a setting elsewhere: its place in an obcd line}
_ELSEWHERE = {
    "max_tokens": "`options.num_predict`",
    "max_completion_tokens": "`options.num_predict`",
    "response_format": "`format`",
    "reasoning_effort": "`think`",
    "system_prompt": "`system`",
    "system_message": "`system`",
    "input": "`embed`",
    "functions": "`tools`",
    "max_new_tokens": "`options.num_predict`",
    "repetition_penalty": "`options.repeat_penalty`",
    "chat_template_kwargs": "`think`",
    "enable_thinking": "`think`",
    "guided_json": "`format`",
    "structured_outputs": "`format`",
    "image": "`images`",
    "max_output_tokens": "`options.num_predict`",
    "stop_sequences": "`options.stop`",
}
#: The same for names that are settings if they hold an object, and else are fields of data sets.
_OBJECTS_ELSEWHERE = {
    "schema": "`format`",
    "json_schema": "`format`",
    "option": "`options`",
    "parameters": "`options`",
    "sampling_params": "`options`",
    "generation_config": "`options`",
}
#: The name that `csv_table` gives to a column without one.
_NAMELESS = re.compile(r"_*column_(\d+)")
#: Stands for a last message of the assistant, after which there is nothing to answer.
_LAST_MESSAGE = "messages[-1]"
_OURS = frozenset().union(*KIND_KEYS.values())
_MEANT = _OURS | OPTION_TYPES.keys() | _ELSEWHERE.keys() | _OBJECTS_ELSEWHERE.keys() | {"tool_choice"}
#: Most remarks of a file: each line may have a schema with its own faults.
MAX_REMARKS = 20


def note_unobeyed(found: dict[str, int], request: Request) -> None:
    """Record the keys of a line that look like settings and are only echoed, each with the first line that has it.

    The same for a conversation that ends with the assistant's message, which few models continue. Remarks about its
    `format` are recorded in the same way; each is a sentence that begins with "`format`".
    """
    for key in request.dropped:
        found.setdefault(key, request.line)
    if ends_with_answer(request):
        found.setdefault(_LAST_MESSAGE, request.line)
    if request.format and len(found) < MAX_REMARKS:
        for remark in (*request.remarks, *(f"`format` {remark}" for remark in schema_remarks(request.format))):
            found.setdefault(remark, request.line)
    if not request.extra or request.extra.keys().isdisjoint(_MEANT):
        return
    for key in sorted(request.extra.keys() & _MEANT):
        if key not in _OBJECTS_ELSEWHERE or isinstance(request.extra[key], dict):
            found.setdefault(key, request.line)


def note_nameless(found: dict[str, int], nameless: Mapping[str, int]) -> None:
    """Record the columns of a table that have no name and hold something, as the keys that are made of them."""
    for key, row in nameless.items():
        found.setdefault(key, row)


def note_schema(found: dict[str, int], settings: JobSettings) -> None:
    """Record the remarks about the schema of a job, as those of line 0."""
    for remark in schema_remarks(settings.format, is_sent=settings.send_schema):
        found.setdefault(f"`format` {remark}", 0)


def describe_ignored(found: Mapping[str, int]) -> list[str]:
    """Return a sentence for each."""
    return [_describe(key, line) for key, line in found.items()]


def _describe(key: str, line: int) -> str:
    if key.startswith("`format` "):
        return f"line {line}: {key}" if line else f"the job's schema: {key.removeprefix('`format` ')}"
    if key == _LAST_MESSAGE:
        return (
            f"the conversation in line {line} ends with the assistant's message, so that nothing is left to answer: "
            "drop_last_assistant = true in the profile drops such messages"
        )
    if key not in _MEANT and (column := _NAMELESS.fullmatch(key)):
        return f"column {column[1]} of the table has no name, and row {line} has something in it: it is called `{key}`"
    if has_no_effect(key):
        return f"`{key}` (line {line}) is not sent: it has no effect on an answer"
    if "." in key:
        return f"`{key}` (line {line}) is not sent: it cannot be honoured, and `ignore` in the configuration lists it"
    return _describe_echoed(key, line)


def _describe_echoed(key: str, line: int) -> str:
    place = _ELSEWHERE.get(key) or _OBJECTS_ELSEWHERE.get(key) or (f"`options.{key}`" if key in OPTION_TYPES else "")
    if place:
        return f"`{key}` (line {line}) is only echoed: write {place}"
    return f"`{key}` (line {line}) is only echoed: it has no effect in a line of that shape"
