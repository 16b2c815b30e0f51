from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.errors import AlreadyRunningError, InputError
from obcd.host.servers import runtime as module
from obcd.host.servers.locks import hold_host
from obcd.host.servers.runtime import folder_that_runs, folder_to_start, make_folder
from tests.golden.wording import wording


class Machine:
    """A machine with a place for the system's host and one for the caller's own, as some user sees it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.system, self.own = folder / "run" / "obcd-host", folder / "own" / "obcd-host"
        self._patch, self._held = monkeypatch, list[int]()
        monkeypatch.setattr(module, "SYSTEM_RUNTIME", self.system)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(self.own.parent))
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)

    def start(self, folder: Path) -> None:
        folder.mkdir(parents=True, mode=0o700)
        self._held.append(hold_host(folder))

    def become(self, uid: int) -> None:
        """Let the caller be another user; folders made so far are a stranger's to him."""
        self._patch.setattr(os, "getuid", lambda: uid)

    def end(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch)
    yield made
    made.end()


def test_what_was_given_is_taken(machine: Machine, tmp_path: Path) -> None:
    machine.start(machine.system)
    assert folder_that_runs(str(tmp_path / "x")) == folder_to_start(str(tmp_path / "x")) == tmp_path / "x"


def test_the_unit_has_the_folder_that_systemd_made(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/other:/run/obcd-host")
    assert folder_that_runs() == folder_to_start() == Path("/run/obcd-host")


@pytest.mark.parametrize("uid", [0, 1234])
def test_where_only_one_host_is_alive_it_is_meant(machine: Machine, uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "distrust", lambda _: None)
    machine.become(uid)
    machine.own.mkdir(parents=True)  # of a host that ran once
    machine.start(machine.system)
    assert folder_that_runs() == machine.system


@pytest.mark.parametrize(("uid", "is_system"), [(0, True), (1234, False)])
def test_where_both_are_alive_root_means_the_systems_and_others_their_own(
    machine: Machine, uid: int, is_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "distrust", lambda _: None)
    machine.become(uid)
    machine.start(machine.system)
    machine.start(machine.own)
    assert folder_that_runs() == (machine.system if is_system else machine.own)


def test_a_folder_that_a_stranger_made_is_neither_looked_into_nor_used(machine: Machine) -> None:
    machine.start(machine.own)
    machine.become(os.getuid() + 1)
    for ask in (folder_that_runs, folder_to_start):
        with pytest.raises(InputError, match=wording("belongs-to-user-nothing-in-it")):
            ask()
    machine.start(machine.system)
    assert folder_that_runs() == machine.system


def test_a_planted_folder_does_not_keep_root_from_the_systems_word(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start(machine.own)
    machine.become(0)
    monkeypatch.setattr(module, "distrust", lambda _: "belongs to user bob")
    assert folder_that_runs() == machine.system
    with pytest.raises(InputError, match=wording("belongs-to-user-bob")):
        folder_to_start()


def test_a_link_and_a_folder_open_to_all_are_not_trusted(machine: Machine, tmp_path: Path) -> None:
    machine.own.parent.mkdir()
    machine.own.symlink_to(tmp_path)
    with pytest.raises(InputError, match=wording("is-not-a-folder")):
        folder_to_start()
    machine.own.unlink()
    machine.own.mkdir()
    machine.own.chmod(0o777)
    with pytest.raises(InputError, match=wording("written-by-everybody")):
        folder_to_start()


def test_beside_the_systems_host_nobody_starts_one_by_mistake(machine: Machine) -> None:
    machine.start(machine.system)
    with pytest.raises(AlreadyRunningError, match=wording("obcd-host-service-runs-here-runtime")):
        folder_to_start()
    machine.end()
    machine._held.clear()
    assert folder_to_start() == machine.own


def test_the_folder_is_made_for_its_owner_alone(machine: Machine) -> None:
    make_folder(machine.own)
    assert machine.own.stat().st_mode & 0o777 == 0o700
    machine.become(os.getuid() + 1)
    with pytest.raises(InputError, match="belongs to"):
        make_folder(machine.own)
