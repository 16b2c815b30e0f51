"""The results of a job as typed values: an answer, a failure, and the state of the job."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from obcd.core.answer.outcomes import NOT_PARSED
from obcd.errors import ObcdError
from obcd.results.reading.answers import Answer, FailedLine
from obcd.text_files import LeftOut


class ObcdWarning(ObcdError, UserWarning):
    """Something that a person should know; nothing is lost."""


def warn(text: str) -> None:
    """Warn at the line of the user's program that called obcd, however many calls lie between."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("obcd."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, ObcdWarning, stacklevel=level)


#: The class of a failure whose line in the outbox is damaged.
DAMAGED = "damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAnswer:
    """An answered row.

    Attributes:
        row: The number of the row, from 0: `rows[answer.row]`.
        id: The id of the row; its number from 1 if it has none.
        prompt: The prompt; the texts of a row with vectors.
        response: The text; None for vectors.
        value: The JSON value of a structured answer, or the object of the class that was given as `schema`; else None.
        model, endpoint: What answered.
        attempts: The number of the attempt that was answered, from 1.
        seconds: Seconds from the request to its reply.
        prompt_tokens, eval_tokens: Read and generated.
        extra: The row's own fields that the result repeats.
        record: All keys of the line of responses.jsonl, e.g. `thinking`, `tool_calls`, `embeddings`.
    """

    row: int
    id: object
    prompt: object
    response: str | None
    value: object = None
    model: str = ""
    endpoint: str = ""
    attempts: int = 1
    seconds: float = 0.0
    prompt_tokens: int = 0
    eval_tokens: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)
    record: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, answer: Answer, value: object) -> JobAnswer:
        """Return the answer of a line."""
        record = answer.record
        response, extra = answer.response, record.get("extra")
        return cls(
            row=(answer.line or 1) - 1,
            id=record.get("id"),
            prompt=record.get("prompt"),
            response=response if isinstance(response, str) else None,
            value=value,
            model=_text(record, "model"),
            endpoint=_text(record, "endpoint"),
            attempts=_whole(record, "attempts"),
            seconds=_number(record, "seconds"),
            prompt_tokens=_whole(record, "prompt_tokens"),
            eval_tokens=_whole(record, "eval_tokens"),
            extra=extra if isinstance(extra, dict) else {},
            record=record,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """A row without an answer.

    Attributes:
        row: The number of the row, from 0; None if the outbox is damaged there.
        id: The id of the row; its number from 1 if it has none.
        kind: The class of the failure, e.g. `timeout`; see the manual's page about troubleshooting.
        message: One sentence; it may quote the answer.
        attempts: How often the request was sent; 0 if it was not.
        record: All keys of the line of errors.jsonl.
    """

    row: int | None
    id: object
    kind: str
    message: str
    attempts: int = 0
    record: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, failed: LeftOut) -> JobFailure:
        """Return the failure of a line, or a damaged line."""
        if not isinstance(failed, FailedLine):
            return cls(row=None, id=None, kind=DAMAGED, message=f"{failed.place}: {failed.reason}")
        record = failed.record
        return cls(
            row=failed.line - 1,
            id=failed.id,
            kind=_text(record, "class"),
            message=_text(record, "message") or failed.reason,
            attempts=_whole(record, "attempts"),
            record=record,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The state of a job.

    Attributes:
        state: `WAITING` (in the inbox, or being accepted), `PUBLISHED`, `REJECTED`, `REMOVED` (published before, and
            its result is not in the outbox any more), or a state that `obcd status`
            shows: `ACCEPTED`, `RUNNING`, `PAUSED`, `CANCELLED`, `COMPLETE`, `QUARANTINED`.
        done, total, failed: Numbers of rows: with a result, all, and without an answer. 0 while they are not known.
        tokens_per_second: The present rate.
        eta_seconds: Seconds to go at the present rate; None while that is not known.
        why: Why the job does not continue, or was rejected, for people; "" while all is well.
        folder: Its folder in the outbox once it is published.
    """

    state: str
    done: int = 0
    total: int = 0
    failed: int = 0
    tokens_per_second: float = 0.0
    eta_seconds: float | None = None
    why: str = ""
    folder: Path | None = None

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.state in (PUBLISHED, REJECTED, REMOVED)


#: States of a job that no coordinator has any more, or not yet.
WAITING, PUBLISHED, REJECTED, REMOVED = "WAITING", "PUBLISHED", "REJECTED", "REMOVED"


def parsed_value(answer: Answer) -> object:
    """Return the JSON value that was found in the text of an answer, None if it was not looked for."""
    return None if answer.parsed is NOT_PARSED else answer.parsed


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def _whole(record: Mapping[str, object], key: str) -> int:
    value = record.get(key)
    return value if isinstance(value, int) else 0


def _number(record: Mapping[str, object], key: str) -> float:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) else 0.0
