from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders.layout import Layout, SpoolLock, lock_holder, make_own
from obcd.spool.intake.acceptance import accept
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, drop_of, make_layout, order_of, put


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.at(tmp_path / "root")


def test_folders_are_made_once_and_found_again(layout: Layout) -> None:
    layout.create(["clinical"])
    layout.create(["clinical"])

    assert {path.stat().st_mode & 0o777 for path in (layout.jobs, layout.claims.parent, layout.claims)} == {0o700}
    assert (layout.inbox / "clinical").is_dir()


def test_profile_is_as_open_as_the_inbox_whatever_the_umask(layout: Layout) -> None:
    layout.inbox.mkdir(parents=True)
    layout.inbox.chmod(0o3730)
    old = os.umask(0o027)
    try:
        layout.create(["clinical"])
        kept = os.umask(0o027)
    finally:
        os.umask(old)

    assert (layout.inbox / "clinical").stat().st_mode & 0o7777 == 0o3730
    assert kept == 0o027


@pytest.mark.parametrize("path", ["", "inbox", "outbox", "jobs", "inbox/clinical", "inbox/.obcd", "inbox/.obcd/claim"])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_no_folder_is_named(layout: Layout, path: str, kind: str, tmp_path: Path) -> None:
    planted = layout.root / path
    planted.parent.mkdir(0o700, parents=True, exist_ok=True)
    planted.write_text("mine", "utf-8") if kind == "file" else planted.symlink_to(tmp_path / "nowhere")

    with pytest.raises(InputError, match=wording("is-not-a-folder-2", planted)):
        layout.create(["clinical"])
    assert os.path.lexists(planted)


def test_folder_of_claims_that_is_a_link_is_refused(layout: Layout, tmp_path: Path) -> None:
    layout.inbox.mkdir(parents=True)
    (layout.inbox / ".obcd").symlink_to(tmp_path)

    with pytest.raises(InputError, match=wording("obcd-is-not-a-folder")):
        layout.create([])
    assert not (tmp_path / "claim").exists()


def test_folder_of_claims_of_another_user_is_refused(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    (layout.inbox / ".obcd").mkdir(parents=True)
    real = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: real + 1)

    with pytest.raises(InputError, match=wording("belongs-to-another-user-uid", real)):
        layout.create_claims()


def test_link_planted_in_an_inbox_that_was_made_anew_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    layout = make_layout(layout.root)
    layout.claims.rmdir()
    layout.claims.parent.rmdir()
    layout.claims.parent.symlink_to(tmp_path)
    path = put(layout, THREE)

    with pytest.raises(InputError, match=wording("is-not-a-folder")):
        accept(layout, order_of(drop_of(path)))
    assert path.exists()


@pytest.mark.parametrize("where", ["lock", "inbox/.obcd/lock"])
def test_lock_that_is_a_folder_is_named_and_nothing_is_held(layout: Layout, where: str) -> None:
    layout.create([])
    (layout.root / where).mkdir()
    lock = SpoolLock(layout)

    with pytest.raises(InputError, match=wording("cannot-open-the-lock-is-a", layout.root / where)):
        lock.acquire()

    (layout.root / where).rmdir()
    SpoolLock(layout).check_free()


def test_second_holder_is_refused(layout: Layout) -> None:
    layout.create([])
    lock = SpoolLock(layout)
    lock.acquire()

    with pytest.raises(AlreadyRunningError, match=f"pid {os.getpid()}"):
        SpoolLock(layout).check_free()
    lock.release()
    SpoolLock(layout).check_free()


def test_holder_of_the_lock_is_told_while_it_is_held_and_not_by_what_the_file_says(layout: Layout) -> None:
    assert lock_holder(layout) is None
    layout.create([])
    lock = SpoolLock(layout)
    lock.acquire()
    assert lock_holder(layout) == os.getpid()

    lock.release()

    assert (layout.root / "lock").read_text("utf-8") == f"pid {os.getpid()}\n"
    assert lock_holder(layout) is None


def test_lock_says_who_holds_it_and_nothing_of_who_held_it(layout: Layout) -> None:
    layout.create([])
    (layout.root / "lock").write_text("pid 99999999999999\n", "utf-8")
    lock = SpoolLock(layout)

    lock.acquire()

    assert (layout.root / "lock").read_text("utf-8") == f"pid {os.getpid()}\n"
    lock.release()


def test_lock_that_cannot_be_written_on_a_full_disk_is_refused_with_a_sentence(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    layout.create([])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(InputError, match=wording("lock-no-space-left-on-device", layout.root / "lock")):
            SpoolLock(layout).acquire()

    SpoolLock(layout).check_free()


def test_look_at_the_lock_does_not_keep_a_coordinator_from_starting(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.create([])
    looker = os.open(layout.root / "lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr("obcd.spool.folders.layout.time.sleep", lambda _: os.close(looker))

    lock = SpoolLock(layout)
    lock.acquire()

    assert lock_holder(layout) == os.getpid()
    lock.release()


@pytest.mark.parametrize(("is_system", "advice"), [(True, wording("obcd-submit-or-root-dir")), (False, "--root DIR")])
def test_another_users_spool_is_never_said_to_be_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_system: bool, advice: str
) -> None:
    real = os.getuid()
    (tmp_path / "jobs").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: real + 1)
    if is_system:
        monkeypatch.setattr("obcd.spool.folders.layout.SYSTEM_ROOT", tmp_path)

    with pytest.raises(InputError, match=advice) as caught:
        make_own(tmp_path / "jobs")
    assert wording("take-it-away") not in str(caught.value)
