"""What a template says that is valid and is rarely meant: `${note}`, `{{note}}`, `{name: string}`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from obcd.config.settings import Settings
from obcd.core.request.templates import pieces_of
from obcd.diagnostics.findings import Finding, note, warning

_DOUBLE = re.compile(r"(?<!\{)\{\{\s*(\w+)\s*\}\}(?!\})")
_PAIR = re.compile(r"\w+\s*:\s+\S")


def examine_templates(settings: Settings) -> list[Finding]:
    """Return a finding for each part of the configuration's templates that is rarely meant."""
    named = {"template": settings.template}
    named |= {f"profiles.{name}.template": profile.template for name, profile in settings.profiles.items()}
    return [finding for place, template in named.items() if template is not None for finding in _judge(place, template)]


def _judge(place: str, template: str) -> Iterator[Finding]:
    for text, field in pieces_of(template):
        if field is None:
            continue
        if text.endswith("$"):
            yield warning(
                "template",
                f"{place}: `${{{field.text}}}` puts a $ before the field `{field.text}`",
                f"if the $ is not meant, write {{{field.text}}}",
            )
        if _PAIR.match(field.text):
            yield note("template", f"{place}: `{{{field.text}}}` is a field of this name", "a brace is written {{")
    for found in _DOUBLE.finditer(template):
        name = f"{{{found[1]}}}"
        yield note("template", f"{place}: `{found[0]}` is the text {name}", f"the field is written {name}")
