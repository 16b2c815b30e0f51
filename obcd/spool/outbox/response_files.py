"""One JSON file for each answer, as ollama-batch-cluster wrote them (`files = true`, `obcd batch --files`).

    <epoch>-<line>.json           {"prompt": "…", "response": "…"}, indent 4, non-ASCII kept
    <epoch>-<line>-<index>.json   each of several answers to one prompt, index from 0

The names of a job's files do not depend on when they are written, so that writing them again replaces them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from obcd.core.answer.vectors import VectorsJson

#: Bytes that a small file takes on a disk: a block of ext4 and XFS.
BLOCK_BYTES = 4096


def write_files(folder: Path, epoch: int, answer: Mapping[str, object], mode: int = 0o666) -> int:
    """Write the file of one line of responses.jsonl, or one for each of its answers; not durable by itself.

    Args:
        folder: Where they are written.
        epoch: The second in their names.
        answer: The line, in obcd's own shape.
        mode: Permissions, less those that the umask takes.

    Returns:
        The number of files.

    Raises:
        OSError: If one cannot be written.
        KeyError: If the line is not a response.
    """
    stem, several = f"{epoch}-{answer['line']}", answer.get("responses")
    several = several if isinstance(several, list) else []
    named = [(f"{stem}-{index}", each) for index, each in enumerate(several)] or [(stem, answer)]
    for name, each in named:
        _write_one(folder / f"{name}.json", answer["prompt"], each, mode)
    return len(named)


def remove_files(folder: Path, epoch: int) -> None:
    """Remove the files that `write_files` wrote."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lstrip(".").startswith(f"{epoch}-"):
                os.unlink(entry.path)


def _write_one(path: Path, prompt: object, answer: Mapping[str, object], mode: int) -> None:
    key = "embeddings" if "embeddings" in answer else "response"
    said = answer[key]
    document = {"prompt": prompt, key: said.lists if isinstance(said, VectorsJson) else said}
    if answer.get("tool_calls"):
        document["tool_calls"] = answer["tool_calls"]
    text = json.dumps(document, ensure_ascii=False, indent=4)
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
    temporary.replace(path)
