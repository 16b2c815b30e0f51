"""`obcd.ask`: rows in, answers out, in the same order and with the same index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from obcd.client.batching import batch
from obcd.client.jobs import Job
from obcd.client.records import JobAnswer, JobFailure, warn
from obcd.client.submission import index_of, submit
from obcd.client.tables.answer_shape import AnswerShape
from obcd.client.tables.answer_table import cell_of, value_columns
from obcd.client.tables.frames import is_empty, library_of, to_column, to_frame
from obcd.text import plural

if TYPE_CHECKING:
    from obcd.client.submission import RequestOptions


def ask(  # noqa: PLR0913 - the options of a request, by name
    rows: Any,
    template: str | None = None,
    *,
    schema: object = None,
    key: str | None = None,
    profile: str = "",
    again: bool = False,
    progress: bool | None = None,
    timeout: float | None = None,
    daemon: bool = True,
    output: str | os.PathLike[str] = "responses",
    config: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    **options: Unpack[RequestOptions],
) -> Any:
    """Submit rows, wait for the answers, and return them in the order of the rows.

        df["summary"] = obcd.ask(df, "Summarise: {note}")
        df = df.join(obcd.ask(df, "What does it say of blood pressure? {note}", schema=schema))

    A cell that is run again returns what was answered: without a key the content is the key.

    Args:
        rows, template, schema, key, profile, again, config, root, options: As for `submit`.
        progress: As for `Job.wait`.
        timeout: Seconds to wait; None: no limit.
        daemon: Whether a daemon answers; False: as `batch` does, in this program.
        output: For `daemon=False`: the folder of the answers.

    Returns:
        For a table or a column of pandas, polars or Arrow the answers in the same library: a column, or with a JSON
        schema of an object a table with a typed column for each property. A class as schema gives its objects. The
        index of pandas is kept. For other rows a list: of texts, or of values of the schema. Where a row has no answer,
        its value is missing (NA, null, None), and a warning says how to see all failures: `attach(key).failures()`.
        No answers for a table or a list without rows, for which nothing is submitted.

    Raises:
        TimedOutError: When the time is over; the job continues, and the same call again goes on waiting for it.
        JobRejected, KeyConflict, ResultRemoved, InputError, UsageError, ConfigurationError: As `submit` and `Job.wait`.
    """
    if is_empty(rows):
        return _column_or_table([], AnswerShape.of(schema), rows)
    if daemon:
        job = submit(
            rows, template, key=key, profile=profile, schema=schema, again=again, config=config, root=root, **options
        )
        job.wait(timeout, progress=progress)
    else:
        job = batch(
            rows, template, key=key, profile=profile, schema=schema, output=output, config=config, progress=progress,
            **options,
        )  # fmt: skip
    return _answers(job, rows, daemon=daemon)


def _answers(job: Job, rows: Any, *, daemon: bool) -> Any:
    index, shape = job.index, job.answer_shape
    cells: list[Any] = []
    failures, first = 0, ""
    for item in job.records():
        if isinstance(item, JobFailure):
            failures += 1
            first = first or f"row {item.row}: {item.kind}"
        if item.row is not None:
            if not isinstance(rows, Path):  # a damaged outbox must not shift the answers; a file may have blank lines
                cells.extend([None] * (item.row - len(cells)))
            cells.append(cell_of(item, shape) if isinstance(item, JobAnswer) else None)
    if index is not None:
        cells.extend([None] * (len(index) - len(cells)))
    if failures:
        find = (
            f"obcd.attach({job.key!r}{f', profile={job.profile!r}' if job.profile else ''})"
            if daemon
            else "obcd.batch(…)"
        )
        warn(
            f"{failures} of {plural(len(cells), 'row')} failed and have missing values ({first}): {find}.failures() "
            "lists them"
        )
    return _column_or_table(cells, shape, rows)


def _column_or_table(cells: list[Any], shape: AnswerShape, rows: Any) -> Any:
    """Return the answers in the library of the rows."""
    library, index = library_of(rows), index_of(rows)
    if not library:
        return cells
    columns = dict(value_columns(cells, shape, "response"))
    if shape.columns:
        return to_frame(library, columns, index)
    ((name, column),) = columns.items()
    return to_column(library, name, column, index)
