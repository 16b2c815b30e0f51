"""What an examination says: a finding, how bad it is, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"  # as it should be
    NOTE = "note"  # worth knowing; nothing has to be done
    WARNING = "warning"  # works now, and may not for long, or not as well as it could
    FAULT = "fault"  # does not work, or shows prompts to others: has to be mended


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is about, one word for machines, e.g. `lock`.
        sentence: Ready to print.
        remedy: A command or a line of the configuration that mends it, ready to print; "" where there is none.
    """

    subject: str
    severity: Severity
    sentence: str
    remedy: str = ""


def fault(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return a finding that has to be mended."""
    return Finding(subject=subject, severity=Severity.FAULT, sentence=sentence, remedy=remedy)


def warning(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return a finding that will matter."""
    return Finding(subject=subject, severity=Severity.WARNING, sentence=sentence, remedy=remedy)


def note(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return a finding worth knowing."""
    return Finding(subject=subject, severity=Severity.NOTE, sentence=sentence, remedy=remedy)


def right(subject: str, sentence: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(subject=subject, severity=Severity.OK, sentence=sentence)
