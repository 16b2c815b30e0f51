from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from obcd.spool.folders import acl
from tests.unit.spool.spools import crash_at

UID = 61002


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a filesystem that keeps ACLs."""
    if not acl.has_acls(tmp_path):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    path = tmp_path / "folder"
    path.mkdir(0o700)
    return path


def test_encoding_is_the_kernels() -> None:
    """The bytes that `setfacl -m u:61002:r-x,g::-` makes of a folder of mode 0700."""
    expected = "0200000001000700ffffffff020005004aee000004000000ffffffff10000500ffffffff20000000ffffffff"

    assert acl.encode(UID, 7, 5).hex() == expected
    assert acl.named_users(bytes.fromhex(expected)) == (UID,)


@pytest.mark.parametrize("raw", [b"", b"\1\0\0\0", acl.encode(UID, 7, 5)[:-1]])
def test_what_is_no_acl_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no ACL"):
        acl.named_users(raw)


def test_folder_is_opened_to_one_reader_and_what_is_made_in_it_too(folder: Path) -> None:
    acl.open_folder(folder, UID)
    (folder / "made").mkdir(0o750)
    (folder / "made" / "file").write_text("x", "utf-8")

    assert acl.readers(folder) == acl.readers(folder / "made") == acl.readers(folder / "made" / "file") == (UID,)
    assert not (folder / "made" / "file").stat().st_mode & 0o007
    assert os.getxattr(folder, acl.ACCESS) == acl.encode(UID, 7, 5)


def test_file_of_any_mode_is_opened_to_one_reader_alone(folder: Path) -> None:
    file = folder / "file"
    file.touch()
    file.chmod(0o644)

    acl.open_file(file, UID)

    assert os.getxattr(file, acl.ACCESS) == acl.encode(UID, 6, 4)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640  # the group's bits are the mask now; the group itself has none


def test_acl_that_is_there_already_is_not_set_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acl.open_folder(folder, UID)

    with crash_at(0, monkeypatch) as calls:
        acl.open_folder(folder, UID)
        acl.open_folder(folder, UID + 1)

    assert len(calls) == 2  # those of the second
    assert acl.readers(folder) == (UID + 1,)


def test_cleared_folder_goes_by_its_mode_alone(folder: Path) -> None:
    acl.open_folder(folder, UID)
    acl.clear(folder)
    (folder / "made").mkdir(0o750)

    assert acl.readers(folder) == acl.readers(folder / "made") == ()
    acl.clear(folder)


def test_link_has_no_readers_and_is_not_followed(folder: Path) -> None:
    acl.open_folder(folder, UID)
    link = folder.with_name("link")
    link.symlink_to(folder)

    assert acl.readers(link) == ()
    assert acl.readers(folder / "nothing") == ()


def test_filesystem_without_acls_is_told_from_one_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([errno.EOPNOTSUPP, errno.EDQUOT])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(next(codes), "no")

    monkeypatch.setattr(os, "setxattr", refuse)

    assert not acl.has_acls(tmp_path)
    with pytest.raises(OSError, match="no"):
        acl.has_acls(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_acls_that_are_taken_and_forgotten_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setxattr", lambda *_, **__: None)

    assert not acl.has_acls(tmp_path)


def test_system_without_the_calls_has_no_acls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acl, "_IS_LINUX", False)

    assert not acl.has_acls(folder)
    assert not acl.is_supported(folder)
    assert acl.readers(folder) == ()


def test_user_is_admitted_beside_all_who_were_there(folder: Path) -> None:
    folder.chmod(0o2750)

    assert acl.admit(folder, UID, acl.ENTER, inherit=True)
    assert acl.admit(folder, UID + 1, acl.READ)
    (folder / "file").touch(0o640)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750, "what the group may do stays, and shows"
    assert acl.readers(folder) == (UID, UID + 1)
    assert acl.readers(folder / "file") == acl.heirs(folder) == (UID,)


def test_admission_takes_no_permission_away(folder: Path) -> None:
    acl.admit(folder, UID, acl.READ | acl.ENTER)
    before = os.getxattr(folder, acl.ACCESS)

    acl.admit(folder, UID, acl.ENTER)

    assert os.getxattr(folder, acl.ACCESS) == before


def test_filesystem_without_acls_admits_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", unsupported)

    assert not acl.admit(folder, UID, acl.READ)
