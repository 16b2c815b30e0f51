"""Where the files of `etc/` lie: beside the package in a checkout, inside it when installed. Floor 0."""

from __future__ import annotations

from pathlib import Path


def shared(name: str) -> Path:
    """Return the path of a file or folder of `etc/`, e.g. `shared("examples")`.

    Raises:
        FileNotFoundError: If this installation lacks it.
    """
    package = Path(__file__).parent
    for folder in (package / "etc", package.parent / "etc"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)
