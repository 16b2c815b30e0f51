"""Where the programs of these tests are, and why a test is skipped where one is missing."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def find_program(name: str, variable: str, package: str) -> str:
    """Return the path of a program, from a variable or from PATH; skip the test where there is none."""
    found = os.environ.get(variable) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not on PATH (apt-get install {package}), and {variable} does not name it")
    return found


def find_chromium() -> str:
    """Return the path of Debian's browser."""
    return find_program("chromium", "OBCD_CHROMIUM", "chromium")


def find_promtool() -> str:
    """Return the path of Prometheus's own checker."""
    return find_program("promtool", "OBCD_PROMTOOL", "prometheus")


def find_npm_packages(*names: str) -> Path:
    """Return the folder whose `node_modules` holds these packages; skip the test where it does not, or without node."""
    find_program("node", "OBCD_NODE", "nodejs")
    folder = Path(os.environ.get("OBCD_NPM") or Path(sys.prefix) / "npm")
    missing = [name for name in names if not (folder / "node_modules" / name / "package.json").exists()]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not in {folder}: make test-web fetches it by npm")
    return folder
