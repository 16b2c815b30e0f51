"""Debian's Chromium, driven by playwright-core in one process for all visits of a test module."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.web.programs import find_chromium, find_npm_packages

DRIVER = Path(__file__).with_name("browse.cjs")
#: Seconds for all visits of one call.
LIMIT = 240.0
#: A folder for screenshots of each visit, to look at.
SCREENSHOTS = os.environ.get("OBCD_SCREENSHOTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One look at a page, in a fresh profile.

    Attributes:
        scheme: `light` or `dark`.
        script: Whether the page's script runs.
        axe: Whether axe-core judges the page at the end.
        actions: Pairs of `click` and a selector, `press` and a key, `run` or `wait` and an expression of JavaScript,
            `offline` and whether there is no network.
    """

    url: str
    name: str
    scheme: str = "light"
    script: bool = True
    width: int = 1280
    height: int = 900
    axe: bool = False
    actions: Sequence[tuple[str, object]] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a visit found: see `tests/web/browse.cjs`."""

    status: int
    title: str
    messages: list[str]
    requests: list[str]
    bytes: int
    results: list[Any]
    paint: float | None = None
    violations: list[dict[str, Any]] = field(default_factory=list)


def browse(visits: Sequence[Visit]) -> dict[str, Found]:
    """Return what each visit found, by its name; skip the test where there is no browser."""
    modules = find_npm_packages("playwright-core", "axe-core") / "node_modules"
    wanted = [
        {
            "url": visit.url, "scheme": visit.scheme, "script": visit.script, "width": visit.width,
            "height": visit.height, "axe": visit.axe, "actions": list(visit.actions),
            "screenshot": f"{SCREENSHOTS}/{visit.name}.png" if SCREENSHOTS else None,
        }
        for visit in visits
    ]  # fmt: skip
    job = json.dumps({"chromium": find_chromium(), "modules": str(modules), "visits": wanted})
    done = subprocess.run(["node", str(DRIVER)], input=job, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    names = Found.__dataclass_fields__.keys()
    return {
        visit.name: Found(**{key: value for key, value in reply.items() if key in names})
        for visit, reply in zip(visits, json.loads(done.stdout), strict=True)
    }
