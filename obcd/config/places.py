"""Where a configuration and a spool lie when no option names them; light, because shell completion imports it."""

from __future__ import annotations

import os
from pathlib import Path

from obcd.system_paths import SYSTEM_CONFIGURATION, SYSTEM_ROOT


def usual_configuration() -> Path | None:
    """Return the system's configuration, else the user's, or None where there is neither."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # stays `~/.config` without a home
    user = Path(base) / "obcd" / "obcd.toml"
    return next((path for path in (SYSTEM_CONFIGURATION, user) if path.is_file()), None)


def usual_root() -> Path | None:
    """Return the system's root where obcd is installed, else the user's; None for a user without a home."""
    if SYSTEM_CONFIGURATION.is_file():
        return SYSTEM_ROOT
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(base) / "obcd" if base.startswith("/") else None
