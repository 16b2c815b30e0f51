from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.spool_setup import open_profiles, open_spool, open_to_api
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


API = 61009


def test_api_is_let_in_to_drop_and_to_find_but_not_to_list(spool: Layout) -> None:
    if not acl.has_acls(spool.root):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    for folder, mode in ((spool.root, 0o750), (spool.inbox, 0o3730), (spool.outbox, 0o2750)):
        folder.chmod(mode)

    assert list(open_to_api(spool, API, "")) == []
    assert list(open_to_api(spool, API, "")) == []

    assert acl.readers(spool.root) == acl.readers(spool.inbox) == acl.readers(spool.outbox) == (API,)
    assert acl.readers(spool.inbox / "clinical") == ()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (spool.root, spool.inbox, spool.outbox)} == {
        0o750, 0o3730, 0o2750,
    }  # fmt: skip


def test_api_is_not_let_into_an_inbox_for_one_user(spool: Layout) -> None:
    spool.inbox.chmod(0o700)

    faults = list(open_to_api(spool, API, ""))

    assert any("3730" in fault for fault in faults)
    assert acl.readers(spool.inbox) == ()


def test_what_cannot_be_opened_to_the_api_is_named_with_the_command(
    spool: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acl, "admit", lambda *_: False)
    spool.inbox.chmod(0o3730)
    spool.outbox.chmod(0o2750)
    spool.root.chmod(0o755)

    faults = list(open_to_api(spool, API, ""))

    assert [f"setfacl -m u:{API}:{what} {path}" in fault for fault, (what, path) in zip(
        faults, (("x", spool.outbox), ("wx", spool.inbox)), strict=True
    )] == [True, True]  # fmt: skip
