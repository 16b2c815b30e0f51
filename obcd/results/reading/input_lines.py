"""Read the prompts of a published job from its input: output lines of OpenAI's shape have no place for them.

Both files are in the order of the input, so one pass over the input is enough for one pass over the output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from obcd.core.answer.openai.openai_response import is_openai_line, to_record
from obcd.core.request.keys.dropped_keys import Everything
from obcd.core.request.lines import parse_line
from obcd.core.request.rows import Reading
from obcd.errors import LineError
from obcd.text_files import bounded_lines

#: Longest line that is read for its prompt; a longer one was never sent.
MAX_LINE_BYTES = 2**28


#: For lines that were accepted, whatever their profile ignored.
_ACCEPTED = Reading(ignore=Everything())


class InputLines:
    """Reads the lines of an input by their numbers, which must ascend. A context manager."""

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
        """Return the prompt of a line as obcd's own outputs repeat it; None if it cannot be read."""
        with contextlib.suppress(OSError, LineError):
            while self._at < line:
                raw = next(self._rest, None)
                if raw is None:
                    break
                self._at += 1
                if self._at == line:
                    bare = raw.removesuffix(b"\n").removeprefix(b"\xef\xbb\xbf")
                    return parse_line(bare, line, _ACCEPTED).echo
        return None


def our_answer(document: dict[str, object], lines: InputLines) -> dict[str, object]:
    """Return a line of responses.jsonl in obcd's own shape; one in OpenAI's shape gets its prompt from the input."""
    if not is_openai_line(document):
        return document
    record = to_record(document)
    line = record.get("line")
    prompt = lines.prompt(line) if type(line) is int else None
    return record if prompt is None else {"id": record["id"], "line": line, "prompt": prompt, **record}
