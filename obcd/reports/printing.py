"""Lay out answers for reading: blocks as the seed's printer prints them, or one JSON object a line for machines."""

from __future__ import annotations

import json
from typing import Any

from obcd.reports.answers import NO_PROMPT, NO_RESPONSE, Answer

RULE = "#" * 40


def text_block(answer: Answer) -> str:
    """Return an answer as the seed prints it, ending in a blank line."""
    prompt = _text(answer.record.get("prompt", NO_PROMPT))
    response = _text(answer.record.get("response", _vectors(answer.record) or NO_RESPONSE))
    said = f"{RULE}\n# File: {answer.place}\n{RULE}\nPrompt:\n{prompt}\n\nResponse:\n{response}\n\n"
    return said + "".join(f"Response {number}:\n{_text(text)}\n\n" for number, text in _further(answer.record))


def json_line(answer: Answer) -> str:
    """Return an answer as one line of ASCII JSON: `{"file": "notes/responses.jsonl", "line": 7, "id": 7, "prompt": …}`.

    file, line, id, prompt and response are always there (null where unknown), then whatever else the record holds.
    """
    record = answer.record
    first = {"file": answer.file, "line": answer.line, "id": answer.request_id}
    first |= {key: record.get(key) for key in ("prompt", "response")}
    return json.dumps(first | {key: value for key, value in record.items() if key not in first}) + "\n"


def _further(record: dict[str, Any]) -> list[tuple[int, Any]]:
    """Return the answers behind the first, with their numbers from 2."""
    answers = record.get("responses")
    if not isinstance(answers, list):
        return []
    texts = [item.get("response", NO_RESPONSE) for item in answers if isinstance(item, dict)]
    return list(enumerate(texts, 1))[1:]


def _vectors(record: dict[str, Any]) -> str:
    """Tell the vectors of an answer, e.g. `2 vectors of 768 numbers`; "" where it holds none."""
    found = record.get("embeddings")
    if not isinstance(found, list) or not found or not isinstance(found[0], list):
        return ""
    return f"{len(found)} vector{'' if len(found) == 1 else 's'} of {len(found[0])} numbers"


def _text(value: Any) -> str:
    """Return text as it is, any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
