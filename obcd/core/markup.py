"""HTML by construction: text is escaped unless it is markup that these functions made.

    tag("td", {"class": "name"}, "a<b") -> <td class="name">a&lt;b</td>

Names of tags and attributes are literals of obcd; only texts and values of attributes come from outside.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

from obcd.text import one_line

#: The thin space within numbers, which does not break: 12 345.
GAP = "\u202f"
#: Longest text of one place, in characters; a longer one is cut.
MAX_TEXT = 300
_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
_SPECIAL = re.compile("[&<>\"']")
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
        children: Texts, which are escaped, and markup; None leaves a child out.
    """
    start = f"<{_checked(name)}{''.join(_attributes(attributes)) if attributes else ''}>"
    if name in _VOID:
        return Markup(start)
    inner = [child if child.__class__ is Markup else _child(child) for child in children]
    return Markup(f"{start}{''.join(inner)}</{name}>")


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
        if value is True:
            yield f" {_checked(name)}"
            continue
        text = value if isinstance(value, str) else str(value)
        yield _usual(name, text) if len(text) < MOST_KEPT else _attribute(name, text)


#: Longest value of an attribute, in characters: a line of a plot has several thousand.
MAX_VALUE = 100_000
#: Values shorter than this are kept: most of a page's attributes are the same few.
MOST_KEPT = 40


def _attribute(name: str, value: str) -> str:
    return f' {_checked(name)}="{escape(value, MAX_VALUE)}"'


_usual = lru_cache(4096)(_attribute)


def escape(text: str, most: int = MAX_TEXT) -> Markup:
    r"""Return a text as HTML: bounded, without control characters and bidi overrides, which become escapes as `\x1b`.

    Half a surrogate pair, from a file's name that is not UTF-8, becomes an escape too: UTF-8 cannot hold it.
    """
    if len(text) > most:
        text = text[: most - 1] + "…"
    if not text.isprintable():
        text = GAP.join(map(one_line, text.split(GAP)))
    return Markup(html.escape(text) if _SPECIAL.search(text) else text)


@cache
def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name of HTML: {name!r:.40}")
    return name
