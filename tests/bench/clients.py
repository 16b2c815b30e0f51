"""Clients that answer one file from process start to process end: obcd, and what one would write in an hour instead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

#: Seconds after which a client has failed.
PATIENCE = 900.0


def run_batch(folder: Path, configuration: str, lines: Iterable[bytes], name: str = "obcd") -> float:
    """Answer lines with `obcd batch`; return its seconds.

    Raises:
        RuntimeError: If one of them was not answered.
    """
    (folder / f"{name}.toml").write_text(configuration, "utf-8")
    (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    command = [sys.executable, "-m", "obcd", "batch", "--config", f"{name}.toml", "--prompts", f"{name}.jsonl"]
    return _run(folder, [*command, "--output-dir", f"{name}-answers"], name)


def run_baseline(folder: Path, urls: Iterable[str], lines: Iterable[bytes], name: str = "baseline") -> float:
    """Answer the same lines with one coroutine per endpoint, one request in flight each (`tests.bench.baseline`)."""
    (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    return _run(folder, [sys.executable, "-m", "tests.bench.baseline", f"{name}.jsonl", *urls], name)


def _run(folder: Path, command: list[str], name: str) -> float:
    own = {"PYTHONPATH": os.getcwd(), "OBCD_DIE_WITH_PARENT": "1", "XDG_RUNTIME_DIR": str(folder)}
    began = time.monotonic()
    with open(folder / f"{name}.log", "wb") as log:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **own},
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    seconds = time.monotonic() - began
    if done.returncode != 0:
        raise RuntimeError(f"{name} ended with {done.returncode}: {(folder / f'{name}.log').read_text('utf-8')}")
    return seconds
