"""How much a submitter may give: the longest line, and the unfinished work above which a drop waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Default of `[spool] max_line_bytes`. The largest picture that `obcd prepare --images` packs has 26.7 MiB as base64.
LINE_BYTES = 2**25
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class UserLimits:
    """Limits of one submitter; 0 means no limit.

    Attributes:
        jobs: Unfinished jobs at the same time.
        bytes: Bytes of their input, in total.
        file_bytes: Bytes of one file.
    """

    jobs: int = 0
    bytes: int = 0
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class UserUsage:
    """The unfinished work of one submitter: jobs, and the bytes of their input."""

    jobs: int = 0
    bytes: int = 0

    def plus(self, other: UserUsage) -> UserUsage:
        """Return the sum of both."""
        return UserUsage(self.jobs + other.jobs, self.bytes + other.bytes)


#: The usage of a submitter without unfinished jobs.
NOTHING = UserUsage()


def why_too_large(size: int, limits: UserLimits) -> str:
    """Return why a file is never accepted as it is, or "" if it is not too large."""
    if not limits.file_bytes or size <= limits.file_bytes:
        return ""
    return (
        f"it has {_amount(size)}, and a file may have {_amount(limits.file_bytes)} ([spool] max_file_bytes): "
        "split it, or ask for a higher limit"
    )


def why_too_much(size: int, held: UserUsage, limits: UserLimits) -> str:
    """Return why a file has to wait for other jobs of its submitter, or "" if it does not.

    A single file is never too much: it would wait for ever.
    """
    if limits.jobs and held.jobs >= limits.jobs:
        count = "a job" if limits.jobs == 1 else f"{limits.jobs} jobs"
        return f"its submitter may have {count} unfinished ([spool] user_jobs): it is accepted when one ends"
    if limits.bytes and held.jobs and held.bytes + size > limits.bytes:
        return (
            f"its submitter may have {_amount(limits.bytes)} unfinished ([spool] user_bytes): it is accepted when "
            "other jobs of the same submitter have ended"
        )
    return ""


def _amount(size: int) -> str:
    """Return `512 bytes`, `1.5 GiB`."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if amount == int(amount) else f"{amount:.1f} {_UNITS[unit]}"
