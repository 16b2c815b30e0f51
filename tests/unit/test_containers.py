"""The files of etc/container/: no image is built here, so what can be read is held."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest

from obcd.cli.main import COMMANDS
from obcd.config.loading import load_settings
from obcd.package_data import shared

FOLDER = shared("container")
FILES = ("Containerfile", "Containerfile.gpu-host")


def instructions(name: str) -> dict[str, str]:
    """Return `{instruction: its last value}` of a container file, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / name).read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return dict(line.split(" ", 1) for line in lines if line)


@pytest.mark.parametrize("name", FILES)
def test_image_is_of_one_version_and_runs_as_nobody_special(name: str) -> None:
    found = instructions(name)

    assert re.search(r":\d+\.\d+", found["FROM"])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found["USER"])
    assert found["STOPSIGNAL"] == "SIGTERM"
    assert {"VOLUME", "HEALTHCHECK", "COPY"} <= found.keys()


@pytest.mark.parametrize("name", FILES)
def test_commands_of_the_image_are_obcds(name: str) -> None:
    found = instructions(name)

    checked = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    assert json.loads(found["ENTRYPOINT"]) == ["obcd"] == checked[:1]
    assert {json.loads(found["CMD"])[0], checked[1]} <= COMMANDS.keys()


def test_configurations_are_valid_and_meet() -> None:
    coordinator = load_settings(FOLDER / "coordinator.toml")
    host = load_settings(FOLDER / "gpu-host.toml").host

    assert list(coordinator.ollama_instances) == [f"{host.name}:{host.base_port}"]
    assert host.bind == "0.0.0.0"


def test_compose_file_names_files_that_are_there_and_volumes_that_it_declares() -> None:
    text = (FOLDER / "compose.yaml").read_text("utf-8")

    sources = re.findall(r"^ +- (\./[^:]+|[a-z]+):/\S+$", text, re.MULTILINE)
    files = [name for name in sources if name.startswith("./")] + re.findall(r"dockerfile: (\S+)", text)
    declared = re.findall(r"^  (\w+):$", text.partition("\nvolumes:\n")[2], re.MULTILINE)
    assert len(files) == 4
    assert [name for name in files if not (FOLDER / name).is_file()] == []
    assert [name for name in sources if not name.startswith("./")] == declared
    assert "ports:" not in text


@pytest.mark.skipif(importlib.util.find_spec("yaml") is None, reason="no YAML parser is installed")
def test_compose_file_is_yaml() -> None:
    document = importlib.import_module("yaml").safe_load((FOLDER / "compose.yaml").read_text("utf-8"))

    assert set(document["services"]) == {"coordinator", load_settings(FOLDER / "gpu-host.toml").host.name}
    assert set(document["volumes"]) == {"spool", "models"}
    assert all(Path(item["build"]["dockerfile"]).name in FILES for item in document["services"].values())
