"""The tree of errors: whatever obcd raises on purpose stands under one root."""

from __future__ import annotations

import builtins
import re
from pathlib import Path

import obcd

#: A class and its bases.
CLASS = re.compile(r"^ *class (\w+)\(([^()]+)\):", re.MULTILINE)
BUILT_IN = {name for name, item in vars(builtins).items() if isinstance(item, type) and issubclass(item, BaseException)}


def test_every_error_of_obcd_stands_under_its_root() -> None:
    beside = [
        f"{path.name}: {name}"
        for path in Path(obcd.__file__).parent.rglob("*.py")
        for name, bases in CLASS.findall(path.read_text("utf-8"))
        if all(base.strip() in BUILT_IN for base in bases.split(","))
    ]

    assert beside == ["errors.py: ObcdError"]
