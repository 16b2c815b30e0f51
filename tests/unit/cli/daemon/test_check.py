"""`obcd check` on a GPU host: what it says of `[host]`, and when the default endpoint is no complaint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.cli.daemon import check
from obcd.cli.main import run
from obcd.config.settings import Settings
from obcd.core.tables import file_format
from obcd.diagnostics.findings import fault, note, right
from obcd.errors import ExitCode
from obcd.ollama.control import Probe
from obcd.spool.folders.layout import Layout
from tests.golden.wording import wording

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the configuration of a GPU host that is right; nothing answers on the default endpoint."""
    config = tmp_path / "obcd.toml"
    config.write_text('[ollama_instances]\n"127.0.0.1:11434" = 0\n[host]\ngpus = [0]\n', "utf-8")
    monkeypatch.setenv("OBCD_ROOT", str(tmp_path / "spool"))
    Layout.at(tmp_path / "spool").create([])
    monkeypatch.setattr(check, "examine_host", lambda _: [right("host", "[host]: gpu0 on port 1 of 127.0.0.1")])
    monkeypatch.setattr(check, "is_enabled", lambda _: False)
    monkeypatch.setattr(check, "probe_all", lambda urls, tokens: [Probe("refused") for _ in urls])
    return str(config)


def test_default_endpoint_of_a_gpu_host_is_no_complaint(host: str, capsys: Capture) -> None:
    code = run(["check", "--config", host])

    said = capsys.readouterr().out
    assert "\n[host]: gpu0 on port 1 of 127.0.0.1\nendpoints: none configured here yet, " in said
    assert "ollama pull" not in said
    assert wording("no-coordinator-runs") not in said
    assert code == ExitCode.DONE


def test_template_with_a_dollar_before_a_field_is_a_warning(host: str, capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("[profiles.a]\ntemplate = 'About ${note}'\n")

    run(["check", "--config", str(path), "--root", str(tmp_path / "root")])

    assert wording("warning-profiles-a-template-puts-a") in capsys.readouterr().out


def test_configuration_that_lies_here_and_is_not_read_is_named(
    host: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["check", "--config", host])
    assert wording("is-not-read") not in capsys.readouterr().out

    monkeypatch.chdir(tmp_path / "spool")
    Path("obcd.toml").touch()
    run(["check", "--config", host])
    assert wording("the-obcd-toml-in-this-folder") in capsys.readouterr().out


def test_coordinator_on_a_gpu_host_does_need_its_endpoints(
    host: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "is_enabled", lambda unit: unit == "obcd-coordinator.service")

    code = run(["check", "--config", host])

    said = capsys.readouterr().out
    assert wording("note-no-coordinator-runs-on") in said
    assert "endpoint 127.0.0.1:11434 (slots: auto): refused" in said
    assert code == ExitCode.NO_ENDPOINT


def test_fault_of_the_host_is_a_wrong_configuration(
    host: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "examine_host", lambda _: [fault("host", "there is no card 7", "nvidia-smi -L")])

    code = run(["check", "--config", host])

    assert wording("fault-there-is-no-card-7") in capsys.readouterr().out
    assert code == ExitCode.CONFIGURATION


def test_json_holds_the_host_beside_the_installation(
    host: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "examine_host", lambda _: [note("host", "obcd host does not run yet")])

    code = run(["check", "--json", "--config", host])

    document = json.loads(capsys.readouterr().out)
    assert document["installation"][-1]["sentence"] == wording("obcd-host-does-not-run-yet")
    assert (document["endpoints"], document["missing_models"], code) == ([], [], ExitCode.DONE)


def test_machine_without_cards_is_not_asked_for_a_host(
    tmp_path: Path, host: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "obcd.toml").write_text('[ollama_instances]\n"127.0.0.1:11434" = 0\n', "utf-8")
    monkeypatch.setattr(check, "is_gpu_host", lambda _: False)

    code = run(["check", "--config", host])

    said = capsys.readouterr().out
    assert "[host]" not in said
    assert "on 0 of 1 endpoint; ollama pull llama3.2" in said
    assert code == ExitCode.NO_ENDPOINT


def test_no_model_has_to_be_pulled_where_only_the_path_is_wrong(tmp_path: Path, host: str, capsys: Capture) -> None:
    (tmp_path / "obcd.toml").write_text('[ollama_instances]\n"127.0.0.1:1/v1" = 0\n', "utf-8")

    code = run(["check", "--config", host])

    said = capsys.readouterr().out
    assert "on 0 of 1 endpoint" in said
    assert "ollama pull" not in said
    assert code == ExitCode.NO_ENDPOINT


def test_endpoints_that_were_written_down_have_to_answer_on_a_gpu_host_too(
    tmp_path: Path, host: str, capsys: Capture
) -> None:
    (tmp_path / "obcd.toml").write_text('[ollama_instances]\n"10.0.0.11:11432" = 0\n[host]\ngpus = [0]\n', "utf-8")

    code = run(["check", "--config", host])

    assert "endpoint 10.0.0.11:11432 (slots: auto): refused" in capsys.readouterr().out
    assert code == ExitCode.NO_ENDPOINT


@pytest.mark.parametrize("has_extras", [True, False])
def test_check_names_the_extras_that_accepted_kinds_need(monkeypatch: pytest.MonkeyPatch, has_extras: bool) -> None:
    monkeypatch.setattr(file_format, "_has_module", lambda module: has_extras)
    settings = Settings.model_validate({"accept": ["parquet"], "profiles": {"a": {"accept": ["csv", "gz", "zst"]}}})

    said = " ".join(check._missing_extras(settings))

    assert [extra in said for extra in ("obcd[parquet]", "obcd[zst]")] == [not has_extras] * 2
