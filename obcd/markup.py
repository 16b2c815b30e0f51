"""HTML by construction: text is escaped unless it is markup that these functions made.

    tag("td", {"class": "name"}, "a<b") -> <td class="name">a&lt;b</td>

Names of tags and attributes are literals of obcd; only texts and values of attributes come from outside.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping

from obcd.text import one_line

#: Longest text of one place, in characters; a longer one is cut.
MAX_TEXT = 300
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*", re.ASCII)


class Markup(str):
    """Text that is HTML already: made by this module, or a literal of obcd."""

    __slots__ = ()


Child = str | Iterable["Child"] | None
Value = str | int | float | bool | None


def tag(name: str, attributes: Mapping[str, Value] | None = None, *children: Child) -> Markup:
    """Return an element.

    Args:
        attributes: A value of None or False leaves its attribute out; True writes its name alone.
        children: Texts, which are escaped, and markup; None is left out.
    """
    start = f"<{_checked(name)}{''.join(_attributes(attributes or {}))}>"
    if name in _VOID:
        return Markup(start)
    return Markup(f"{start}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Return children one after another."""
    return Markup("".join(map(_child, children)))


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    return join(child)


def _attributes(attributes: Mapping[str, Value]) -> Iterable[str]:
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        yield f" {_checked(name)}" if value is True else f' {_checked(name)}="{escape(str(value), MAX_VALUE)}"'


#: Longest value of an attribute, in characters: a line of a plot has several thousand.
MAX_VALUE = 100_000


def escape(text: str, most: int = MAX_TEXT) -> Markup:
    r"""Return a text as HTML: bounded, without control characters and bidi overrides, which become escapes as `\x1b`.

    Half a surrogate pair, from a file's name that is not UTF-8, becomes an escape too: UTF-8 cannot hold it.
    """
    if len(text) > most:
        text = text[: most - 1] + "…"
    return Markup(html.escape(one_line(text)))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name of HTML: {name!r:.40}")
    return name
