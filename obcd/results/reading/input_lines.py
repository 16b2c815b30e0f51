"""The prompts of a published job whose output lines do not repeat them: those of OpenAI's shape, which has no place.

Both files are in the input's order, so that one walk through the input serves a walk through the output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from obcd.core.answer.openai.openai_response import is_told, to_record
from obcd.core.request.lines import parse_line
from obcd.errors import LineError
from obcd.text_files import bounded_lines

#: Longest line that is looked at for its prompt; a longer one was never asked.
MAX_LINE_BYTES = 2**28


class InputLines:
    """Walks through an input and gives its lines by their numbers, which must ascend. To be closed by `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._rest: Iterator[bytes] = iter(())
        self._at = 0  # number of the last line that was read

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._stream = open(self._path, "rb")
            self._rest = bounded_lines(self._stream, MAX_LINE_BYTES)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._stream is not None:
            self._stream.close()

    def prompt(self, line: int) -> str | list[str] | None:
        """Return the prompt of a line as our own outputs repeat it; None where there is none to be read."""
        with contextlib.suppress(OSError, LineError):
            while self._at < line:
                raw = next(self._rest, None)
                if raw is None:
                    break
                self._at += 1
                if self._at == line:
                    return parse_line(raw.removesuffix(b"\n").removeprefix(b"\xef\xbb\xbf"), line).echo
        return None


def our_answer(document: dict[str, object], lines: InputLines) -> dict[str, object]:
    """Return a line of responses.jsonl in our own shape, its prompt taken from the input where it is OpenAI's."""
    if not is_told(document):
        return document
    record = to_record(document)
    line = record.get("line")
    prompt = lines.prompt(line) if type(line) is int else None
    return record if prompt is None else {"id": record["id"], "line": line, "prompt": prompt, **record}
