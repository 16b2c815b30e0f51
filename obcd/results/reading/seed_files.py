"""Write one JSON file per answer of a published folder, as ollama-batch-cluster wrote them.

    <epoch>-<line>.json           {"prompt": "…", "response": "…"}, indent 4, non-ASCII kept
    <epoch>-<line>-<index>.json   each of several answers to one prompt, index from 0

A name cannot collide: the line number is unique in the job, and the second is one that no other file has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from obcd.errors import InputError
from obcd.results.reading.input_lines import InputLines, our_answer
from obcd.spool.folders import disk

#: File inside the published folder with the second in the names of a folder's files, so that a repeated call writes the
#: same files and not others.
STAMP = "response-files.json"


def write_response_files(published: Path, output: Path) -> int:
    """Write one file per answer into `output`.

    Returns:
        The number of files.

    Raises:
        InputError: If the published folder is damaged or `output` cannot be written.
    """
    try:
        epoch = _choose_epoch(published, output)
        count = 0
        with (
            open(published / "responses.jsonl", encoding="utf-8") as lines,
            InputLines(published / "input.jsonl") as asked,
        ):
            for line in lines:
                answer = our_answer(json.loads(line), asked)
                stem, several = f"{epoch}-{answer['line']}", answer.get("responses")
                several = several if isinstance(several, list) else []
                named = [(f"{stem}-{index}", each) for index, each in enumerate(several)] or [(stem, answer)]
                for name, each in named:
                    _write_one(output / f"{name}.json", answer["prompt"], each)
                count += len(named)
        disk.sync_folder(output)
    except OSError as error:
        raise InputError(f"cannot write the response files: {error.strerror} ({error.filename or output})") from None
    except (ValueError, KeyError):
        raise InputError(f"{published / 'responses.jsonl'} is damaged: obcd did not publish this folder") from None
    return count


def _write_one(path: Path, prompt: object, answer: Mapping[str, object]) -> None:
    key = "embeddings" if "embeddings" in answer else "response"
    document = {"prompt": prompt, key: answer[key]}
    if answer.get("tool_calls"):
        document["tool_calls"] = answer["tool_calls"]
    text = json.dumps(document, ensure_ascii=False, indent=4)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    temporary.replace(path)


def _choose_epoch(published: Path, output: Path) -> int:
    stamp = published / STAMP
    if stamp.exists():
        return int(disk.read_json(stamp)["epoch"])
    manifest = disk.read_json(published / "manifest.json")
    epoch = int(datetime.fromisoformat(manifest["times"]["accepted_at"]).timestamp())
    while any(output.glob(f"{epoch}-*.json")):
        epoch += 1
    disk.write_json(stamp, {"epoch": epoch})
    return epoch
