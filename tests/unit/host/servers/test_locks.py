"""Every open of a lock's file is a holder of its own (flock(2)), so one process can stand for two here."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from obcd.errors import AlreadyRunningError, ConfigurationError, InputError
from obcd.host.servers import locks
from obcd.host.servers.launcher import wait_for_pull
from obcd.host.servers.locks import hold_host, hold_pull, is_host_alive, is_pulling, keep_across_exec
from tests.golden.wording import wording


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    descriptor = hold_host(tmp_path)
    yield descriptor
    os.close(descriptor)


def test_a_second_host_is_refused_and_told_who_holds_the_lock(tmp_path: Path, held: int) -> None:
    with pytest.raises(AlreadyRunningError, match=wording("pid", tmp_path, os.getpid())):
        hold_host(tmp_path)


def test_a_refused_host_leaves_no_descriptor_and_the_holder_s_name_in_place(tmp_path: Path, held: int) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(AlreadyRunningError):
        hold_host(tmp_path)
    assert os.listdir("/proc/self/fd") == before
    assert (tmp_path / "lock").read_text() == f"pid {os.getpid()}\n"


def test_the_lock_is_free_when_its_holder_is_gone_and_its_longer_name_does_not_shine_through(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("pid 12345678901234567890\n")
    os.close(hold_host(tmp_path))
    os.close(hold_host(tmp_path))
    assert (tmp_path / "lock").read_text() == f"pid {os.getpid()}\n"


def test_the_lock_is_nobody_else_s_to_read_and_does_not_pass_an_exec_by_itself(tmp_path: Path, held: int) -> None:
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    assert not os.get_inheritable(held)


def test_a_link_in_the_lock_s_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=wording("cannot-open-the-lock")):
        hold_host(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_lock_that_supervisord_keeps_is_where_it_neither_closes_nor_hands_it_down(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locks.KEPT_DESCRIPTOR in (3, 4)  # 0 to 2 are its own, from 5 on it closes at a SIGHUP
    spare = os.open(tmp_path / "spare", os.O_CREAT | os.O_RDWR)
    monkeypatch.setattr(locks, "KEPT_DESCRIPTOR", spare)  # this process has a use of its own for 3

    keep_across_exec(held)

    assert os.get_inheritable(spare)
    assert os.path.sameopenfile(spare, held)
    os.set_inheritable(spare, False)
    keep_across_exec(spare)  # dup2(2) does nothing then
    assert os.get_inheritable(spare)
    os.close(spare)


def test_a_pull_keeps_others_out_and_says_who_pulls_what(tmp_path: Path) -> None:
    with (
        hold_pull(tmp_path, "llama3.2"),
        pytest.raises(AlreadyRunningError, match=wording("pid-pulls-llama3-2-3", os.getpid())),
        hold_pull(tmp_path, "qwen3", patience=0.0),
    ):
        pass
    with hold_pull(tmp_path, "qwen3", patience=0.0):
        assert (tmp_path / "pull.lock").read_text() == wording("pid-pulls-qwen3", os.getpid())


def test_the_name_of_one_who_pulled_is_not_taken_for_one_who_pulls(tmp_path: Path) -> None:
    with hold_pull(tmp_path, "llama3.2"):
        pass
    sharing = os.open(tmp_path / "pull.lock", os.O_RDONLY)
    fcntl.flock(sharing, fcntl.LOCK_SH)
    with (
        pytest.raises(AlreadyRunningError, match=wording("a-server-is-just-starting")),
        hold_pull(tmp_path, "q", patience=0.0),
    ):
        pass
    os.close(sharing)


def test_a_pull_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), hold_pull(tmp_path, "llama3.2"):
        raise KeyboardInterrupt
    assert not is_pulling(tmp_path)


def test_a_pull_waits_for_a_server_that_shares_the_lock_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pull.lock").touch()
    sharing = os.open(tmp_path / "pull.lock", os.O_RDONLY)
    fcntl.flock(sharing, fcntl.LOCK_SH)
    monkeypatch.setattr("obcd.host.servers.locks.time.sleep", lambda _: os.close(sharing))
    with hold_pull(tmp_path, "llama3.2"):
        assert is_pulling(tmp_path)


def test_whether_somebody_pulls_can_be_asked_at_any_time_and_holds_nobody_up(tmp_path: Path) -> None:
    assert not is_pulling(tmp_path)
    assert not (tmp_path / "pull.lock").exists()
    with hold_pull(tmp_path, "llama3.2"):
        assert is_pulling(tmp_path)
    assert not is_pulling(tmp_path)
    with hold_pull(tmp_path, "llama3.2", patience=0.0):
        pass


def test_servers_that_share_the_lock_are_no_pull(tmp_path: Path) -> None:
    (tmp_path / "pull.lock").touch()
    sharing = os.open(tmp_path / "pull.lock", os.O_RDONLY)
    fcntl.flock(sharing, fcntl.LOCK_SH)
    assert not is_pulling(tmp_path)
    os.close(sharing)


def test_a_lock_that_root_makes_is_the_hosts_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: given.append((uid, gid)))
    owner = SimpleNamespace(st_uid=997, st_gid=998)
    monkeypatch.setattr(Path, "stat", lambda _: owner)
    for _ in range(2):
        with hold_pull(tmp_path, "m"):
            pass
    assert given == [(997, 998)]  # only what was made anew


def test_a_lock_that_may_not_be_read_is_no_proof_that_nobody_pulls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    assert not is_pulling(tmp_path)
    monkeypatch.setattr(os, "open", refuse)
    assert is_pulling(tmp_path)
    assert is_host_alive(tmp_path) is None
    with pytest.raises(ConfigurationError, match=wording("nobody-can-tell-whether-a-model")):
        wait_for_pull(tmp_path)
