"""The tree of errors: whatever obcd raises on purpose stands under one root."""

from __future__ import annotations

import ast
import builtins
from pathlib import Path

import obcd

BUILT_IN = {name for name, item in vars(builtins).items() if isinstance(item, type) and issubclass(item, BaseException)}


def test_every_error_of_obcd_stands_under_its_root() -> None:
    beside = [
        f"{path.name}: {node.name}"
        for path in Path(obcd.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef) and node.bases and all(ast.unparse(base) in BUILT_IN for base in node.bases)
    ]

    assert beside == ["errors.py: ObcdError"]
