"""The paths of an installed system. Floor 0."""

from __future__ import annotations

from pathlib import Path

SYSTEM_CONFIGURATION = Path("/etc/obcd/obcd.toml")
SYSTEM_ROOT = Path("/var/spool/obcd")
