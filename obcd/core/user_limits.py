"""What one submitter may have under way: what is over it waits, and is taken when there is room. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Limits of one submitter, 0 for none.

    Attributes:
        jobs: Unfinished jobs at once.
        bytes: Bytes of their input, all together.
        file_bytes: Bytes of one file.
    """

    jobs: int = 0
    bytes: int = 0
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UserUsage:
    """What one submitter has under way: jobs, and the bytes of their input."""

    jobs: int = 0
    bytes: int = 0

    def plus(self, other: UserUsage) -> UserUsage:
        """Return both together."""
        return UserUsage(self.jobs + other.jobs, self.bytes + other.bytes)


#: Who has nothing under way.
NOTHING = UserUsage()


def why_too_large(size: int, limits: UserLimits) -> str:
    """Return why a file is never taken as it is, "" when it is not too large."""
    if not limits.file_bytes or size <= limits.file_bytes:
        return ""
    return (
        f"it has {_amount(size)}, and a file may have {_amount(limits.file_bytes)} ([spool] max_file_bytes): "
        "split it, or ask for a higher limit"
    )


def why_too_much(size: int, held: UserUsage, limits: UserLimits) -> str:
    """Return why a file waits for what its submitter has under way, "" when it need not.

    One file alone is never too much: it would wait for ever.
    """
    if limits.jobs and held.jobs >= limits.jobs:
        count = "a job" if limits.jobs == 1 else f"{limits.jobs} jobs"
        return f"its submitter may have {count} under way ([spool] user_jobs): it is taken when one ends"
    if limits.bytes and held.jobs and held.bytes + size > limits.bytes:
        return (
            f"its submitter may have {_amount(limits.bytes)} under way ([spool] user_bytes): it is taken when other "
            "jobs of theirs have ended"
        )
    return ""


def _amount(size: int) -> str:
    """Return `512 bytes`, `1.5 GiB`."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if amount == int(amount) else f"{amount:.1f} {_UNITS[unit]}"
