"""`import obcd`: the names that a program finds, the same for Python and for type checkers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import obcd
from obcd.errors import ObcdError


def test_names_are_those_of_the_types() -> None:
    stub = Path(obcd.__file__).with_suffix(".pyi").read_text("utf-8")
    typed = re.findall(r"^from ([\w.]+) import (\w+) as \2$", stub, re.MULTILINE)

    assert {"__version__", *(name for _, name in typed)} == set(obcd.__all__)
    for place, name in typed:
        assert inspect.getmodule(getattr(obcd, name)).__name__ == place  # type: ignore[union-attr]
    assert set(obcd.__all__) <= set(dir(obcd))


def test_every_name_says_what_it_is_for() -> None:
    for name in set(obcd.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(obcd, name)), name
    for name, member in inspect.getmembers(obcd.Job):
        if not name.startswith("_") and not inspect.ismemberdescriptor(member):  # attributes are in the class's own
            assert inspect.getdoc(member), name


def test_errors_have_one_root() -> None:
    errors = [getattr(obcd, name) for name in obcd.__all__ if isinstance(getattr(obcd, name), type)]

    raised = [item for item in errors if issubclass(item, Exception) and not issubclass(item, Warning)]
    assert len(raised) > 8
    assert all(issubclass(item, ObcdError) for item in raised)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="submitt"):
        obcd.submitt  # type: ignore[attr-defined]  # noqa: B018
