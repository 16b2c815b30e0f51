"""Read the messages of a conversation, in any form with the same meaning, as Ollama's messages. Pure.

    [{"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},      OpenAI's
     {"from": "human", "value": "Hi"}]                                              ShareGPT's
    -> [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]

A message in Ollama's form is returned as it is. Nothing with a meaning is lost: it is translated, or refused by its
name. What has no effect on the answer is recorded (`dropped_keys`).
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from obcd.core.request.conversation.parts import Content, as_string, read_parts
from obcd.core.request.keys.dropped_keys import LABELS, Dropped, why_misspelt
from obcd.core.request.pictures import check_images
from obcd.core.schema.extract import Found, NoJson, parse_strict
from obcd.core.schema.strict_json import short_key
from obcd.errors import LineError

#: The roles that refusals name.
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
#: A message of these roles is a call of a tool: its content is the call, as JSON (ShareGPT, ms-swift).
_CALL = "call"
#: {role: Ollama's}; capital letters do not count. Sources: OpenAI; ShareGPT as FastChat, axolotl, LLaMA-Factory and
#: ms-swift read it; Gemma and Gemini (model); Llama 3.1 (ipython).
_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai", "bing", "bard"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), _CALL),
}
_MAX_ROLE_LENGTH = 20
#: The names that a message's role and its content have in files; the first is Ollama's.
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value", "text")
#: The keys for the thoughts in an assistant's message: Ollama's, that of vLLM, and the older one of DeepSeek.
_THOUGHTS = ("thinking", "reasoning", "reasoning_content")
#: Keys of a message that have a meaning.
_KEYS = frozenset(
    (*_ROLE_KEYS, *_CONTENT_KEYS, *_THOUGHTS, "images", "tool_calls", "function_call", "tool_name", "tool_call_id")
) | {"name", "refusal"}
_PLAIN_KEYS, _PLAIN_ROLES = {"role", "content"}, ("user", "assistant", "system")
#: {key: why a message may not have it}
_REASONS = {
    "audio": "Ollama accepts no audio: remove it",
    "prefix": "an answer cannot be begun for the model: remove it",
    "partial": "an answer cannot be begun for the model: remove it",
}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in Ollama's form.

    Attributes:
        has_no_system: Whether a system message is there that is empty, and no other: it means that there is none,
            whatever the profile says.
    """

    messages: list[dict[str, object]]
    has_no_system: bool = False


def read_messages(given: object, place: str, dropped: Dropped, *, needs_calls: bool = False) -> Conversation:
    """Return the messages in Ollama's form.

    Args:
        place: Where they are, e.g. "messages" or "body.messages".
        needs_calls: Whether the result of a tool is refused if it belongs to no call before it.

    Raises:
        LineError: Naming the first message, part or call that Ollama cannot receive; it never quotes a message.
    """
    if not isinstance(given, list) or not given:
        raise LineError(f"`{place}` must be a list of at least one message")
    reader = _Reader(dropped, needs_calls)
    for number, item in enumerate(given):
        if _is_plain(item):  # as most messages are: nothing has to be translated, at a tenth of the cost
            reader.take_plain(item)
            continue
        where = f"{place}[{number}]"
        if not isinstance(item, dict):
            raise LineError(f"`{where}` must be an object with `role` and `content`")
        for message, at in _in_messages(item, where):
            reader.take(message, at)
    return reader.conversation(place)


def read_message(given: dict[str, object], dropped: Dropped) -> Conversation:
    """Return the one message of a line that is a message itself.

    Raises:
        LineError: As `read_messages`.
    """
    reader = _Reader(dropped)
    reader.take(given, "")
    return reader.conversation("")


def _is_plain(item: object) -> TypeGuard[dict[str, object]]:
    """Return whether an item is a message with a text alone, in Ollama's form."""
    if not isinstance(item, dict) or item.keys() != _PLAIN_KEYS:
        return False
    role, content = item["role"], item["content"]
    return role in _PLAIN_ROLES and isinstance(content, str) and (bool(content.strip()) or role == "assistant")


def role_of(name: object) -> str | None:
    """Return Ollama's role for a name of a role, None for a name of none."""
    if not isinstance(name, str) or len(name) > _MAX_ROLE_LENGTH:
        return None
    return _ROLES.get(name) or _ROLES.get(name.strip().lower())


def _in_messages(item: dict[str, object], place: str) -> Iterator[tuple[dict[str, object], str]]:
    """Yield the messages of an item: usually itself; a pair such as `{"human": "…", "assistant": "…"}` is two."""
    spoken = [key for key in item if role_of(key) in ("system", "user", "assistant") and key not in LABELS]
    if not spoken or not item.keys().isdisjoint((*_ROLE_KEYS, *_CONTENT_KEYS)):
        yield item, place
        return
    rest = {key: value for key, value in item.items() if key not in spoken}
    for key in spoken:
        if item[key] not in (None, "") or role_of(key) == "user":
            yield {"role": key, "content": item[key], **rest}, place
            rest = {}


def _at(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def in_text(value: object) -> object:
    """Return a value that a table holds as a text, which is its JSON; any other value as it is."""
    found = parse_strict(value) if isinstance(value, str) and value.strip() else None
    return found.value if isinstance(found, Found) else value


def _put_once(said: dict[str, object], key: str, value: object, place: str) -> None:
    """Put a value into a message.

    Raises:
        LineError: If another value is there.
    """
    if said.setdefault(key, value) != value:
        raise LineError(f"`{place}` differs from another key that means `{key}`: a message has one of them")


def _is_nothing(value: object) -> bool:
    """Return whether a value says nothing, as data sets fill what a message does not have."""
    return value is None or (isinstance(value, str | list | dict) and not value)


@dataclass(slots=True)
class _Reader:
    """Reads messages one after the other.

    Attributes:
        called: `{id of a call: name of its tool}`.
        waiting: The names of the tools that were called, in this order, without the first ones that have a result.
        answered: `{name of a tool: results that came, of calls that are in waiting}`.
        names: `{role: the names of its speakers}`.
    """

    dropped: Dropped
    needs_calls: bool = False
    messages: list[dict[str, object]] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)
    waiting: deque[str] = field(default_factory=deque)
    answered: Counter[str] = field(default_factory=Counter)
    names: dict[str, set[str]] = field(default_factory=dict)
    has_empty_system: bool = False
    is_calling: bool = False  # whether the message before is a call in the form of ShareGPT

    def take(self, message: dict[str, object], place: str) -> None:
        """Read the next message.

        Raises:
            LineError: If it cannot be sent.
        """
        role_key = next((key for key in _ROLE_KEYS if message.get(key) is not None), _ROLE_KEYS[0])
        role = role_of(message.get(role_key))
        if message.get(role_key) is None and (message.get("tool_calls") or message.get("function_call")):
            message, role = {"role": "assistant", **message}, "assistant"  # no other role has calls
        if role is None:
            self._check_keys(message, place, only_misspelt=True)
            raise LineError(f"`{_at(place, role_key)}` must be one of {', '.join(ROLES)}")
        self._check_keys(message, place)
        if role == _CALL:
            self._take_call_text(message, place)
            return
        self.is_calling = False
        said: dict[str, object] = {}
        content = Content()
        for key, value in message.items():
            if key in _ROLE_KEYS:
                said["role"] = role
                if key != role_key and not _is_nothing(value) and role_of(value) != role:
                    raise LineError(f"both `{_at(place, role_key)}` and `{key}`: a message has one of them")
            elif key in _CONTENT_KEYS:
                content = self._content(message, key, role, place, said) or content
            elif key in _KEYS and not _is_nothing(value):
                self._take_key(said, key, value, role, place)
        self._add(said, content, role, place)

    def take_plain(self, message: dict[str, object]) -> None:
        """Take a message that is in Ollama's form and no result of a tool."""
        self.is_calling = False
        self.messages.append(message)

    def conversation(self, place: str) -> Conversation:
        """Return what was read.

        Raises:
            LineError: If no message is left, or names distinguish speakers whom Ollama cannot distinguish.
        """
        if not self.messages:
            raise LineError(f"`{place or 'content'}` holds only an empty system message")
        for role, names in self.names.items():
            if len(names) > 1 and not self.dropped.excuses("messages[]", "name"):
                raise LineError(
                    f"`{place or 'name'}` names several speakers of the role {role}, which Ollama cannot distinguish: "
                    "write their names into the content"
                )
            self.dropped.record("messages[].name")
        has_system = any(message["role"] == "system" for message in self.messages)
        return Conversation(self.messages, self.has_empty_system and not has_system)

    def _check_keys(self, message: Mapping[str, object], place: str, *, only_misspelt: bool = False) -> None:
        for key, value in message.items():
            if key in _KEYS or _is_nothing(value):
                continue
            misspelt = why_misspelt(key, _KEYS)
            if only_misspelt and not misspelt:
                continue
            if key in LABELS and not misspelt:
                self.dropped.record(f"messages[].{key}")
            elif value is not False and not self.dropped.excuses("messages[]", key):
                reason = misspelt or _REASONS.get(key, "Ollama has no such key: remove it")
                raise LineError(f"`{_at(place, short_key(key))}` is not supported: {reason}")

    def _content(
        self, message: dict[str, object], key: str, role: str, place: str, said: dict[str, object]
    ) -> Content | None:
        """Put the content into `said`, and return its parts if it has such."""
        value, where = message[key], _at(place, key)
        others = [name for name in _CONTENT_KEYS if name != key and not _is_nothing(message.get(name))]
        if _is_nothing(value) and (others or (value is None and role == "user")):
            if others:
                return None
            raise LineError(f"`{where}` must be a string or a list of parts, not null")
        if others:
            raise LineError(f"both `{where}` and `{others[0]}`: a message has one of them")
        if isinstance(value, str) or value is None:
            said["content"] = value or ""
            return None
        if role == "tool" and isinstance(value, dict):  # a result that is an object: its JSON is the text
            said["content"] = json.dumps(value, ensure_ascii=False)
            return None
        if not isinstance(value, list):
            raise LineError(f"`{where}` must be a string or a list of parts")
        content = read_parts(value, role, where)
        said["content"] = content.text
        return content

    def _take_key(self, said: dict[str, object], key: str, value: object, role: str, place: str) -> None:
        """Put a key into `said` that is neither role nor content."""
        where = _at(place, key)
        if key in _THOUGHTS:
            _put_once(said, "thinking", as_string(value, where), where)
        elif key == "images":
            said["images"] = check_images(value, f"`{where}`")
        elif key in ("tool_calls", "function_call"):
            calls = [value] if key == "function_call" else in_text(value)
            if not isinstance(calls, list):
                raise LineError(f"`{where}` must be a list")
            at = [where] if key == "function_call" else [f"{where}[{number}]" for number in range(len(calls))]
            _put_once(said, "tool_calls", [self._call(*each) for each in zip(calls, at, strict=True)], where)
        elif key in ("tool_name", "name"):
            self._take_name(said, key, as_string(value, where), role, where)
        else:
            said[key] = as_string(value, where)  # tool_call_id, refusal

    def _take_name(self, said: dict[str, object], key: str, name: str, role: str, where: str) -> None:
        """Take the name of a tool; or that of a speaker, which has a meaning only beside another one."""
        if role != "tool" and key == "name":
            self.names.setdefault(role, set()).add(name)
        else:
            _put_once(said, "tool_name", name, where)

    def _add(self, said: dict[str, object], content: Content, role: str, place: str) -> None:
        """Add a message, and what its parts say beside its text."""
        refused = said.pop("refusal", None)
        if refused is not None:
            if said.get("content"):
                raise LineError(f"`{_at(place, 'refusal')}` is beside a content: write it as the content")
            said["content"] = refused
        self._add_parts(said, content, place)
        if content.results and not said["content"] and not said.get("images"):
            return
        if role == "tool":
            self._add_result(said, place)
        has_more = bool(said.get("tool_calls") or said.get("images"))
        is_empty = not has_more and not str(said.get("content", "")).strip()
        if is_empty and role == "system" and "content" in said:
            self.has_empty_system = True
            return
        if is_empty and (role in ("system", "user") or "content" not in said):
            raise LineError(f"`{_at(place, 'content')}` is empty")
        self.messages.append(said)

    def _add_parts(self, said: dict[str, object], content: Content, place: str) -> None:
        where = _at(place, "content")
        if content.images:
            _put_once(said, "images", content.images, where)
        if content.thoughts:
            _put_once(said, "thinking", "\n".join(content.thoughts), where)
        if content.calls:
            _put_once(said, "tool_calls", [self._call(call, where) for call in content.calls], where)
        for number, text, images in content.results:
            result: dict[str, object] = {"role": "tool", "content": text, **({"images": images} if images else {})}
            if isinstance(number, str):
                result["tool_call_id"] = number
            self._add_result(result, place)
            self.messages.append(result)

    def _add_result(self, said: dict[str, object], place: str) -> None:
        """Find the tool whose result a message is: by its name, by its id, or by its place behind the calls."""
        number, name = said.get("tool_call_id"), said.get("tool_name")
        if name is None:
            name = self.called.get(number) if isinstance(number, str) else self._next_waiting()
        if isinstance(name, str):
            said["tool_name"] = name
            self.answered[name] += 1
        elif self.needs_calls:
            raise LineError(f"`{_at(place, 'tool_call_id')}` does not name a call in the messages before it")

    def _next_waiting(self) -> str | None:
        """Return the tool of the first call without a result, in time that is linear over all results."""
        while self.waiting and self.answered[self.waiting[0]]:
            self.answered[self.waiting.popleft()] -= 1
        return self.waiting[0] if self.waiting else None

    def _call(self, call: object, place: str) -> dict[str, object]:
        """Return a call in Ollama's form: arguments are an object, which OpenAI has as a string."""
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(call, dict) or not isinstance(function, dict):
            raise LineError(f'`{place}` must be {{"function": {{"name": …, "arguments": …}}}}')
        inner = f"{place}.function" if "function" in call else place
        name = as_string(function.get("name"), f"{inner}.name")
        key = "parameters" if "arguments" not in function and "parameters" in function else "arguments"
        kept = {key: function[key] for key in ("index",) if function.get(key) is not None}
        asked: dict[str, object] = {
            "function": {**kept, "name": name, "arguments": _arguments(function.get(key), f"{inner}.{key}")}
        }
        number = call.get("id")
        self.waiting.append(name)
        if number is None:
            return asked
        number = as_string(number, f"{place}.id")
        self.called[number] = name
        return {"id": number, **asked}

    def _take_call_text(self, message: Mapping[str, object], place: str) -> None:
        """Read a message whose text is a call, or a list of calls; messages of that kind in a row are one message."""
        key = next((key for key in _CONTENT_KEYS if message.get(key) is not None), _CONTENT_KEYS[0])
        value, where = message.get(key), _at(place, key)
        value = in_text(value)
        given = value if isinstance(value, list) else [value]
        if not given or not all(isinstance(call, dict) for call in given):
            raise LineError(f'`{where}` must be a call of a tool as JSON: {{"name": …, "arguments": {{…}}}}')
        calls = [self._call(call, where) for call in given]
        if self.is_calling:
            earlier = self.messages[-1]["tool_calls"]
            assert isinstance(earlier, list)
            earlier += calls
        else:
            self.messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        self.is_calling = True


def _arguments(value: object, place: str) -> dict[str, object]:
    """Return the arguments of a call as an object; nothing, and an empty text, are no arguments."""
    if isinstance(value, dict):
        return value
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    found = parse_strict(value) if isinstance(value, str) else None
    if not isinstance(found, Found) or not isinstance(found.value, dict):
        why = f": {found.reason}" if isinstance(found, NoJson) else ""
        raise LineError(f"`{place}` must be a JSON object, or a string that holds one{why}")
    return found.value
