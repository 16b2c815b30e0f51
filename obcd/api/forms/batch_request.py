"""What a client sends to make a batch: checked, and nothing in it is obeyed that is not known. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from obcd.api.forms.refusals import ApiError, invalid
from obcd.core.answer.openai.batch import WINDOW
from obcd.core.request.openai.openai_request import CHAT, COMPLETIONS, EMBEDDINGS

ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS)
#: OpenAI's limits of metadata: pairs, characters of a key, characters of a value.
PAIRS, KEY_LENGTH, VALUE_LENGTH = 16, 64, 512
#: OpenAI's limits of `output_expires_after` and `expires_after`, in seconds.
LEAST_SECONDS, MOST_SECONDS = 3600, 2_592_000
_KEYS = frozenset(("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"))


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A batch to make.

    Attributes:
        output_seconds: How long its results are shown; None: as long as they are there.
    """

    input_file_id: str
    endpoint: str
    metadata: Mapping[str, str] | None = None
    output_seconds: float | None = None

    @property
    def digest(self) -> str:
        """Equal for two requests that ask for the same."""
        parts = [self.input_file_id, self.endpoint, self.metadata, self.output_seconds]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def parse_object(raw: bytes) -> dict[str, object]:
    """Return the JSON object of a body.

    Raises:
        ApiError: If it is none.
    """
    try:
        document: object = json.loads(raw)
    except (ValueError, RecursionError):
        raise invalid("the body is not JSON") from None
    if not isinstance(document, dict):
        raise invalid("the body must be a JSON object")
    return document


def parse_batch(document: Mapping[str, object]) -> BatchRequest:
    """Return what a body asks for.

    Raises:
        ApiError: If something in it is missing, wrong or not known.
    """
    for key in document:
        if key not in _KEYS:
            raise invalid(f"unknown parameter: {shown(key)}", shown(key), "unknown_parameter")
    file, endpoint = document.get("input_file_id"), document.get("endpoint")
    if not isinstance(file, str):
        raise _wrong("input_file_id", "the id of a file that you uploaded with purpose batch")
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        raise _wrong("endpoint", f"one of {', '.join(ENDPOINTS)}")
    if document.get("completion_window") != WINDOW:
        raise _wrong("completion_window", f'"{WINDOW}"; a batch goes on after that until all its lines are tried')
    return BatchRequest(file, endpoint, _metadata(document.get("metadata")), _seconds(document))


def _metadata(value: object) -> Mapping[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > PAIRS:
        raise _wrong("metadata", f"an object of at most {PAIRS} texts")
    for key, text in value.items():
        if len(key) > KEY_LENGTH or not isinstance(text, str) or len(text) > VALUE_LENGTH:
            raise _wrong("metadata", f"texts of at most {VALUE_LENGTH} characters under keys of at most {KEY_LENGTH}")
    return value


def _seconds(document: Mapping[str, object]) -> float | None:
    wanted = document.get("output_expires_after")
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.keys() != {"anchor", "seconds"}:
        raise _wrong("output_expires_after", 'an object with "anchor" and "seconds"')
    return parse_expiry(wanted["anchor"], wanted["seconds"], "output_expires_after")


def parse_expiry(anchor: object, seconds: object, param: str) -> float:
    """Return after how many seconds a file shall expire.

    Raises:
        ApiError: If that is not valid.
    """
    try:
        count = float(seconds) if isinstance(seconds, int | float | str) and not isinstance(seconds, bool) else math.nan
    except (ValueError, OverflowError):
        count = math.nan
    if anchor != "created_at" or not LEAST_SECONDS <= count <= MOST_SECONDS:
        raise _wrong(param, f'"created_at" and {LEAST_SECONDS} to {MOST_SECONDS} seconds')
    return count


def parse_count(text: str | None, usual: int, most: int) -> int:
    """Return the `limit` of a list.

    Raises:
        ApiError: If it is no number from 1 to the most.
    """
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and 1 <= int(text) <= most):
        raise _wrong("limit", f"a number from 1 to {most}")
    return int(text)


def _wrong(param: str, wanted: str) -> ApiError:
    return invalid(f"`{param}` must be {wanted}", param)


def shown(text: str) -> str:
    """Return a short text of a client as it may be repeated to it."""
    return ascii(text[:60])[1:-1]
