"""Answers of which no form is required: their thoughts are moved away, and those that say nothing are refused. Pure."""

from __future__ import annotations

import re

from obcd.core.answer.outcomes import ModelAnswer
from obcd.core.schema.thoughts import split_thoughts

#: The blank lines behind thoughts, or the white space in their line.
_BLANK = re.compile(r"(?:[^\S\n]*+\n)++|[^\S\n]++")
#: The message of the failure of a request whose answer says nothing.
EMPTY = 'the answer is empty, or thoughts alone: change the prompt, or set empty = "keep" in the profile'


def without_thoughts(answer: ModelAnswer) -> ModelAnswer:
    """Return an answer whose text does not begin with thoughts that have an end: they are moved to `thinking`.

    What stands later in the text is part of it, and thoughts without an end are left as they are: only the model knows
    where they should have ended.
    """
    split = None if answer.text is None else split_thoughts(answer.text)
    if split is None or not split.is_closed:
        return answer
    thinking = "\n".join(filter(None, (answer.thinking, split.thoughts)))
    return answer._replace(text=_BLANK.sub("", split.answer, count=1) if _BLANK.match(split.answer) else split.answer,
                           thinking=thinking or answer.thinking)  # fmt: skip
