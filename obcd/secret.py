"""A text that must not be shown: it hides itself when values are printed, logged or written.

Floor 0: imports nothing of obcd. It travels only between obcd's own processes, through their sockets, by pickle.
"""

from __future__ import annotations

import hmac


class Secret:
    """A token. Only `reveal` returns its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text: for the header that carries it, never for a message."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))
