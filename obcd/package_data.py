"""Where the files of `etc/` and `systemd/` are: beside the package in a checkout, inside it when installed. Floor 0."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def shared(name: str, collection: Literal["etc", "systemd"] = "etc") -> Path:
    """Return the path of a file or folder that is part of obcd, e.g. `shared("examples")`.

    Raises:
        FileNotFoundError: If this installation lacks it.
    """
    package = Path(__file__).parent
    for folder in (package / collection, package.parent / collection):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)
