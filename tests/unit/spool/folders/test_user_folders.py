from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places, home_names, is_home, make_place
from obcd.spool.outbox.publish_rename import find_shown, free_name
from obcd.spool.submit.exactly_once import find_evidence
from obcd.spool.submit.target import find_target
from tests.golden.wording import wording
from tests.unit.spool.spools import make_layout

UID = 61002


@pytest.fixture
def private(tmp_path: Path) -> Layout:
    """Return a spool where each submitter has a home, on a filesystem that can."""
    layout = make_layout(tmp_path / "root", "clinical")
    if not acl.has_acls(layout.jobs):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    return replace(layout, per_user=True)


@pytest.fixture
def ann(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a user of that number."""
    known = pwd.getpwuid(os.getuid())
    entry = pwd.struct_passwd(("ann", "x", UID, UID, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry if uid == UID else known)
    return "ann"


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a\nb", "x" * 101, "\ud800"])
def test_user_without_a_usable_name_goes_by_the_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd((name, "x", UID, UID, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)

    assert home_names(UID) == (str(UID),)


def test_home_is_the_users_alone_and_is_found_again(private: Layout, ann: str) -> None:
    places = [make_place(private, UID, profile) for profile in ("", "clinical", "")]

    home = private.outbox / ann
    assert places == [home, home / "clinical", home]
    assert acl.readers(home) == acl.readers(home / "clinical") == (UID,)
    assert is_home(private, home)
    assert set(places) <= set(find_places(private.outbox, UID, "")) | set(find_places(private.outbox, UID, "clinical"))


def test_home_that_a_crash_left_without_its_acl_is_taken_up(private: Layout, ann: str) -> None:
    (private.outbox / ann).mkdir(0o700)

    assert make_place(private, UID, "") == private.outbox / ann
    assert acl.readers(private.outbox / ann) == (UID,)


@pytest.mark.parametrize("kind", ["profile", "file", "link", "another's home"])
def test_name_that_something_else_has_leaves_the_number(private: Layout, ann: str, kind: str, tmp_path: Path) -> None:
    taken = private.outbox / ann
    if kind == "file":
        taken.touch()
    elif kind == "link":
        taken.symlink_to(tmp_path)
    else:
        taken.mkdir(0o750)
    if kind == "another's home":
        acl.open_folder(taken, UID + 1)
    before = taken.lstat()

    assert make_place(private, UID, "") == private.outbox / str(UID)
    assert (taken.lstat().st_mode, taken.lstat().st_ctime_ns) == (before.st_mode, before.st_ctime_ns)


def test_no_name_left_is_an_error_and_nothing_is_opened(private: Layout, ann: str) -> None:
    for name in (ann, str(UID)):
        (private.outbox / name).mkdir(0o750)

    with pytest.raises(FileExistsError, match=wording("something-else-has-its-name")):
        make_place(private, UID, "")
    assert acl.readers(private.outbox / ann) == ()


def test_profile_of_everybody_does_not_go_into_somebodys_home(private: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("clinical", "x", UID, UID, "", "/", ""))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
    make_place(private, UID, "")

    with pytest.raises(FileExistsError, match="home of"):
        make_place(replace(private, per_user=False), UID, "clinical")


def test_taken_names_are_those_of_the_same_home(private: Layout) -> None:
    first = free_name(private, "", "notes", "", "job1", UID)
    first.mkdir()

    assert free_name(private, "", "notes", "", "job2", UID) == first.with_name("notes.job2")
    assert free_name(private, "", "notes", "", "job2", UID + 1).name == "notes"
    assert free_name(private, "", "clinical", "", "job2", UID).name == "clinical.job2"


def test_shown_job_is_found_in_any_home(private: Layout) -> None:
    folder = free_name(private, "clinical", "notes", "", "job1", UID)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"job": "job1"}', "utf-8")

    assert find_shown(private.outbox, "job1") == folder


def test_home_of_the_name_of_a_drop_is_no_evidence_that_it_was_submitted(private: Layout, ann: str) -> None:
    make_place(private, UID, "")
    target = find_target(private.inbox, "", ann)

    assert find_evidence(private, target) == ""
    mine = make_place(private, os.geteuid(), "") / f"{ann}.repeated"
    mine.mkdir()
    assert find_evidence(private, target) == wording("is-there", mine)
