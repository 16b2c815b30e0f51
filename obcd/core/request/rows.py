"""How the lines of a job are read: as requests, or as rows of which a template makes prompts. Pure.

Reading("Summarise: {note}", "mrn")      {"mrn": "7", "note": "BP 150/95"}
-> id "7", prompt "Summarise: BP 150/95", extra {"note": "BP 150/95"}
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

#: The default field for the id.
ID_FIELD = "id"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the lines of a job are read, beside their own keys.

    Attributes:
        template: Makes the prompt of each line, which then is a row whatever its keys are; None: each line holds its
            own prompt.
        id_field: The field of a row that is its id; if it is blank, the line's number is.
        delimiter: The character between the fields of CSV.
        ignore: Names of parameters and keys that are dropped from a line of requests if they cannot be honoured.
        quotes: Whether quotes enclose cells of a table (RFC 4180) or are text; None: found by its rows.
        drop_last_assistant: Whether the last message of a conversation is dropped if it is the assistant's.
    """

    template: str | None = None
    id_field: str = ID_FIELD
    delimiter: str = ","
    ignore: Container[str] = frozenset()
    quotes: bool | None = None
    drop_last_assistant: bool = False


#: For lines that hold their own prompts.
PLAIN = Reading()
