"""Convert the messages, tools and calls of /v1/chat/completions to Ollama's.

{"role": "user", "content": [{"type": "text", "text": "…"}, {"type": "image_url", "image_url": {"url": "data:…"}}]}
-> {"role": "user", "content": "…", "images": ["…"]}
"""

from __future__ import annotations

from obcd.core.schema.extract import Found, NoJson, parse_strict
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

#: {role: Ollama's}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
#: The keys for the thoughts in an assistant's message: that of Ollama and vLLM, and the older one of DeepSeek.
THOUGHTS = ("reasoning", "reasoning_content")
#: {role: keys that have a meaning in its messages}
_KEYS = {
    "assistant": frozenset(("role", "content", "tool_calls", *THOUGHTS)),
    "tool": frozenset(("role", "content", "tool_call_id")),
}
#: {key: why a message may not have it}
_REASONS = {
    "name": "Ollama has no names of speakers: write it into the content",
    "function_call": "write `tool_calls` instead",
    "audio": "Ollama accepts no audio: remove it",
    "refusal": "write it as the content",
}
#: Keys that an assistant's message returns and that need not be sent again.
_ECHOED = frozenset(("annotations", "parsed"))


def to_messages(messages: object) -> list[dict[str, object]]:
    """Return Ollama's messages.

    Raises:
        LineError: Naming the first message, part or call that Ollama cannot receive.
    """
    if not isinstance(messages, list) or not messages:
        raise LineError("`body.messages` must be a list of at least one message")
    called: dict[str, str] = {}  # {id of a call: name of its tool}
    return [_message(message, f"body.messages[{number}]", called) for number, message in enumerate(messages)]


def to_tools(tools: object, choice: object) -> list[object] | None:
    """Return the tools that the model may call: none if the choice is `none`.

    Raises:
        LineError: If a tool is not a function, or the model would be forced to call one.
    """
    if choice not in (None, "auto", "none"):
        raise LineError(
            '`body.tool_choice` must be "auto" or "none": Ollama cannot make a model call a tool, say so in the prompt'
        )
    if tools is None or choice == "none":
        return None
    if not isinstance(tools, list):
        raise LineError("`body.tools` must be a list")
    for number, tool in enumerate(tools):
        place = f"body.tools[{number}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise LineError(f'`{place}` must be {{"type": "function", "function": {{…}}}}: Ollama has no other tools')
    return [
        {**tool, "function": {key: value for key, value in tool["function"].items() if value is not None}}
        for tool in tools
    ] or None


def _message(message: object, place: str, called: dict[str, str]) -> dict[str, object]:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str) or role not in ROLES:
        raise LineError(f"`{place}` needs a `role`, one of {', '.join(ROLES)}")
    known = _KEYS.get(role, frozenset(("role", "content")))
    for key, value in message.items():
        if key not in known and value is not None and key not in _ECHOED:
            reason = _REASONS.get(key, "Ollama has no such key: remove it")
            raise LineError(f"`{place}.{short_key(key)}` is not supported: {reason}")
    said: dict[str, object] = {"role": ROLES[role], **_content(message.get("content"), role, place)}
    if role == "assistant":
        said |= _assistant(message, place, called)
    if role == "tool":
        said |= _tool(message, place, called)
    return said


def _content(content: object, role: str, place: str) -> dict[str, object]:
    if isinstance(content, str):
        return {"content": content}
    if content is None and role == "assistant":
        return {"content": ""}
    if not isinstance(content, list) or not content:
        raise LineError(f"`{place}.content` must be a string or a list of parts")
    texts, images = [], []
    for number, part in enumerate(content):
        where = f"{place}.content[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            texts.append(_string(part.get(kind), f"{where}.{kind}"))
        elif kind == "image_url" and role == "user":
            images.append(_image(part.get("image_url"), f"{where}.image_url"))
        else:
            name = f'"{short_key(kind)}"' if isinstance(kind, str) else "without a type"
            raise LineError(f"`{where}` is a part {name}, which Ollama cannot receive: use text or image_url")
    return {"content": "\n".join(texts), **({"images": images} if images else {})}


def _image(value: object, place: str) -> str:
    url = value.get("url") if isinstance(value, dict) else value
    url = _string(url, f"{place}.url")
    if url[:5].lower() != "data:":
        raise LineError(
            f"`{place}` is not a data: URL: nothing is fetched from elsewhere, write data:image/png;base64,… "
            "(`obcd prepare --images` packs a folder of pictures)"
        )
    return url


def _assistant(message: dict[str, object], place: str, called: dict[str, str]) -> dict[str, object]:
    said: dict[str, object] = {}
    for key in THOUGHTS:
        if message.get(key):
            said["thinking"] = _string(message[key], f"{place}.{key}")
    calls = message.get("tool_calls")
    if calls is None:
        return said
    if not isinstance(calls, list):
        raise LineError(f"`{place}.tool_calls` must be a list")
    if calls:
        said["tool_calls"] = [_call(call, f"{place}.tool_calls[{number}]", called) for number, call in enumerate(calls)]
    return said


def _call(call: object, place: str, called: dict[str, str]) -> dict[str, object]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise LineError(f'`{place}` must be {{"id": …, "type": "function", "function": {{"name": …, "arguments": …}}}}')
    name = _string(function.get("name"), f"{place}.function.name")
    number = _string(call.get("id"), f"{place}.id")
    called[number] = name
    return {"id": number, "function": {"name": name, "arguments": _arguments(function.get("arguments"), place)}}


def _arguments(text: object, place: str) -> dict[str, object]:
    """Return the object that OpenAI has as a string, and Ollama as an object."""
    found = parse_strict(text) if isinstance(text, str) else None
    if not isinstance(found, Found) or not isinstance(found.value, dict):
        why = f": {found.reason}" if isinstance(found, NoJson) else ""
        raise LineError(f"`{place}.function.arguments` must be a string that holds a JSON object{why}")
    return found.value


def _tool(message: dict[str, object], place: str, called: dict[str, str]) -> dict[str, object]:
    number = _string(message.get("tool_call_id"), f"{place}.tool_call_id")
    if number not in called:
        raise LineError(f"`{place}.tool_call_id` does not name a call in the messages before it")
    return {"tool_call_id": number, "tool_name": called[number]}


def _string(value: object, place: str) -> str:
    if isinstance(value, str):
        return value
    raise LineError(f"`{place}` must be a string")
