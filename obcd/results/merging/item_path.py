"""The rows of an answer that holds a list: one for each item, with what stands around the list. Pure.

visits                {"name": "Ann", "visits": [{"day": 1}, {"day": 2}]}
→                     {"name": "Ann", "day": 1} and {"name": "Ann", "day": 2}
visits.drugs          the items of the list `drugs` in each item of the list `visits`
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from obcd.core.schema.extract import NoJson
from obcd.errors import ObcdError, UsageError
from obcd.text import printable

#: Most bytes that the rows of one answer may repeat of what stands around their list.
MOST_REPEATED_BYTES = 2**26
#: Most steps of a path; an answer is nested 200 deep at most.
MOST_STEPS = 200
_STEP = re.compile(r"(?P<key>[^.\[\]]+)|\[(?P<index>\d{1,9})\]|\[\*?\]")


class ItemRow(NamedTuple):
    """One row: an item, and the keys that stand around its list.

    Attributes:
        around: `{"name": "Ann"}`; the keys of a list inside a list have its name in front: `{"visits.day": 1}`.
    """

    item: object
    around: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ItemPath:
    """Where the list is in an answer.

    Attributes:
        text: As it was given, e.g. "result.items".
        steps: Keys and indices; a list on the way, and the list at the end, stand for each of their items. None at all:
            an answer that is a list is its items, and any other is one row.
    """

    text: str = ""
    steps: tuple[str | int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ItemPath:
        """Read a path: "items", "result.items", "pages[0].items"; also as jq and JSONPath write it: "$.items[*]".

        Raises:
            UsageError: If it is not one.
        """
        left, steps = text.removeprefix("$").removeprefix("."), list[str | int]()
        while left:
            match = _STEP.match(left)
            if match is None:
                raise UsageError(f"--rows {printable(text)} is not a path: write keys with a point between, as a.items")
            if match["key"] is not None:
                steps.append(match["key"])
            elif match["index"] is not None:
                steps.append(int(match["index"]))
            left = left[match.end() :].removeprefix(".")
        if len(steps) > MOST_STEPS:
            raise UsageError(f"--rows has more than {MOST_STEPS} keys: no answer is nested so deep")
        return cls(text, tuple(steps))

    def rows(self, value: object) -> list[ItemRow] | NoJson:
        """Return the rows of an answer, or why it gives none; an empty list and null have none, which is no fault."""
        if not self.steps:
            return [ItemRow(item, {}) for item in value] if isinstance(value, list) else [ItemRow(value, {})]
        walk = _Walk(printable(self.text))
        try:
            rows = list(walk.rows(value, self.steps, "", _Around({}, 0)))
        except _TooMuchError:
            return NoJson(f"its rows would repeat more than {MOST_REPEATED_BYTES} bytes around `{walk.shown}`")
        return rows if walk.is_found else NoJson(walk.why)

    @property
    def keys(self) -> list[str]:
        """The keys of the path."""
        return [step for step in self.steps if isinstance(step, str)]


class _Around(NamedTuple):
    cells: Mapping[str, object]
    size: int  # of its JSON, in bytes


class _TooMuchError(ObcdError):
    """The rows of one answer repeat too much: they may take the square of its size."""


@dataclass(slots=True)
class _Walk:
    """Finds the lists at the end of a path.

    Attributes:
        is_found: Whether a list was at its place at least once.
        why: Otherwise: why not.
    """

    shown: str
    is_found: bool = False
    repeated: int = 0
    why: str = field(init=False)

    def __post_init__(self) -> None:
        self.why = f"it has no list at `{self.shown}`"

    def rows(self, value: object, steps: tuple[str | int, ...], name: str, around: _Around) -> Iterator[ItemRow]:
        if steps and isinstance(steps[0], int):
            if isinstance(value, list) and steps[0] < len(value):
                yield from self.rows(value[steps[0]], steps[1:], name, around)
        elif isinstance(value, list):
            self.is_found |= not steps
            for item in value:
                if steps:
                    yield from self.rows(item, steps, name, around)
                else:
                    self._count(around)
                    yield ItemRow(item, around.cells)
        elif not steps:
            self.is_found |= value is None
            self.why = f"`{self.shown}` is not a list in it"
        elif isinstance(value, dict):
            key, rest = _key_of(value, steps)
            if key in value:
                others = {f"{name}{other}": cell for other, cell in value.items() if other != key}
                self._count(around)
                wider = _Around({**around.cells, **others}, around.size + len(json.dumps(others)))
                yield from self.rows(value[key], rest, f"{name}{key}.", wider)

    def _count(self, around: _Around) -> None:
        self.repeated += around.size
        if self.repeated > MOST_REPEATED_BYTES:
            raise _TooMuchError


def _key_of(value: Mapping[str, object], steps: tuple[str | int, ...]) -> tuple[str, tuple[str | int, ...]]:
    """Return the key of the next step, and the steps after it; a key may have points in it."""
    count = next((number for number, step in enumerate(steps) if isinstance(step, int)), len(steps))
    for end in range(count, 1, -1):
        key = ".".join(map(str, steps[:end]))
        if key in value:
            return key, steps[end:]
    return str(steps[0]), steps[1:]
