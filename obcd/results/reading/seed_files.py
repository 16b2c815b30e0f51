"""Write one JSON file per answer of a published folder into another folder (`obcd batch --files`).

A name cannot collide: the line number is unique in the job, and the second is one that no other file there has.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from obcd.errors import InputError
from obcd.results.reading.input_lines import InputLines, our_answer
from obcd.spool.folders import disk
from obcd.spool.outbox.response_files import write_files

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
                count += write_files(output, epoch, answer)
        disk.sync_folder(output)
    except OSError as error:
        raise InputError(f"cannot write the response files: {error.strerror} ({error.filename or output})") from None
    except (ValueError, KeyError):
        raise InputError(f"{published / 'responses.jsonl'} is damaged: obcd did not publish this folder") from None
    return count


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
