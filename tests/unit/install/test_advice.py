"""What an administrator is told around an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.install.advice import next_steps, what_is_left
from obcd.install.apply import InstallVerb
from obcd.install.found import Machine, code_time, own_leftovers
from obcd.install.service import outdated
from tests.golden.wording import wording

UNIT = "/etc/systemd/system/obcd.target"


def still_old(written: dict[str, InstallVerb], *, is_here: bool = True, outdated: tuple[str, ...] = ()) -> list[str]:
    lines = next_steps(Machine(), written, is_here=is_here, outdated=outdated)
    return [line for line in lines if "still the old" in line]


def test_first_installation_restarts_nothing() -> None:
    assert still_old({UNIT: InstallVerb.NEW}) == []


def test_changed_unit_has_both_daemons_restarted() -> None:
    sentence = "The running daemons are still the old ones: systemctl try-restart obcd-host obcd-coordinator"

    assert still_old({UNIT: InstallVerb.UPDATED}, outdated=("obcd-host",)) == [sentence]


def test_daemon_older_than_the_code_is_named_though_no_file_changed() -> None:
    sentence = "The running daemons are still the old ones: systemctl try-restart obcd-coordinator"

    assert still_old({}, outdated=("obcd-coordinator",)) == [sentence]


def test_staged_tree_has_nothing_that_runs() -> None:
    assert still_old({UNIT: InstallVerb.UPDATED}, is_here=False) == []


@pytest.mark.parametrize(
    ("state", "named"),
    [("active", ["obcd-host", "obcd-coordinator"]), ("activating", ["obcd-host", "obcd-coordinator"]), ("failed", [])],
)
def test_daemon_is_outdated_when_it_runs_and_began_before_the_code(
    state: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\necho ActiveState={state}\necho ExecMainStartTimestampMonotonic=1000000\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert outdated(code_time() + 1e9) == named
    assert outdated(0.0) == []


def test_machine_without_systemctl_has_no_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert outdated(code_time() + 1e9) == []


def test_what_an_administrator_made_is_found_and_nothing_else(tmp_path: Path) -> None:
    units, etc = tmp_path / "etc/systemd/system", tmp_path / "etc/obcd"
    for path in (
        units / "obcd-host.service.d/10-machine.conf",
        units / "obcd-host.service.d/20-mine.conf",
        units / "obcd-host.service.old",
        units / "nginx.service.old",
        units / "obcd.target",
        etc / "obcd.toml.old.2",
        etc / "cron.sample.new",
        etc / "visit.schema.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    found = own_leftovers(tmp_path, ["/etc/systemd/system/obcd-host.service.d/10-machine.conf"])

    assert found == [
        "/etc/obcd/cron.sample.new",
        "/etc/obcd/obcd.toml.old.2",
        "/etc/systemd/system/obcd-host.service.d/20-mine.conf",
        "/etc/systemd/system/obcd-host.service.old",
    ]


def test_what_is_left_names_the_group_and_what_is_the_administrators() -> None:
    lines = what_is_left(is_configuration_kept=False, own=["/etc/obcd/my file.old"])

    assert wording("yours-and-left-too-etc-obcd") in lines
    assert any(line.startswith("  groupdel obcd ") for line in lines)
    assert not any(line.startswith("Yours") for line in what_is_left(is_configuration_kept=True))
