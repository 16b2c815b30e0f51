"""Results made of lines as people see them: what the tests of answers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from obcd.clock import seconds_of
from obcd.core.answer.outcomes import Failure, Response
from obcd.core.answer.record_codec import decode, to_ascii

#: Keys of a line that are not its result's.
_OTHERS = ("id", "prompt", "extra", "responses")


def response_of(document: Mapping[str, Any]) -> Response:
    """Return the response of which this is the line in responses.jsonl."""
    record = {key: value for key, value in document.items() if key not in _OTHERS}
    finished = seconds_of(record.pop("finished_at", "2026-11-22T18:01:05.250Z"))
    head = {"ordinal": 0, "outcome": "response", "finished": finished, "endpoint": "gpu0", "attempts": 1}
    found = decode(to_ascii({**head, **record}))
    assert isinstance(found, Response)
    line = {"line": document["line"]}
    return found._replace(responses=tuple(response_of(each | line) for each in document.get("responses", ())))


def failure_of(document: Mapping[str, Any]) -> Failure:
    """Return the failure of which this is the line in errors.jsonl."""
    found = decode(to_ascii({"ordinal": 0, "outcome": "failure", **document}))
    assert isinstance(found, Failure)
    return found
