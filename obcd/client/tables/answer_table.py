"""The results of a job as columns: one cell for each row, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from obcd.client.records import JobAnswer, JobFailure
from obcd.client.tables.answer_shape import AnswerShape
from obcd.client.tables.frames import AnswerColumn
from obcd.results.merging.column_kinds import ColumnKind

_TEXT, _INT, _FLOAT = ColumnKind.TEXT, ColumnKind.INT, ColumnKind.FLOAT


def answer_columns(records: Iterable[JobAnswer | JobFailure], shape: AnswerShape) -> dict[str, AnswerColumn]:
    """Return the columns of `jobs.Job.to_pandas`."""
    ids: list[Any] = []
    kept: dict[str, list[Any]] = {}
    values, errors, models = list[Any](), list[str | None](), list[str | None]()
    seconds, read, generated = list[float | None](), list[int | None](), list[int | None]()
    has_vectors = False
    for number, item in enumerate(item for item in records if item.row is not None):
        answer = item if isinstance(item, JobAnswer) else None
        ids.append(item.id)
        if answer is not None:
            for name, value in answer.extra.items():
                of_name = kept.setdefault(name, [])
                of_name.extend([None] * (number - len(of_name)))
                of_name.append(value)
            has_vectors = has_vectors or "embeddings" in answer.record
        values.append(None if answer is None else cell_of(answer, shape))
        errors.append(f"{item.kind}: {item.message}" if isinstance(item, JobFailure) else None)
        models.append(None if answer is None else answer.model)
        seconds.append(None if answer is None else answer.seconds)
        read.append(None if answer is None else answer.prompt_tokens)
        generated.append(None if answer is None else answer.eval_tokens)
    columns: dict[str, AnswerColumn] = {}

    def place(name: str, column: AnswerColumn) -> None:
        while name in columns:
            name += "_"
        columns[name] = column

    place("id", AnswerColumn(ids, _kind_of_ids(ids)))
    for name, cells in kept.items():
        place(name, AnswerColumn(cells + [None] * (len(ids) - len(cells)), _kind_of_ids(cells)))
    for name, column in value_columns(values, shape, "embedding" if has_vectors else "response"):
        place(name, column)
    place("error", AnswerColumn(list(errors), _TEXT))
    place("model", AnswerColumn(list(models), _TEXT))
    place("seconds", AnswerColumn(list(seconds), _FLOAT))
    place("prompt_tokens", AnswerColumn(list(read), _INT))
    place("eval_tokens", AnswerColumn(list(generated), _INT))
    return columns


def cell_of(answer: JobAnswer, shape: AnswerShape) -> Any:
    """Return what an answer is in a table: its value if a form was requested, its text, or its vectors."""
    if shape.format is not None:
        return answer.value
    if answer.response is not None:
        return answer.response
    vectors = answer.record.get("embeddings")
    return vectors[0] if isinstance(vectors, list) and len(vectors) == 1 else vectors


def value_columns(
    cells: list[Any], shape: AnswerShape, text_name: str = "response"
) -> Iterator[tuple[str, AnswerColumn]]:
    """Yield the columns of what answers hold: of each property of a schema, of the values, or of the texts."""
    for name, kind in shape.columns.items():
        yield name, AnswerColumn([cell.get(name) if isinstance(cell, dict) else None for cell in cells], kind)
    if not shape.columns:
        yield ("value", AnswerColumn(cells)) if shape.format is not None else (text_name, AnswerColumn(cells, _TEXT))


def _kind_of_ids(ids: Iterable[object]) -> ColumnKind | None:
    """Return the kind of a column of the user's own values; None if they have several types."""
    types = {type(value) for value in ids if value is not None}
    if types <= {str} and types:
        return _TEXT
    if types == {bool}:
        return ColumnKind.BOOL
    return _INT if types == {int} else _FLOAT if types == {float} else None
