"""Format answers for reading: blocks as the seed's printer prints them, or one JSON object per line for machines."""

from __future__ import annotations

import json

from obcd.results.reading.answers import NO_PROMPT, NO_RESPONSE, Answer, each_answer
from obcd.text import plural

RULE = "#" * 40


def text_block(answer: Answer) -> str:
    """Return an answer as the seed prints it, with a blank line at its end; several to a prompt are numbered from 1."""
    prompt = _text(answer.record.get("prompt", NO_PROMPT))
    answers = each_answer(answer)
    numbers = [""] if len(answers) == 1 else [f" {number}" for number in range(1, len(answers) + 1)]
    said = "".join(_said(each, number) for each, number in zip(answers, numbers, strict=True))
    return f"{RULE}\n# File: {answer.place}\n{RULE}\nPrompt:\n{prompt}\n\n{said}"


def json_line(answer: Answer) -> str:
    """Return an answer as one line of ASCII JSON: `{"file": "notes/responses.jsonl", "line": 7, "id": 7, "prompt": …}`.

    file, line, id, prompt and response are always present (null where unknown); the other keys of the record follow.
    """
    record = answer.record
    first = {"file": answer.file, "line": answer.line, "id": answer.request_id}
    first |= {key: record.get(key) for key in ("prompt", "response")}
    return json.dumps(first | {key: value for key, value in record.items() if key not in first}) + "\n"


def _said(answer: Answer, number: str) -> str:
    """Return the content of an answer: text, calls of tools with one line each, or both."""
    calls = answer.tool_calls
    response = _text(answer.record.get("response", _vectors(answer) or NO_RESPONSE))
    text = f"Response{number}:\n{response}\n\n" if response or not calls else ""
    return text + (f"Tool calls{number}:\n" + "".join(f"{_text(call)}\n" for call in calls) + "\n" if calls else "")


def _vectors(answer: Answer) -> str:
    """Return a description of the vectors of an answer, e.g. `2 vectors of 768 numbers`; "" if it holds no vectors."""
    found = answer.embeddings
    if not isinstance(found, list) or not found or not isinstance(found[0], list):
        return ""
    return f"{plural(len(found), 'vector')} of {len(found[0])} numbers"


def _text(value: object) -> str:
    """Return text unchanged, any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
