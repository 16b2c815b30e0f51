from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.spool_setup import open_profiles, open_spool
from obcd.errors import InputError
from obcd.spool.folders import acl, permissions
from obcd.spool.folders.layout import Layout, SpoolLock
from tests.golden.wording import wording
from tests.unit.spool.spools import make_layout


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a spool whose group is shared with others."""
    monkeypatch.setattr(permissions, "_is_own_group", lambda uid, gid: False)
    return make_layout(tmp_path / "root", "clinical")


def start(layout: Layout, *, takes_drops: bool = True) -> None:
    lock = SpoolLock(layout)
    open_spool(layout, ["clinical"], lock, takes_drops=takes_drops)
    lock.release()


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o3730, 0o3770, 0o1777])
def test_inbox_that_is_private_or_sticky_is_taken(spool: Layout, mode: int) -> None:
    spool.inbox.chmod(mode)

    start(spool)

    assert stat.S_IMODE(spool.inbox.stat().st_mode) == mode, "it is left as the administrator made it"


def test_inbox_of_a_group_that_is_the_users_own_is_private(spool: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "_is_own_group", lambda uid, gid: True)
    spool.inbox.chmod(0o775)

    start(spool)

    assert stat.S_IMODE(spool.inbox.stat().st_mode) == 0o775


@pytest.mark.parametrize("profile", ["", "clinical"])
@pytest.mark.parametrize("mode", [0o775, 0o2770, 0o777])
def test_inbox_whose_users_get_at_each_others_files_is_refused(spool: Layout, profile: str, mode: int) -> None:
    folder = spool.inbox / profile
    folder.chmod(mode)

    with pytest.raises(InputError, match=wording("each-other-s-files-mend-it", folder)):
        start(spool)
    if profile:
        with pytest.raises(InputError, match=wording("each-other-s-files")):
            open_profiles(spool, [profile])
    start(spool, takes_drops=False)  # obcd batch: nobody drops there
    SpoolLock(spool).check_free()


@pytest.mark.parametrize("path", ["jobs", "inbox/.obcd", "inbox/.obcd/claim"])
def test_folder_of_prompts_that_is_open_is_refused_with_what_closes_it(spool: Layout, path: str) -> None:
    (spool.root / path).chmod(0o750)

    with pytest.raises(InputError, match=wording("others-may-come-at-the-prompts", spool.root / path)):
        start(spool)


def test_homes_are_refused_where_there_are_no_acls_and_the_lock_is_free_again(
    spool: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acl, "has_acls", lambda folder: False)
    private = replace(spool, per_user=True)

    with pytest.raises(InputError, match=wording("per-user-needs-acls")):
        start(private)
    SpoolLock(spool).check_free()
    start(spool)


def test_disk_that_refuses_the_trial_is_told(spool: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> bool:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(acl, "has_acls", refuse)

    with pytest.raises(InputError, match="No space left"):
        start(replace(spool, per_user=True))
