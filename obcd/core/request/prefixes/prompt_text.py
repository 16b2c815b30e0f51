"""The text of a request in the order in which a server reads it: system message, tools, messages. Pure.

Texts with the same beginning are prompts with the same beginning. Only that counts: a text is no rendered prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from obcd.core.request.records import Request

#: A picture counts as this many characters: it takes several hundred tokens.
PICTURE_LENGTH = 3072
_DIGITS = 16


def prompt_text(request: Request, system: str | None = None) -> str:
    """Return the text of a request, without what comes from the job.

    Args:
        request: A request that is not for vectors.
        system: The job's system message; it is no part of the text.
    """
    messages = request.messages
    if (
        request.system is None
        and request.tools is None
        and len(messages) == 1
        and len(messages[0]) == 2
        and messages[0]["role"] == "user"
    ):
        return request.prompt  # as most requests are: no copy
    return "".join(_parts(request, system or ""))


def _parts(request: Request, of_job: str) -> list[str]:
    messages: Sequence[Mapping[str, object]] = request.messages
    system = request.system
    if messages and messages[0]["role"] == "system":  # then no other system message is sent
        system, messages = str(messages[0].get("content") or ""), messages[1:]
    parts = []
    if request.raw:
        parts.append("\0raw\0")
    elif system is not None and system != of_job:
        parts += ("\0system\0", system, "\0")
    if request.tools:
        parts += ("\0tools\0", repr(request.tools), "\0")
    if not request.messages:
        parts.append(request.prompt)
    for number, message in enumerate(messages):
        if number or message["role"] != "user":  # else it begins as a lone prompt does
            parts += ("\0", str(message["role"]), "\0")
        parts += _message_parts(message)
    return parts


def _message_parts(message: Mapping[str, object]) -> list[str]:
    images = message.get("images")
    parts = [_filler(image) for image in images] if isinstance(images, list) else []
    parts.append(str(message.get("content") or ""))
    parts += [repr(message[key]) for key in ("thinking", "tool_calls", "tool_name") if message.get(key)]
    return parts


def _filler(image: object) -> str:
    """Return a text that is as good as unique to a picture."""
    return f"{hash(image) % 16**_DIGITS:0{_DIGITS}x}" * (PICTURE_LENGTH // _DIGITS)
