from __future__ import annotations

import sys
from pathlib import Path

import pytest

from obcd.install import advice, found
from obcd.install.found import Machine, Stock, look
from tests.golden.wording import wording


def put(root: Path, path: str, text: str = "", mode: int = 0o644) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)


def test_empty_tree_has_nothing(tmp_path: Path) -> None:
    assert look(tmp_path) == Machine()


def test_groups_driver_and_ollama_are_found(tmp_path: Path) -> None:
    put(tmp_path, "etc/group", "root:x:0:\nvideo:x:44:\nrenderers:x:7:\n")
    put(tmp_path, "usr/bin/nvidia-smi", mode=0o755)
    put(tmp_path, "usr/local/bin/ollama", mode=0o755)

    machine = look(tmp_path)

    assert machine.card_groups == ("video",)
    assert machine.nvidia == ("/usr/bin/nvidia-smi",)
    assert machine.ollama == "/usr/local/bin/ollama"


def test_stock_service_is_found_with_the_models_its_unit_names(tmp_path: Path) -> None:
    put(tmp_path, "etc/systemd/system/ollama.service", "[Service]\n")
    put(tmp_path, "etc/systemd/system/ollama.service.d/o.conf", '[Service]\nEnvironment="OLLAMA_MODELS=/data/models"\n')
    (tmp_path / "data/models").mkdir(parents=True)
    (tmp_path / "usr/share/ollama/.ollama/models").mkdir(parents=True)

    assert look(tmp_path).stock == Stock(unit="/etc/systemd/system/ollama.service", models="/data/models")


def test_models_alone_are_a_trace_of_a_stock_service(tmp_path: Path) -> None:
    (tmp_path / "usr/share/ollama/.ollama/models").mkdir(parents=True)

    assert look(tmp_path).stock == Stock(models="/usr/share/ollama/.ollama/models")


def test_advice_names_the_commands_for_a_stock_service() -> None:
    stock = Stock(unit="/etc/systemd/system/ollama.service", models="/usr/share/ollama/.ollama/models")

    text = "\n".join(advice.about_stock(stock))

    assert wording("systemctl-disable-now-ollama") in text
    assert wording("setfacl-r-m-u-obcd-rwx") in text
    assert wording("setfacl-m-u-obcd-x-usr") in text
    assert wording("models-usr-share-ollama-ollama-models") in text
    assert "ReadWritePaths=/usr/share/ollama/.ollama/models" in text


@pytest.mark.parametrize(
    ("version", "said"), [(None, wording("no-systemd-runs-this-machine")), (245, "systemd is 245")]
)
def test_machine_without_a_systemd_that_will_do_is_told_what_works(version: int | None, said: str) -> None:
    text = advice.no_systemd(version)

    assert said in text
    assert "obcd coordinator" in text


@pytest.mark.parametrize("folder", ["/root/venv", "/home/ann/venv", "/tmp/venv"])
def test_python_where_services_do_not_look_is_refused(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", f"{folder}/bin/python")

    reason = found.unreadable_reason()

    assert reason.startswith(f"{folder}/bin/python is under /")
    assert wording("python3-m-venv-opt-obcd") in advice.unreadable_python(reason)


def test_python_below_a_closed_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "closed/bin/python", mode=0o755)
    (tmp_path / "closed").chmod(0o750)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "closed/bin/python"))
    monkeypatch.setattr(found, "HIDDEN", ())

    reason = found.unreadable_reason()

    assert reason == wording("closed-may-not-be-read-by", tmp_path)
