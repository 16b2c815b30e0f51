"""Frozen dataclasses that are the objects of a JSON file: a field is a key, and keys have the order of the fields.

A reader of another version ignores keys that it does not know, and uses the default for a field that the file does
not have. A field that is added later therefore needs a default.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import partial
from operator import attrgetter
from typing import Self, Union, get_args, get_origin, get_type_hints

#: `metadata` of a field that is left out of the file while it is None, and of a field that is never in the file.
LEFT_OUT_IF_NONE: Mapping[str, bool] = {"left_out_if_none": True}
UNWRITTEN: Mapping[str, bool] = {"unwritten": True}

#: Converts a value of a JSON document to the value of a field; raises ValueError.
Reader = Callable[[object], object]


class Document:
    """Base class of a dataclass that is an object of a JSON file; it has at least two fields.

    Supported field types: str, bool, int, float, a document, `tuple[X, ...]`, `Mapping[str, X]`, `X | None`, and object
    for any value.
    """

    __slots__ = ()

    def to_json(self) -> dict[str, object]:
        """Return the object, for `json.dumps`: a tuple becomes a list."""
        shape = _shape(type(self))
        document: dict[str, object] = dict(zip(shape.names, shape.values(self), strict=True))
        for name in shape.nested:
            document[name] = [item.to_json() for item in getattr(self, name)]
        for name in shape.single:
            document[name] = getattr(self, name).to_json()
        for name in shape.optional:
            if document[name] is None:
                del document[name]
        return document

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Read an object.

        Raises:
            ValueError: If a key is missing, or a value has another type.
        """
        if not isinstance(document, dict):
            raise ValueError(f"{cls.__name__}: no object")
        shape = _shape(cls)
        if missing := shape.required - document.keys():
            raise ValueError(f"{cls.__name__}: no {min(missing)}")
        return cls(**{name: read(document[name]) for name, read in shape.readers.items() if name in document})


@dataclass(frozen=True, slots=True)
class _Shape:
    """The written fields of a document: a getter of all values, the names of all fields, and the names of some kinds.

    `nested` names those that are tuples of documents, `single` those that are one document.
    """

    names: tuple[str, ...]
    values: Callable[[object], tuple[object, ...]]
    nested: tuple[str, ...]
    single: tuple[str, ...]
    optional: tuple[str, ...]
    required: frozenset[str]
    readers: Mapping[str, Reader]


#: {class: its shape}, filled at the first use of a class
_SHAPES: dict[type, _Shape] = {}


def _shape(kind: type[Document]) -> _Shape:
    if kind not in _SHAPES:
        _SHAPES[kind] = _make_shape(kind)
    return _SHAPES[kind]


def _make_shape(kind: type) -> _Shape:
    hints = get_type_hints(kind)
    written = [item for item in fields(kind) if not item.metadata.get("unwritten")]
    names = tuple(item.name for item in written)
    return _Shape(
        names=names,
        values=attrgetter(*names),
        nested=tuple(name for name in names if any(map(_is_document, get_args(hints[name])))),
        single=tuple(name for name in names if _is_document(hints[name])),
        optional=tuple(item.name for item in written if item.metadata.get("left_out_if_none")),
        required=frozenset(item.name for item in written if item.default is MISSING is item.default_factory),
        readers={name: _reader(hints[name]) for name in names},
    )


def _is_document(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Document)


def _reader(hint: object) -> Reader:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is object:
        return lambda value: value
    if hint is float:
        return _read_float
    if origin is tuple:
        return partial(_read_list, _reader(inner[0]), _plain_types(inner[0]))
    if origin is Mapping:
        return partial(_read_mapping, _reader(inner[1]))
    if origin in (types.UnionType, Union):
        (other,) = (item for item in inner if item is not types.NoneType)
        return partial(_read_optional, _reader(other))
    assert isinstance(hint, type)
    return hint.from_json if issubclass(hint, Document) else partial(_read_exactly, hint)


def _read_exactly(kind: type, value: object) -> object:
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}: {value!r:.100}")
    return value


def _read_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"no number: {value!r:.100}")
    if not -sys.float_info.max <= value <= sys.float_info.max:  # NaN, or an integer beyond every float
        raise ValueError("no finite number")
    return float(value)


def _plain_types(hint: object) -> frozenset[type]:
    """Return the types of the values that are read as they are; empty for documents, lists and any values."""
    inner = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    return frozenset(inner) if set(inner) <= {str, bool, int, float, types.NoneType} else frozenset()


def _read_list(read: Reader, plain: frozenset[type], value: object) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise ValueError(f"no list: {value!r:.100}")
    found = set(map(type, value))
    if found <= plain and (float not in found or _are_finite(value)):  # the history has millions of them
        return tuple(value)
    return tuple(map(read, value))


def _are_finite(values: list[float | None]) -> bool:
    return math.isfinite(sum(value for value in values if value is not None))


def _read_mapping(read: Reader, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"no object: {value!r:.100}")
    return {key: read(item) for key, item in value.items()}


def _read_optional(read: Reader, value: object) -> object:
    return None if value is None else read(value)
