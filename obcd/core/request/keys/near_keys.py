"""What a line without a prompt has instead: a key that is almost right, or fields for a template.

Pure. Sentences name keys, never values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice

from obcd.core.schema.strict_json import short_key

#: Most keys that are looked at, and most that a sentence names.
MAX_KEYS, MAX_NAMED = 100, 8
#: Likeness of two keys above which one of them is a slip of the pen: `pormpt`, `promt`, `prompts`.
LIKENESS = 0.8
#: The keys that hold the prompt, each with the type of its value.
_DOORS: dict[str, type] = {"prompt": str, "messages": list, "complete": str, "embed": str}
#: Those that a slip of the pen can be meant for: other texts have names like `complete` and `embed` for good.
_OFTEN_MEANT = ("prompt", "messages")
#: Fields of public data sets that hold the question, the likeliest first; and those before and after them in a prompt.
_ASKED = ("instruction", "question", "query", "prompt", "problem", "task", "goal", "text", "sentence", "document")
_BEFORE = {"question": ("context", "passage")}
_AFTER = {"instruction": ("input", "context")}
_ANSWERS = re.compile(
    r"(?i)(?:^|_)(?:id|uuid|idx|index|column_\d+|answers?|outputs?|responses?|completions?|labels?|source|url|date)$"
)
#: A line break in a text of TOML.
SEPARATOR = r"\n"
_UNFIT = re.compile(r"[{}\"\\]|^\s|\s$|^$|\?$")


def find_near(wanted: str, keys: Iterable[str], *, by_likeness: bool = True) -> str:
    """Return the key that is another one except for case, white space or a slip of the pen, "" if there is none."""
    near = [key for key in islice(keys, MAX_KEYS) if abs(len(key.strip()) - len(wanted)) <= 2]
    bare = {key.strip(" \t\ufeff\"':").casefold(): key for key in near}
    found = bare.get(wanted.casefold(), "")
    if not found and by_likeness:
        found = next((bare[key] for key in get_close_matches(wanted.casefold(), bare, 1, LIKENESS)), "")
    return found


def why_no_prompt(document: Mapping[str, object]) -> str:
    """Return why a line has no prompt, and what to do with the keys that it has."""
    keys = tuple((key, type(value)) for key, value in islice(document.items(), MAX_KEYS))
    return _why_near(keys) or _why_wrapped(document) or _why_fields(keys)


def _why_wrapped(document: Mapping[str, object]) -> str:
    """Return what to do if an object holds the prompts in a list, as {"data": [{…}, {…}]}; "" if it does not."""
    for key, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            where = f"no prompt in it, but `{short_key(key)}` is a list of objects"
            return f"{where}: if these are the prompts, make that list the whole file"
    return ""


@lru_cache(maxsize=256)  # the lines of a file have the same keys
def _why_near(keys: tuple[tuple[str, type], ...]) -> str:
    for door, kind in _DOORS.items():
        fit = [key for key, held in keys if held is kind]
        if near := find_near(door, fit, by_likeness=door in _OFTEN_MEANT):
            return f"no `{door}` in it, but {describe_key(near)}: write `{door}`"
    return ""


@lru_cache(maxsize=256)
def _why_fields(keys: tuple[tuple[str, type], ...]) -> str:
    texts = [key for key, kind in keys if kind is str]
    if not texts:
        return (
            'no prompt in it: a line needs `prompt`, `messages`, or `role` and `content` ({"prompt": "…"}); or `embed`'
        )
    return (
        f"no prompt in it, but {name_keys([key for key, _ in keys])}: let a profile make the prompt "
        f"({suggest_template(texts)}), or call the key with the prompt `prompt`"
    )


def suggest_template(fields: Sequence[str], otherwise: str = "note") -> str:
    """Return a line of a profile that makes prompts of such fields: `template = "{question}"`.

    Args:
        otherwise: What stands for the field if a template can name none of them.
    """
    fit = [name for name in fields if name.isprintable() and not _UNFIT.search(name)]
    folded = {name.casefold(): name for name in reversed(fit)}
    asked = next((name for name in _ASKED if name in folded), "")
    if not asked:
        likely = [name for name in fit if "prompt" in name.casefold()] + [
            name for name in fit if not _ANSWERS.search(name)
        ]
        asked = (likely or fit or [otherwise])[0].casefold()
    parts = [f"{{{folded.get(asked, asked)}}}"]
    parts[:0] = [f"{{{folded[name]}}}" for name in _BEFORE.get(asked, ()) if name in folded][:1]
    parts += [f"{{{folded[name]}?}}" for name in _AFTER.get(asked, ()) if name in folded][:1]
    return f'template = "{SEPARATOR.join(parts)}"'


def describe_key(key: str) -> str:
    """Return a key for a sentence, with what cannot be seen in it."""
    return f"`{short_key(key)}`" + (" with white space around it" if key != key.strip() else "")


def name_keys(keys: Sequence[str]) -> str:
    """Return keys for a sentence, at most `MAX_NAMED` of them."""
    named = ", ".join(f"`{short_key(key)}`" for key in keys[:MAX_NAMED])
    return named + (" …" if len(keys) > MAX_NAMED else "")
