"""Read the conversations of data sets for training and evaluation as obcd lines. Pure.

    {"conversations": [{"from": "human", "value": "Hi"}], "system": "Be brief", "tools": "[…]", "source": "x"}
    -> {"messages": [{"role": "user", "content": "Hi"}], "system": "Be brief", "tools": […], "source": "x"}

ShareGPT and LLaMA-Factory call the list `conversations`, LMSYS-Chat and WildChat `conversation`, others `turns`. The
other keys of such a line describe the data set: its `model` is the one that answered there. They are only echoed.
"""

from __future__ import annotations

from collections.abc import Mapping

from obcd.core.request.conversation.messages import in_text, read_messages
from obcd.core.request.keys.dropped_keys import Dropped
from obcd.errors import LineError

#: The names of the list.
LISTS = ("conversations", "conversation", "turns")
#: The other keys that have an effect.
OBEYED = ("id", "custom_id", "system", "tools")


def is_conversation(document: Mapping[str, object]) -> bool:
    """Return whether a line without a key of obcd's has a list of messages."""
    return any(_is_list(document.get(key)) for key in LISTS)


def to_ours(document: Mapping[str, object], dropped: Dropped) -> tuple[dict[str, object], dict[str, object]]:
    """Return the obcd line, and the keys that are only echoed.

    Raises:
        LineError: If the messages cannot be sent.
    """
    key, *others = (key for key in LISTS if _is_list(document.get(key)))
    if others:
        raise LineError(f"both `{key}` and `{others[0]}`: a line has one of them")
    given = in_text(document[key])
    if isinstance(given, list) and given and all(isinstance(text, str) for text in given):
        if len(given) > 1:
            raise LineError(
                f"`{key}` is a list of {len(given)} texts, and nothing says who speaks: "
                'write {"messages": [{"role": "user", "content": "…"}, …]}'
            )
        given = [{"role": "user", "content": given[0]}]
    conversation = read_messages(given, key, dropped)
    ours: dict[str, object] = {name: document[name] for name in OBEYED if document.get(name) is not None}
    if "tools" in ours:
        ours["tools"] = in_text(ours["tools"]) or None
    if conversation.has_no_system:
        ours.setdefault("system", "")
    echoed = {name: value for name, value in document.items() if name != key and name not in OBEYED}
    return {**ours, "messages": conversation.messages}, echoed


def _is_list(value: object) -> bool:
    """Return whether a value is a list with something in it, or a text that begins as one, as tables hold it."""
    return (isinstance(value, list) and bool(value)) or (isinstance(value, str) and value.lstrip()[:1] == "[")
