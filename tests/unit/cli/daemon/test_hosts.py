"""`obcd hosts`, `obcd hosts remove` and what `obcd check` says of the hosts folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from obcd.cli.daemon import check, hosts
from obcd.cli.main import run
from obcd.clock import wall
from obcd.errors import ExitCode
from obcd.hosts.record import CardReading, HostState, RegisteredEndpoint
from obcd.hosts.registration import Registration
from obcd.spool.folders.layout import Layout
from tests.golden.wording import wording

Capture = pytest.CaptureFixture[str]
CARD = CardReading(uuid="GPU-1", utilization=0.5, memory_used_bytes=8 * 2**30, memory_total_bytes=80 * 2**30)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a hosts folder whose configuration every command finds; no coordinator runs."""
    made = tmp_path / "hosts"
    made.mkdir(mode=0o770)
    config = tmp_path / "obcd.toml"
    config.write_text(f'[cluster]\nhosts = "{made}"\n', "utf-8")
    monkeypatch.setenv("OBCD_CONFIG", str(config))
    monkeypatch.setenv("OBCD_ROOT", str(tmp_path / "spool"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(hosts, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(check, "is_gpu_host", lambda _: False)
    return made


def register(folder: Path, name: str, state: HostState = HostState.SERVING) -> Registration:
    made = Registration(folder, name, by="slurm 4711_2")
    assert made.write(state, [RegisteredEndpoint(url="http://10.0.0.1:11432")], [CARD]) == ""
    return made


def show(tmp_path: Path, *views: dict[str, Any]) -> None:
    """Let a coordinator's status say this of the hosts."""
    layout = Layout.at(tmp_path / "spool")
    layout.create([])
    document = {
        "version": "1", "pid": 1, "root": str(layout.root), "inbox": "", "outbox": "", "state": "READY",
        "updated": wall(), "updated_at": "", "hosts": views,
    }  # fmt: skip
    layout.status.parent.mkdir(parents=True, exist_ok=True)
    layout.status.write_text(json.dumps(document), "utf-8")


def test_hosts_are_listed_with_age_cards_and_why_one_is_not_used(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    register(folder, "gpu1")
    used = {"name": "gpu1", "owner": "obcd", "state": "serving", "age_seconds": 4.0, "endpoints": ["10.0.0.1:11432"]}
    show(tmp_path, used, {"name": "evil", "state": "refused", "why": "it is not a regular file"})

    assert run(["hosts"]) == ExitCode.DONE

    said = capsys.readouterr()
    _, evil, gpu1 = said.out.splitlines()
    assert gpu1.split() == ["gpu1", "obcd", "-", "serving", "4", "s", "1", "1", "×", "50", "%", "8/80", "GiB", "-"]
    assert evil.endswith("it is not a regular file")
    assert said.err == ""


def test_hosts_for_machines_have_their_cards(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    register(folder, "gpu1")
    show(tmp_path, {"name": "gpu1", "state": "serving"})

    run(["hosts", "--json"])

    (host,) = json.loads(capsys.readouterr().out)["hosts"]
    assert (host["state"], host["cards"][0]["utilization"]) == ("serving", 0.5)


def test_without_a_coordinator_the_records_are_listed_without_ages(folder: Path, capsys: Capture) -> None:
    register(folder, "gpu1")
    (folder / "torn.json").write_text("{")

    run(["hosts"])

    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["host", "gpu1", "torn"]
    assert wording("no-coordinator-says-which-of-these") in said.err


def test_records_are_listed_before_the_coordinator_has_read_them(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    register(folder, "gpu1")
    show(tmp_path)

    run(["hosts"])

    said = capsys.readouterr()
    assert "gpu1" in said.out
    assert hosts.UNREAD in said.out


def test_folder_that_cannot_be_read_hides_no_host_of_the_coordinator(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder.rmdir()
    assert run(["hosts"]) == ExitCode.INPUT
    show(tmp_path, {"name": "gpu1", "state": "serving"})

    assert run(["hosts"]) == ExitCode.DONE
    assert "gpu1" in capsys.readouterr().out


def test_without_a_hosts_folder_the_command_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "obcd.toml"
    config.write_text("")
    monkeypatch.setenv("OBCD_CONFIG", str(config))

    assert run(["hosts"]) == ExitCode.CONFIGURATION


@pytest.mark.parametrize(
    ("view", "is_removed"),
    [
        ({"state": "dead", "age_seconds": 300.0}, True),
        ({"state": "silent", "age_seconds": None}, True),  # from before the coordinator: it is watched
        ({"state": "silent", "age_seconds": 40.0}, False),
        ({"state": "serving", "age_seconds": 4.0}, False),
    ],
)
def test_dead_host_is_removed_and_a_living_one_is_not(
    folder: Path, tmp_path: Path, view: dict[str, Any], is_removed: bool
) -> None:
    path = register(folder, "gpu1").path
    show(tmp_path, {"name": "gpu1", **view})

    code = run(["hosts", "remove", "gpu1"])

    assert (code == ExitCode.DONE, not path.exists()) == (is_removed, is_removed)


def test_host_that_is_gone_is_removed_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = register(folder, "gpu1")
    ended.close()
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("watched"))

    assert run(["hosts", "remove", "gpu1"]) == ExitCode.DONE
    assert os.listdir(folder) == []


def test_record_that_changes_while_it_is_watched_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    living, dead = register(folder, "gpu1"), register(folder, "gpu2")
    monkeypatch.setattr("time.sleep", lambda _: living.write(HostState.SERVING))

    assert run(["hosts", "remove", "gpu2", "gpu1"]) == ExitCode.INPUT
    assert living.path.exists()
    assert dead.path.exists()


@pytest.mark.parametrize(("name", "code"), [("../obcd", ExitCode.USAGE), ("gpu1", ExitCode.INPUT)])
def test_what_is_no_record_cannot_be_removed(folder: Path, name: str, code: ExitCode) -> None:
    assert run(["hosts", "remove", name]) == code


# --- obcd check ------------------------------------------------------------------------------------------------------


def findings(capsys: Capture) -> dict[str, list[str]]:
    """Return `{severity: sentences}` of what `obcd check` finds of the hosts folder."""
    run(["check", "--json"])
    found: dict[str, list[str]] = {}
    for item in json.loads(capsys.readouterr().out)["installation"]:
        if item["subject"] == "hosts":
            found.setdefault(item["severity"], []).append(item["sentence"])
    return found


def test_hosts_folder_without_hosts_is_no_fault(folder: Path, capsys: Capture) -> None:
    folder.chmod(0o3770)

    assert findings(capsys).keys() == {"note"}
    assert run(["check"]) == ExitCode.DONE


def test_records_that_do_not_count_are_warnings(folder: Path, capsys: Capture) -> None:
    folder.chmod(0o3770)
    register(folder, "gpu1")
    (folder / "torn.json").write_text("{")

    assert findings(capsys).keys() == {"ok", "warning"}


def test_folder_in_which_everybody_can_remove_records_is_a_warning(folder: Path, capsys: Capture) -> None:
    folder.chmod(0o770)

    assert findings(capsys).keys() == {"warning", "note"}


def test_missing_folder_is_a_fault(folder: Path, capsys: Capture) -> None:
    folder.rmdir()

    assert findings(capsys).keys() == {"fault"}
    assert run(["check"]) == ExitCode.INPUT


def test_users_are_named_whose_servers_see_the_prompts(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    folder.chmod(0o3770)
    config = tmp_path / "obcd.toml"
    config.write_text(config.read_text() + 'users = ["root", "daemon", "no-such-user"]\n')

    found = findings(capsys)

    assert any("daemon" in text for text in found["note"])
    assert any("no-such-user" in text for text in found["fault"])
