from __future__ import annotations

import pytest

from obcd.config.settings import Settings
from obcd.diagnostics.findings import Severity
from obcd.diagnostics.templates import examine_templates


def settings_of(template: str) -> Settings:
    return Settings.model_validate({"profiles": {"a": {"template": template}, "b": {}}})


@pytest.mark.parametrize(
    ("template", "severity", "part"),
    [
        ("About ${note}", Severity.WARNING, "`${note}`"),
        ("{a}$$ ${note?}", Severity.WARNING, "`${note?}`"),
        ("About {{note}}: {x}", Severity.NOTE, "`{{note}}`"),
        ("{x} as {name: string, age: number}", Severity.NOTE, "`{name: string, age: number}`"),
    ],
)
def test_part_of_a_template_that_is_rarely_meant_is_named(template: str, severity: Severity, part: str) -> None:
    [finding] = examine_templates(settings_of(template))

    assert (finding.subject, finding.severity) == ("template", severity)
    assert finding.sentence.startswith(f"profiles.a.template: {part}")
    assert finding.remedy


@pytest.mark.parametrize("template", ["{note}", '{{"a": 1}} {note}', "{{{note}}}", "{note}$", "$ {a.b[0]?}"])
def test_usual_template_has_no_finding(template: str) -> None:
    assert examine_templates(settings_of(template)) == []
