from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Return a function that lays out a published folder: publish("notes", {1: "answer"}, failed={2: "timeout"})."""

    def lay_out(
        name: str, answers: dict[int, Any], failed: dict[int, str] | None = None, root: Path = tmp_path
    ) -> Path:
        folder = root / name
        folder.mkdir(parents=True)
        lines = [
            {"id": f"n{line}", "line": line, "prompt": f"question {line}", "response": answer, "seconds": 1.25}
            for line, answer in answers.items()
        ]
        failures = [
            {"line": line, "id": f"n{line}", "class": kind, "message": f"secret {line}", "attempts": 3}
            for line, kind in (failed or {}).items()
        ]
        counts = {"requests": len(lines) + len(failures), "responses": len(lines), "failures": len(failures)}
        (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if failures:
            (folder / "errors.jsonl").write_text("".join(json.dumps(line) + "\n" for line in failures))
        (folder / "manifest.json").write_text(json.dumps({"job": "x", "name": f"{name}.jsonl", "counts": counts}))
        return folder

    return lay_out
