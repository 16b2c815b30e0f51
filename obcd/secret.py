"""A text that must not be shown: it hides itself wherever values are printed, logged or written.

Floor 0: imports nothing of obcd. It travels between our own processes through their sockets, by pickle, and nowhere
else.
"""

from __future__ import annotations

import hmac


class Secret:
    """A token. `reveal` is the only way to its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text; for the header it goes into, never for a message."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))
