"""Write a prompt file: wrap each text and write it as one obcd line.

{"id": "ward/1.txt", "system": "…", "prompt": "Summarise: …"}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from obcd.core.request.lines import parse_line
from obcd.core.request.templates import TemplateField, fields_of, fill
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import InputError, LineError, UsageError
from obcd.prompts.texts import TEXT_FIELD, Prompt
from obcd.text_files import LeftOut

#: the place of the text in a template
PLACEHOLDER = f"{{{TEXT_FIELD}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """What is added to every text."""

    template: str = (
        PLACEHOLDER  # as of a profile (`core.request.templates`): `{age} years: {text}`; `{{` and `}}` are braces
    )
    system: str | None = None
    may_be_same: bool = False  # whether all prompts may be the same, as prompts about pictures are

    def __post_init__(self) -> None:
        try:
            names_none = not self.fields
        except ValueError as error:
            raise UsageError(f"the template cannot be read: {error}") from None
        if names_none and not self.may_be_same:
            raise UsageError(f"the template has no {PLACEHOLDER}: without it every prompt would be the same")
        if any("\ud800" <= char <= "\udfff" for char in self.template + (self.system or "")):
            raise UsageError("the template or system message is not UTF-8: set the terminal to UTF-8")

    @property
    def fields(self) -> tuple[TemplateField, ...]:
        """The fields of the template."""
        return fields_of(self.template)

    def line(self, prompt: Prompt) -> bytes:
        """Return a line of a prompt file, in ASCII, with its LF.

        Raises:
            LineError: If a field that the template names is missing or empty.
        """
        system = {} if self.system is None else {"system": self.system}
        text = fill(self.template, {**prompt.fields, TEXT_FIELD: prompt.text})
        document = {"id": prompt.id, **system, "prompt": text, **prompt.extra}
        return json.dumps(document).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class Prepared:
    """The counts of `write_prompts`."""

    prompts: int
    left_out: int
    long_lines: int  # written, but longer than a coordinator accepts by default


def write_prompts(
    prompts: Iterable[Prompt | LeftOut], wrapping: Wrapping, stream: BinaryIO, report: Callable[[LeftOut], None]
) -> Prepared:
    """Write one line per prompt; report each text that was left out, in order.

    Every line is read back as the coordinator reads it, so that a line that it would reject is reported now.

    Raises:
        InputError: If there is no prompt at all.
    """
    written = left_out = long_lines = 0
    for prompt in prompts:
        line = prompt if isinstance(prompt, LeftOut) else _checked_line(prompt, wrapping, written + 1)
        if isinstance(line, LeftOut):
            report(line)
            left_out += 1
            continue
        stream.write(line)
        written += 1
        long_lines += len(line) > LINE_BYTES
    if not written:
        raise InputError("there is no prompt to write" + (": everything was left out" if left_out else ""))
    return Prepared(written, left_out, long_lines)


def _checked_line(prompt: Prompt, wrapping: Wrapping, number: int) -> bytes | LeftOut:
    try:
        line = wrapping.line(prompt)
        parse_line(line.removesuffix(b"\n"), number)
    except LineError as error:
        return LeftOut(prompt.place, str(error))
    return line
