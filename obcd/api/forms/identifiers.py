"""The ids of files and batches. They are random, so that nobody can guess another user's; they sort by time."""

from __future__ import annotations

import re
import secrets

FILE, BATCH = "file-", "batch_"
#: Milliseconds as 12 hex digits, then 80 random bits.
_CORE = re.compile(r"[0-9a-f]{32}")
#: Ends of the ids of a batch's own files, and the names of these files in its folder of the outbox.
OUTPUTS = {"-output": "responses.jsonl", "-errors": "errors.jsonl"}


def new_core(now: float) -> str:
    """Return the part of an id behind its prefix.

    Args:
        now: Unix seconds.
    """
    return f"{int(now * 1000):012x}{secrets.token_hex(10)}"


def core_of(text: str, prefix: str) -> str | None:
    """Return the core of an id of one kind; None for any other text, whatever it holds."""
    core = text.removeprefix(prefix)
    return core if text.startswith(prefix) and _CORE.fullmatch(core) else None


def split_output(text: str) -> tuple[str, str] | None:
    """Return the core of the batch and the end of the id of one of its files; None for any other text."""
    for end in OUTPUTS:
        core = core_of(text.removesuffix(end), FILE) if text.endswith(end) else None
        if core is not None:
            return core, end
    return None
