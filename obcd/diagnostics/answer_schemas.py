"""Check the JSON schemas that the configuration names: what has no effect, and what the server gets in another form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from obcd.config.loading import read_schema
from obcd.config.settings import Settings
from obcd.core.schema.server_schema import schema_remarks
from obcd.diagnostics.findings import Finding, note, warning
from obcd.text import printable


def examine_schemas(settings: Settings) -> list[Finding]:
    """Return the findings about the schemas, each schema once."""
    findings: dict[str, Finding] = {}
    for profile in ("", *settings.profiles):
        for finding in _examine(settings, profile):
            findings.setdefault(finding.sentence, finding)
    return list(findings.values())


def _examine(settings: Settings, profile: str) -> Iterator[Finding]:
    job = settings.job_settings(profile)
    own = settings.profiles[profile].schema_file if profile else None
    file = own or settings.schema_file
    if file is None or not isinstance(job.format, dict):
        return
    name = printable(file)
    if settings.source is not None:
        with contextlib.suppress(ValueError):  # changed since the configuration was read
            _, place = read_schema(settings.source.parent / file)
            if place:
                yield note("schema", f"{name} is an envelope around a JSON schema: `{place}` of it is used")
    for remark in schema_remarks(job.format, is_sent=job.send_schema):
        yield warning("schema", f"{name}: {remark}")
