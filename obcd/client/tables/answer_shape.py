"""What `schema=` requests: the `format` of every line, typed columns for its properties, or the objects of a class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obcd.core.request.lines import check_format
from obcd.errors import LineError, UsageError
from obcd.results.merging.column_kinds import ColumnKind, schema_kinds
from obcd.text import printable

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """The form of answers.

    Attributes:
        format: The `format` of a line: a JSON schema, `"json"`, or None for text.
        columns: `{property: kind of its values}` if answers are objects with known properties.
        adapter: Makes the objects of the class that was given; None without one.
    """

    format: Mapping[str, object] | str | None = None
    columns: Mapping[str, ColumnKind] = field(default_factory=dict)
    adapter: TypeAdapter[Any] | None = None

    @classmethod
    def of(cls, schema: Any) -> AnswerShape:
        """Return the form that a schema requests.

        Args:
            schema: None, `"json"`, a JSON schema, a file with one, or a type that pydantic understands: a model, a
                dataclass, a TypedDict, `list[Model]`.

        Raises:
            UsageError: If it is nothing of these, or cannot be held to.
        """
        if schema is None:
            return cls()
        if isinstance(schema, Path):
            try:
                schema = json.loads(schema.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                raise UsageError(f"the schema {printable(str(schema))} cannot be read: {error}") from None
        if isinstance(schema, str | Mapping):
            found = cls._checked(dict(schema) if isinstance(schema, Mapping) else schema)
            return cls(found, schema_kinds(found) if isinstance(found, Mapping) else {})
        from pydantic import PydanticUserError, TypeAdapter  # noqa: PLC0415 - only where a class is given

        try:
            adapter: TypeAdapter[Any] = TypeAdapter(schema)
            return cls(cls._checked(adapter.json_schema()), {}, adapter)
        except (PydanticUserError, TypeError, RecursionError) as error:
            raise UsageError(
                f"schema: {printable(repr(schema))[:80]} is neither a JSON schema nor a pydantic model "
                f"({type(error).__name__})"
            ) from None

    @staticmethod
    def _checked(value: object) -> Mapping[str, object] | str | None:
        try:
            return check_format(value)
        except LineError as error:
            hint = "; for a file give its pathlib.Path" if isinstance(value, str) else ""
            raise UsageError(f"schema: {str(error).removeprefix('`format` ')}{hint}") from None

    def value_of(self, parsed: object) -> object:
        """Return the value of an answer: the object of the class, or the JSON value itself.

        Raises:
            ValueError: If the class refuses it; the message is for its user, because it may quote the answer.
        """
        if self.adapter is None:
            return parsed
        from pydantic import ValidationError  # noqa: PLC0415 - as above

        try:
            return self.adapter.validate_json(json.dumps(parsed))  # as JSON: a strict model takes no date as a text
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
