"""A schema, a class, or none: what is requested of answers, and what becomes of them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict

from obcd.client.tables.answer_shape import AnswerShape
from obcd.errors import UsageError
from obcd.results.merging.column_kinds import ColumnKind

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "smokes": {"type": ["boolean", "null"]}, "drugs": {"type": "array"}},
}


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


class Visit(BaseModel):
    model_config = ConfigDict(strict=True)
    day: date
    age: Annotated[int, AfterValidator(_even)]


def test_schema_gives_the_kinds_of_columns(tmp_path: Path) -> None:
    file = tmp_path / "visit.json"
    file.write_text(json.dumps(SCHEMA))

    for schema in (SCHEMA, file):
        shape = AnswerShape.of(schema)
        assert shape.format == SCHEMA
        assert shape.columns == {"age": ColumnKind.INT, "smokes": ColumnKind.BOOL, "drugs": ColumnKind.TEXT}
    assert AnswerShape.of(None) == AnswerShape()
    assert AnswerShape.of("json").format == "json"


def test_class_gives_its_objects_and_its_own_rules_count() -> None:
    shape = AnswerShape.of(Visit)

    assert shape.value_of({"day": "2026-11-22", "age": 54}) == Visit(day=date(2026, 11, 22), age=54)
    with pytest.raises(ValueError, match=r"age: .*odd"):
        shape.value_of({"day": "2026-11-22", "age": 53})
    listed = AnswerShape.of(list[Visit]).value_of([{"day": "2026-11-22", "age": 2}])
    assert listed == [Visit(day=date(2026, 11, 22), age=2)]


@pytest.mark.parametrize("schema", ["xml", {"type": "nonsense"}, 7, object(), Path("/nowhere.json")])
def test_what_cannot_be_held_to_is_refused(schema: Any) -> None:
    with pytest.raises(UsageError, match="schema"):
        AnswerShape.of(schema)
