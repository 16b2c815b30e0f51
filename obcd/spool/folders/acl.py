"""Give one more user beside the owner the right to read, by POSIX ACL.

Own code: pylibacl must be compiled against libacl, and setfacl(1) is in a package that not every machine has.

The kernel's format (linux/posix_acl_xattr.h) is a version and then entries of tag, permissions and id, little-endian,
sorted by tag; an unprivileged owner may set it, where a chown to the user would need root (acl(5), xattr(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path

from obcd.spool.folders import disk

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
#: Tags of entries: the owner, a named user, the owning group, the maximum of all except the owner, others.
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20
#: The id of an entry that names no user.
_NOBODY = 0xFFFFFFFF
_ALL, _READ_WRITE, _READ_ENTER, _READ = 7, 6, 5, 4
#: Permissions that `admit` gives.
READ, WRITE, ENTER = 4, 2, 1
#: The errors of a filesystem without ACLs, and of a file without an ACL.
_UNSUPPORTED, _NONE = {errno.EOPNOTSUPP, errno.ENOSYS}, {errno.ENODATA}
#: macOS has ACLs of another kind, and Python has no functions for them.
_IS_LINUX = hasattr(os, "setxattr")


def encode(uid: int, owner: int, reader: int) -> bytes:
    """Return an ACL that gives permissions to the owner and to one reader only.

    Args:
        uid: The reader.
        owner, reader: Permissions, 4 to read, 2 to write, 1 to enter.
    """
    entries = (
        (_OWNER, owner, _NOBODY),
        (_USER, reader, uid),
        (_GROUP, 0, _NOBODY),
        (_MASK, reader, _NOBODY),
        (_OTHERS, 0, _NOBODY),
    )
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def named_users(raw: bytes) -> tuple[int, ...]:
    """Return the users that an ACL names.

    Raises:
        ValueError: If it is not an ACL of a known version.
    """
    if not raw.startswith(_VERSION) or (len(raw) - len(_VERSION)) % _ENTRY.size:
        raise ValueError("no ACL of a known version")
    entries = _ENTRY.iter_unpack(raw[len(_VERSION) :])
    return tuple(uid for tag, _, uid in entries if tag == _USER)


def readers(path: Path) -> tuple[int, ...]:
    """Return the users that the ACL of a folder or file names, `()` if it has none or cannot be read.

    Every user who may look at the path may call it; a link is not followed.
    """
    if not _IS_LINUX:
        return ()
    try:
        return named_users(os.getxattr(path, ACCESS, follow_symlinks=False))
    except (OSError, ValueError):
        return ()


def heirs(path: Path) -> tuple[int, ...]:
    """Return the users who may read what is made in a folder later, by its default ACL; otherwise as `readers`."""
    if not _IS_LINUX:
        return ()
    try:
        return named_users(os.getxattr(path, DEFAULT, follow_symlinks=False))
    except (OSError, ValueError):
        return ()


def open_folder(path: Path, uid: int) -> None:
    """Let one user, and no other, list and enter one of obcd's folders; what is made in it later inherits that.

    Raises:
        OSError: If the filesystem has no ACLs, among others; the folder may then be closed to all other users.
    """
    _set(path, DEFAULT, encode(uid, _ALL, _READ_ENTER))
    _set(path, ACCESS, encode(uid, _ALL, _READ_ENTER))


def open_file(path: Path | int, uid: int) -> None:
    """Let one user, and no other, read one of obcd's files.

    Args:
        path: The file, or a descriptor of it.

    Raises:
        OSError: As `open_folder`.
    """
    _set(path, ACCESS, encode(uid, _READ_WRITE, _READ))


def admit(path: Path, uid: int, permissions: int, *, inherit: bool = False) -> bool:
    """Give one user permissions for one of obcd's folders or files, beside all who have some; it takes nothing away.

    The mode of the path goes on to hold for everybody else; its group's bits then show the mask, acl(5).

    Args:
        permissions: `READ`, `WRITE` and `ENTER`, added.
        inherit: Whether files that are made in the folder later are to be read as well.

    Returns:
        False if the filesystem has no ACLs.

    Raises:
        OSError: If a disk operation fails.
    """
    try:
        for name in (ACCESS, DEFAULT) if inherit else (ACCESS,):
            entries = _entries(path, name) or _entries_of_mode(path)
            _set(path, name, _packed(_with_user(entries, uid, permissions)))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


#: {(tag, id): permissions}, the entries of an ACL.
_Entries = dict[tuple[int, int], int]


def _entries(path: Path, name: str) -> _Entries:
    """Return an ACL's entries, empty if there is none."""
    if not _IS_LINUX:
        raise OSError(errno.EOPNOTSUPP, "no POSIX ACLs on this system", str(path))
    try:
        raw = os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return {}
    named_users(raw)  # of a known version
    return {(tag, number): permissions for tag, permissions, number in _ENTRY.iter_unpack(raw[len(_VERSION) :])}


def _entries_of_mode(path: Path) -> _Entries:
    mode = path.lstat().st_mode
    return {(_OWNER, _NOBODY): mode >> 6 & 7, (_GROUP, _NOBODY): mode >> 3 & 7, (_OTHERS, _NOBODY): mode & 7}


def _with_user(entries: _Entries, uid: int, permissions: int) -> _Entries:
    mask = entries.get((_MASK, _NOBODY), entries[_GROUP, _NOBODY]) | permissions
    had = entries.get((_USER, uid), 0)
    return {**entries, (_USER, uid): had | permissions, (_MASK, _NOBODY): mask}


def _packed(entries: _Entries) -> bytes:
    """Return the kernel's form: sorted by tag, the users by their number."""
    return _VERSION + b"".join(_ENTRY.pack(tag, entries[tag, number], number) for tag, number in sorted(entries))


def clear(path: Path) -> None:
    """Remove the ACL of a path, if it has one; only the mode counts then."""
    for name in (DEFAULT, ACCESS) if readers(path) else ():
        disk.before("acl", str(path))
        with contextlib.suppress(OSError):  # only folders have a default
            os.removexattr(path, name, follow_symlinks=False)


def has_acls(folder: Path) -> bool:
    """Return whether the filesystem of one of obcd's folders keeps ACLs, by setting one on a new folder in it.

    Raises:
        OSError: If the new folder cannot be made, among others.
    """
    probe = folder / "acl.tmp"  # a name that recovery clears from jobs/
    disk.make_folder(probe)
    try:
        open_folder(probe, os.geteuid())
        return readers(probe) == (os.geteuid(),)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    finally:
        disk.remove_tree(probe)


def is_supported(path: Path) -> bool:
    """Return whether the filesystem of a path seems to keep ACLs; changes nothing."""
    if not _IS_LINUX:
        return False
    try:
        os.getxattr(path, ACCESS)
    except OSError as error:
        return error.errno in _NONE
    return True


def _set(path: Path | int, name: str, raw: bytes) -> None:
    """Set an ACL unless it is set already, so that the repetition after a crash costs nothing."""
    if not _IS_LINUX:
        raise OSError(errno.EOPNOTSUPP, "no POSIX ACLs on this system", str(path))
    follows = isinstance(path, int)  # otherwise a link is not followed
    try:
        if os.getxattr(path, name, follow_symlinks=follows) == raw:
            return
    except OSError as error:
        if error.errno not in _NONE:
            raise
    disk.before("acl", str(path))
    os.setxattr(path, name, raw, follow_symlinks=follows)
