"""What `obcd check` says of a GPU host: `[host]` followed up to the point where something would start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.diagnostics import gpu_host
from obcd.diagnostics.findings import Finding, Severity
from obcd.diagnostics.gpu_host import examine_host, is_enabled, is_gpu_host
from obcd.host.servers import launcher, runtime
from obcd.host.servers.locks import hold_host
from obcd.host.servers.plan import write_plan
from obcd.host.servers.planning import make_plan
from obcd.ollama.control import Probe
from tests.golden.wording import wording
from tests.gpu_support import StandIns, cards
from tests.standins import pynvml


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a socket that listens on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Return two cards and Ollama, on a machine without units and runtime folders."""
    made = StandIns(tmp_path / "stand-ins", cards(2))
    monkeypatch.setenv("STANDIN_FOLDER", str(made.folder))
    monkeypatch.setenv("PATH", str(made.bin))
    monkeypatch.setitem(sys.modules, "pynvml", pynvml)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(gpu_host, "SYSTEM_RUNTIME", tmp_path / "system")
    monkeypatch.setattr(runtime, "SYSTEM_RUNTIME", tmp_path / "system")
    monkeypatch.setattr(launcher, "PORT_SECONDS", 0.0)
    return made


@pytest.fixture
def base_port() -> int:
    """Return the first of two neighbouring free ports."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


def settings(**host: Any) -> Settings:
    return Settings.model_validate({"host": host})


def said(findings: list[Finding], severity: Severity) -> list[str]:
    assert {finding.subject for finding in findings} == {"host"}
    return [finding.sentence for finding in findings if finding.severity is severity]


def run_host(tmp_path: Path, chosen: Settings) -> int:
    """Leave what a running host leaves in its runtime folder; return the lock's descriptor."""
    folder = tmp_path / "run" / "obcd-host"
    folder.mkdir(parents=True)
    write_plan(make_plan(chosen), folder)
    return hold_host(folder)


def answer(monkeypatch: pytest.MonkeyPatch, *silent: str) -> None:
    """Let all servers answer but those of the ports given."""
    monkeypatch.setattr(
        gpu_host,
        "probe_all",
        lambda urls: [Probe("silent" if url.endswith(silent or "-") else None) for url in urls],
    )


def test_right_host_that_does_not_run_yet_is_told_how_it_starts(machine: StandIns, base_port: int) -> None:
    findings = examine_host(settings(base_port=base_port))

    text = f"[host]: gpu0 on port {base_port}, gpu1 on port {base_port + 1} of 127.0.0.1"
    assert said(findings, Severity.OK) == [text]
    assert said(findings, Severity.NOTE) == [wording("obcd-host-does-not-run-yet")]
    assert findings[-1].remedy.startswith(wording("sudo-systemctl-enable-now-obcd-host"))
    assert len(findings) == 2


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ({"gpus": [7]}, "[host] gpus names 7"),
        ({"ollama": "/none/ollama"}, wording("there-is-no-program-none-ollama")),
        ({"bind": "10.0.0.1:80"}, '[host] bind = "10.0.0.1:80" is not an address'),
    ],
)
def test_what_the_plan_refuses_is_a_fault(machine: StandIns, host: dict[str, Any], sentence: str) -> None:
    findings = examine_host(settings(**host))

    assert [finding.severity for finding in findings] == [Severity.FAULT]
    assert findings[0].sentence.startswith(sentence)


def test_cards_without_a_driver_are_a_fault(machine: StandIns) -> None:
    machine.describe(cards(2), driver="no-library")

    (finding,) = examine_host(Settings())

    assert (finding.severity, finding.sentence[:20]) == (Severity.FAULT, wording("no-nvidia-gpu-found"))


def test_address_of_another_machine_is_a_fault(machine: StandIns) -> None:
    findings = examine_host(settings(bind="192.0.2.1"))  # TEST-NET-1, RFC 5737

    (text,) = said(findings, Severity.FAULT)
    assert text.startswith('[host] bind = "192.0.2.1" is not an address of this machine')
    assert findings[-1].sentence == text


def test_name_that_no_host_can_have_is_a_fault(machine: StandIns) -> None:
    findings = examine_host(settings(bind="gpu1..cluster"))

    (text,) = said(findings, Severity.FAULT)
    assert text.startswith('[host] bind = "gpu1..cluster" is not an address of this machine (not a host\'s name)')


def test_port_that_a_stranger_holds_is_a_fault(machine: StandIns, listener: socket.socket) -> None:
    port = listener.getsockname()[1]

    findings = examine_host(settings(gpus=[0], base_port=port))

    (text,) = said(findings, Severity.FAULT)
    assert text.startswith(wording("gpu0-cannot-start-port-meant-for", port, os.getpid()))


#: Listens on the port given; ends with its standard input.
LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.mark.integration
@pytest.mark.parametrize("is_alive", [True, False])
def test_port_that_a_host_of_ours_holds_is_no_fault_as_long_as_it_runs(
    machine: StandIns, tmp_path: Path, base_port: int, is_alive: bool
) -> None:
    # given a host with a runtime folder of its own choice (--runtime), whose server has the port of card 0
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    lock = hold_host(folder)
    server = subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(base_port)], env={**os.environ, "OBCD_SLOT": f"{folder}:0"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listens\n"
        if not is_alive:
            os.close(lock)

        findings = examine_host(settings(base_port=base_port))

        server.kill()
    if is_alive:
        assert said(findings, Severity.OK)[-1] == wording("the-obcd-host-at-runs-it", folder, base_port)
        assert {finding.severity for finding in findings} == {Severity.OK}
        os.close(lock)
    else:  # left over: whoever starts the next one has to know
        (text,) = said(findings, Severity.FAULT)
        assert wording("the-server-gpu0-of-the-obcd", folder) in text


def test_folder_that_a_stranger_planted_is_not_believed(machine: StandIns, tmp_path: Path, base_port: int) -> None:
    planted = tmp_path / "run" / "obcd-host"
    planted.mkdir(parents=True)
    planted.chmod(0o777)
    (planted / "lock").touch()

    findings = examine_host(settings(base_port=base_port))

    assert said(findings, Severity.NOTE) == [wording("obcd-host-does-not-run-yet")]


def test_servers_of_a_running_host_are_counted(
    machine: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    chosen = settings(base_port=listener.getsockname()[1])
    lock = run_host(tmp_path, chosen)
    answer(monkeypatch)

    findings = examine_host(chosen)

    assert said(findings, Severity.OK)[-1] == wording("obcd-host-runs-2-2-servers")
    assert {finding.severity for finding in findings} == {Severity.OK}
    os.close(lock)


def test_silent_server_and_an_older_plan_are_told(
    machine: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = run_host(tmp_path, settings(base_port=20000))
    answer(monkeypatch, ":20001")

    findings = examine_host(settings(base_port=20000, num_parallel=2))

    assert said(findings, Severity.WARNING) == [wording("obcd-host-runs-1-2-servers")]
    assert said(findings, Severity.NOTE) == [wording("obcd-host-runs-with-another-host")]
    assert findings[-1].remedy.startswith("obcd host ")  # systemd knows nothing of one that a user started
    os.close(lock)


def test_running_system_host_that_is_hidden_from_us_is_asked_by_its_configuration(
    machine: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "system"
    hidden.mkdir()
    monkeypatch.setattr(gpu_host, "is_host_alive", lambda _: None)
    answer(monkeypatch)

    findings = examine_host(settings(base_port=20000))

    assert said(findings, Severity.OK)[-1] == wording("obcd-host-runs-2-2-servers")


def test_gpu_host_is_what_is_enabled_running_configured_or_installed_with_cards(
    machine: StandIns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = tmp_path / "units"
    assert not is_gpu_host(Settings(), units)
    assert is_gpu_host(settings(gpus=[0]), units)

    source = tmp_path / "obcd.toml"
    monkeypatch.setattr(gpu_host, "SYSTEM_CONFIGURATION", source)
    assert is_gpu_host(Settings().model_copy(update={"source": source}), units)
    machine.describe([])
    assert not is_gpu_host(Settings().model_copy(update={"source": source}), units)

    (units / "obcd.target.wants").mkdir(parents=True)
    (units / "obcd.target.wants" / "obcd-host.service").symlink_to("/none/obcd-host.service")
    assert is_enabled("obcd-host.service", units)
    assert is_gpu_host(Settings(), units)
    assert not is_enabled("obcd-coordinator.service", units)


def test_runtime_folder_of_the_unit_makes_a_gpu_host(machine: StandIns, tmp_path: Path) -> None:
    (tmp_path / "system").mkdir()

    assert is_gpu_host(Settings(), tmp_path / "units")
