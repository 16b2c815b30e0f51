"""The sentences that tests expect, each written once: in `wording.json`, by a key of its first words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

#: {key: sentence, part of one, or a pattern for `pytest.raises(match=…)`}
SENTENCES = cast("dict[str, str]", json.loads(Path(__file__).with_name("wording.json").read_text("utf-8")))


def wording(key: str, *facts: object) -> str:
    """Return a sentence; each `{}` in it takes the next of `facts`.

    Raises:
        KeyError: If there is none of this key.
        ValueError: If there are more or fewer facts than gaps.
    """
    first, *rest = SENTENCES[key].split("{}") if facts else [SENTENCES[key]]
    return first + "".join(f"{fact}{part}" for fact, part in zip(facts, rest, strict=True))
