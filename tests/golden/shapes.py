"""What keys a JSON document has and what is behind each, without its values.

{"id": 7, "tags": ["a"]}  ->  {"id": "integer", "tags": "array", "tags[]": "string"}
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

#: Stands for keys that are names of the user's own: of endpoints, models, files.
ANY = "*"
#: What JSON calls what Python reads of it; numbers are distinguished, as readers do.
KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


def shape(documents: Iterable[Any], free: Collection[str] = (), passed: Collection[str] = ()) -> dict[str, str]:
    """Return the places of some documents of one kind, each object's in the order in which they come, with their types.

    Args:
        free: Places of objects whose keys are names, e.g. `endpoints`, `jobs[].shares`; their keys become `*`.
        passed: Places below which nothing is looked at.
    """
    root = _Node()
    for document in documents:
        root.add(document, "", free, passed)
    return dict(root.places(""))


class _Node:
    """One place: what kinds of values are there, and the places below it."""

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._below: dict[str, _Node] = {}

    def add(self, value: Any, place: str, free: Collection[str], passed: Collection[str]) -> None:
        self._kinds.add(KINDS[type(value)])
        if place in passed:
            return
        if isinstance(value, dict):
            steps = [
                ((f".{ANY}" if place in free else f".{key}") if place else key, item) for key, item in value.items()
            ]
        else:
            steps = [("[]", item) for item in value] if isinstance(value, list) else []
        for step, item in steps:
            self._below.setdefault(step, _Node()).add(item, place + step, free, passed)

    def places(self, place: str) -> Iterator[tuple[str, str]]:
        yield place or ".", " or ".join(sorted(self._kinds))
        for step, node in self._below.items():
            yield from node.places(place + step)
