"""The result of an examination: a finding, its severity, and the command that repairs it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    OK = "ok"  # as it should be
    NOTE = "note"  # worth knowing; no action is needed
    WARNING = "warning"  # works now, but may stop working, or could work better
    FAULT = "fault"  # does not work, or shows prompts to others: must be repaired


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: The checked thing, one word for machines, e.g. `lock`.
        sentence: Ready to print.
        remedy: A command or a line of the configuration that repairs it, ready to print; "" if there is none.
    """

    subject: str
    severity: Severity
    sentence: str
    remedy: str = ""


def fault(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return a finding that must be repaired."""
    return Finding(subject=subject, severity=Severity.FAULT, sentence=sentence, remedy=remedy)


def warning(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return a finding that needs attention later."""
    return Finding(subject=subject, severity=Severity.WARNING, sentence=sentence, remedy=remedy)


def note(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(subject=subject, severity=Severity.NOTE, sentence=sentence, remedy=remedy)


def right(subject: str, sentence: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(subject=subject, severity=Severity.OK, sentence=sentence)
