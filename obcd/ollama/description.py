"""What a server says of a model, from `POST /api/show`: its abilities, its longest context, its weights. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The first line of a Modelfile that names weights: `FROM /usr/share/ollama/.ollama/models/blobs/sha256-6a0746a1ec1a…`.
_WEIGHTS = re.compile(r"^FROM\s.{0,4000}?sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A model, as a server describes it.

    Attributes:
        trained_context: The longest context of the model itself, in tokens; 0 if the server does not state it.
        capabilities: E.g. `{"completion", "tools", "vision"}`; None if the server does not state them (before v0.6.4).
        weights: The digest of the file with its weights, 64 hexadecimal digits; "" if the server does not state it.
    """

    trained_context: int = 0
    capabilities: frozenset[str] | None = None
    weights: str = ""


def read_description(document: Mapping[str, Any]) -> Description:
    """Read the body of /api/show: `{"capabilities": […], "model_info": {…}, "modelfile": "FROM …", …}`.

    Raises:
        AttributeError: If the body does not have Ollama's form.
    """
    lengths = [value for key, value in (document.get("model_info") or {}).items() if key.endswith(".context_length")]
    stated = document.get("capabilities")
    names = [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
    weights = _WEIGHTS.search(str(document.get("modelfile", "")))
    return Description(
        trained_context=max((value for value in lengths if isinstance(value, int)), default=0),
        capabilities=frozenset(names) or None,
        weights=weights[1] if weights else "",
    )
