"""The content of a message that is a list of parts: texts, pictures, thoughts, calls of tools and their results. Pure.

    [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:…"}}]

The parts are those of OpenAI's two APIs and of Anthropic's, and bare strings (vLLM).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from obcd.core.request.pictures import check_images
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError


@dataclass(slots=True)
class Content:
    """What the parts of one message say.

    Attributes:
        results: `[(id of the call or None, text, pictures)]` of Anthropic's tool_result.
        calls: Calls in the form of `{"id", "name", "arguments"}`, from Anthropic's tool_use.
    """

    texts: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, object]] = field(default_factory=list)
    results: list[tuple[object, str, list[str]]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The texts, each in a separate line, as vLLM joins them."""
        return "\n".join(self.texts)


#: {type of a part: its key with a text}
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_PICTURES = ("image_url", "input_image", "image")
#: {type of a part: the role in whose messages it has a meaning}
_ROLES = {"thinking": "assistant", "redacted_thinking": "assistant", "tool_use": "assistant", "tool_result": "user"}
#: Roles whose messages may have pictures among their parts.
_SEEING = ("user", "tool")


def read_parts(parts: list[object], role: str, place: str) -> Content:
    """Return what the parts say.

    Args:
        role: Ollama's role of the message.
        place: Where the parts are, e.g. `messages[0].content`.

    Raises:
        LineError: Naming the first part that Ollama cannot receive.
    """
    content = Content()
    for number, part in enumerate(parts):
        where = f"{place}[{number}]"
        if isinstance(part, str):
            content.texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind is None and part.keys() == {"text"}:
            kind = "text"
        take = _PARTS.get(kind) if isinstance(kind, str) else None
        is_fit = kind not in _PICTURES or role in _SEEING
        if not isinstance(part, dict) or take is None or not is_fit or _ROLES.get(str(kind), role) != role:
            name = f'"{short_key(kind)}"' if isinstance(kind, str) else "without a type"
            raise LineError(f"`{where}` is a part {name}, which Ollama cannot receive: use text or image_url")
        take(content, part, where)
    return content


def as_string(value: object, place: str) -> str:
    """Return a value that has to be a text.

    Raises:
        LineError: If it is not.
    """
    if isinstance(value, str):
        return value
    raise LineError(f"`{place}` must be a string")


def _take_text(content: Content, part: Mapping[str, object], place: str) -> None:
    key = _TEXTS[str(part.get("type", "text"))]
    content.texts.append(as_string(part.get(key), f"{place}.{key}"))


def _take_url(content: Content, part: Mapping[str, object], place: str) -> None:
    value = part.get("image_url")
    url = as_string(value.get("url") if isinstance(value, dict) else value, f"{place}.image_url.url")
    if url[:5].lower() != "data:":
        raise LineError(
            f"`{place}.image_url` is not a data: URL: nothing is fetched from elsewhere, write "
            "data:image/png;base64,… (`obcd prepare --images` packs a folder of pictures)"
        )
    content.images += check_images([url], f"`{place}.image_url`")


def _take_image(content: Content, part: Mapping[str, object], place: str) -> None:
    """Take a picture as Anthropic has it (`source`), or as data sets of Qwen and Hugging Face do (`image`, `url`)."""
    if part.get("image_url") is not None:
        return _take_url(content, part, place)
    source = part.get("source")
    if isinstance(source, dict):
        key, value = "source.data", source.get("data") if source.get("type") == "base64" else source.get("url")
    else:
        key = next((key for key in ("image", "base64", "data") if part.get(key) is not None), "url")
        value = part.get(key)
    content.images += check_images([as_string(value, f"{place}.{key}")], f"`{place}.{key}`")
    return None


def _take_thought(content: Content, part: Mapping[str, object], place: str) -> None:
    content.thoughts.append(as_string(part.get("thinking"), f"{place}.thinking"))


def _take_nothing(content: Content, part: Mapping[str, object], place: str) -> None:
    """Take a part that only the service that wrote it can read."""


def _take_call(content: Content, part: Mapping[str, object], place: str) -> None:
    content.calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")})


def _take_result(content: Content, part: Mapping[str, object], place: str) -> None:
    given = part.get("content")
    if isinstance(given, list):
        inner = read_parts(given, "tool", f"{place}.content")
        text, images = inner.text, inner.images
    elif isinstance(given, dict):
        text, images = json.dumps(given, ensure_ascii=False), []
    else:
        text, images = as_string(given or "", f"{place}.content"), []
    content.results.append((part.get("tool_use_id"), text, images))


_PARTS: Mapping[str, Callable[[Content, Mapping[str, object], str], None]] = {
    **dict.fromkeys(_TEXTS, _take_text),
    "image_url": _take_url,
    "input_image": _take_url,
    "image": _take_image,
    "thinking": _take_thought,
    "redacted_thinking": _take_nothing,
    "tool_use": _take_call,
    "tool_result": _take_result,
}
