"""The one way to a golden file: compare with it, or write it where `OBCD_GOLDEN=write` says so."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
#: Whether golden files are written instead of compared.
IS_WRITING = os.environ.get("OBCD_GOLDEN") == "write"

#: Longest object or array that is written in one line, in characters.
LINE_LENGTH = 300


def load(name: str) -> dict[str, Any]:
    """Return a golden document; an empty one where there is none yet."""
    path = FOLDER / name
    return dict(json.loads(path.read_bytes())) if path.exists() else {}


def store(name: str, document: dict[str, Any]) -> None:
    """Write a golden document."""
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_written(document, "") + "\n", "utf-8")


def _written(value: Any, indent: str) -> str:
    """Return JSON whose small objects and arrays stand in one line."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= LINE_LENGTH or not isinstance(value, (dict, list)):
        return text
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_written(item, inner)}" for key, item in value.items()]
    else:
        parts = [_written(item, inner) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{end}"


def assert_golden(name: str, found: dict[str, Any]) -> None:
    """Assert that a document is the golden one, the order of its keys included, or make it the golden one."""
    if IS_WRITING:
        store(name, found)
    differences = list(compare(load(name), json.loads(json.dumps(found))))
    if differences:
        fail(name, differences)


def assert_bytes(name: str, found: bytes) -> None:
    """Assert that a document is the golden one, byte for byte, or make it the golden one."""
    path = FOLDER / "data" / "documents" / name
    if IS_WRITING:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found)
    assert found == path.read_bytes()


def fail(name: str, differences: list[str]) -> None:
    """Fail with the places that differ, and what to do if that is meant."""
    text = "\n".join(differences[:40])
    pytest.fail(f"{name} is not what it was:\n{text}\n(if that is meant: OBCD_GOLDEN=write, see tests/README.md)")


def compare(golden: Any, found: Any, place: str = "") -> list[str]:
    """Return a line for each difference of two JSON documents, e.g. `submit.params.--wait: {…} -> gone`."""
    if isinstance(golden, dict) and isinstance(found, dict):
        inner = f"{place}." if place else ""
        lines = [f"{inner}{key}: {_shown(golden[key])} -> gone" for key in golden if key not in found]
        lines += [f"{inner}{key}: new, {_shown(found[key])}" for key in found if key not in golden]
        for key in golden:
            if key in found:
                lines += compare(golden[key], found[key], f"{inner}{key}")
        if not lines and list(golden) != list(found):
            lines = [f"{place or 'the document'}: another order, {_shown(list(found))}"]
        return lines
    if json.dumps(golden) == json.dumps(found):
        return []
    return [f"{place}: {_shown(golden)} -> {_shown(found)}"]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "…"


def copy(source: Path, target: Path) -> Path:
    """Copy the files of a folder, without the modes of its folders."""
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    return target
