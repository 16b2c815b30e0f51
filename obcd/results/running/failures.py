"""The failures of a job by class, with the first message of each. A message may quote an answer: it is never logged."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from obcd.core.answer.openai.openai_response import to_record
from obcd.core.answer.outcomes import Failure
from obcd.core.answer.record_codec import decode, ordinal_of
from obcd.core.schema.extract import NoJson, parse_strict
from obcd.results.reading.answers import MAX_RECORD_BYTES
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import read_firsts, read_header, read_place
from obcd.text_files import bounded_lines

#: What every record of a failure has near its beginning (`record_codec.encode`).
_MARK = b'"outcome":"failure"'


@dataclass(slots=True)
class FailureClass:
    """The failures of one class.

    Attributes:
        count: How many requests failed so.
        line, message: Of the first one; 0 and "" if they cannot be read.
    """

    count: int = 0
    line: int = 0
    message: str = ""


def recorded_failures(folder: Path) -> dict[str, FailureClass]:
    """Return the failures in a job's ledger: `{class: its failures}`, the most frequent first.

    Raises:
        OSError: If the folder is gone, or closed to this user.
        ValueError, KeyError, TypeError, RecordError: If it is damaged.
    """
    header = read_header(folder)
    firsts = read_firsts(folder, header)
    times = Counter(firsts) if firsts is not None else None
    seen = bytearray(header.requests)

    def failures() -> Iterator[tuple[str, int, str, int]]:
        for _, raw in ledger.read_valid(folder / ledger.NAME):
            ordinal = ordinal_of(raw)
            if not 0 <= ordinal < header.requests or seen[ordinal]:
                continue
            seen[ordinal] = 1
            if _MARK in raw[:120] and isinstance(result := decode(raw), Failure):
                line = result.line or read_place(folder, ordinal).line
                yield result.kind, line, result.message, 1 if times is None else times[ordinal]

    return _by_class(failures())


def published_failures(folder: Path) -> dict[str, FailureClass]:
    """Return the failures of an errors.jsonl, of a published folder or of a preview; {} if there is none."""

    def failures() -> Iterator[tuple[str, int, str, int]]:
        with contextlib.suppress(OSError), open(folder / "errors.jsonl", "rb") as file:
            for raw in bounded_lines(file, MAX_RECORD_BYTES):
                parsed = parse_strict(raw.decode("utf-8", "replace"))
                if isinstance(parsed, NoJson) or not isinstance(parsed.value, dict):
                    continue  # the last line of a preview that is being written
                record = to_record(parsed.value)
                line = record.get("line")
                yield str(record.get("class")), line if type(line) is int else 0, str(record.get("message", "")), 1

    return _by_class(failures())


def _by_class(failures: Iterable[tuple[str, int, str, int]]) -> dict[str, FailureClass]:
    found: dict[str, FailureClass] = {}
    for kind, line, message, times in failures:
        of_class = found.setdefault(kind, FailureClass(0, line, message))
        of_class.count += times
    return dict(sorted(found.items(), key=lambda item: -item[1].count))
