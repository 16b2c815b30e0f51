"""Whose records count: the rules for the file of a record. What they refuse is not parsed.

Who may register gets everybody's prompts and is believed, so that a record must come from a listed user, and from
nobody else: it is a regular file with one name, opened without following a link, that only its owner can write. The
folder's own permissions are not trusted (anybody may put files there). Time and memory are bounded.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Collection, Sequence
from functools import lru_cache

from obcd.errors import InputError
from obcd.hosts.record import MAX_RECORD_BYTES, HostRecord, parse_record
from obcd.users import user_name

#: Errors of open(2) that are the file's own: a link, a socket, or permissions; others are those of a file server.
_NOT_OPENED = frozenset((errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM))


class UntrustedError(InputError):
    """A record does not count; the message is the reason, for people.

    Attributes:
        uid: The owner of the file, -1 if it is not known.
    """

    def __init__(self, reason: str, uid: int = -1) -> None:
        super().__init__(reason)
        self.uid = uid


def find_trusted(users: Sequence[str] | None, own: int) -> tuple[frozenset[int], list[str]]:
    """Return the user ids whose records count, and the names that this machine does not know.

    Args:
        users: Names or numbers; None: `own` and root.
        own: The user id of the daemon.
    """
    if users is None:
        return frozenset((own, 0)), []
    found, unknown = set[int](), []
    for user in users:
        try:
            found.add(int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid)
        except (KeyError, ValueError):
            unknown.append(user)
    return frozenset(found), unknown


def read_trusted(folder: int, name: str, trusted: Collection[int]) -> tuple[bytes, int]:
    """Read the file of a record if the rules allow it.

    Args:
        folder: A descriptor of the hosts folder.
        name: The file's name.
        trusted: User ids.

    Returns:
        At most `MAX_RECORD_BYTES` + 1 bytes, and the owner.

    Raises:
        UntrustedError: If a rule forbids to read it.
        FileNotFoundError: If it was removed or replaced meanwhile.
        OSError: If the file server fails.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NOT_OPENED:
            raise
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        _check_file(found, trusted)
        raise UntrustedError(f"it cannot be read: {error.strerror}", found.st_uid) from None
    try:
        found = os.fstat(descriptor)
        _check_file(found, trusted)
        return os.read(descriptor, MAX_RECORD_BYTES + 1), found.st_uid
    except OSError as error:
        if error.errno == errno.ESTALE:  # NFS: replaced since it was opened
            raise FileNotFoundError(errno.ENOENT, "replaced", name) from None
        raise
    finally:
        os.close(descriptor)


def parse_trusted(raw: bytes, name: str, uid: int) -> HostRecord:
    """Read the content of a record's file.

    Args:
        name: The file's name without `.json`: a copy under another name does not count.

    Raises:
        UntrustedError: If it is not a valid record.
    """
    try:
        record = parse_record(raw)
    except ValueError as error:
        raise UntrustedError(str(error), uid) from None
    if record.id != name:
        raise UntrustedError("its id is not the name of its file", uid)
    return record


def _check_file(found: os.stat_result, trusted: Collection[int]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UntrustedError("it is not a regular file", found.st_uid)
    if found.st_uid not in trusted:
        raise _foreign(found.st_uid)
    if found.st_nlink != 1:
        raise UntrustedError("it has a second name (a hard link)", found.st_uid)
    if found.st_mode & 0o022:
        raise UntrustedError("others than its owner may write it", found.st_uid)
    if found.st_size > MAX_RECORD_BYTES:
        raise UntrustedError(f"it is longer than {MAX_RECORD_BYTES} bytes", found.st_uid)


def _foreign(uid: int) -> UntrustedError:
    return UntrustedError(f"its owner {_name(uid)} is not among [cluster] users", uid)


@lru_cache(maxsize=1000)  # thousands of files must not be as many queries to a directory server, every two seconds
def _name(uid: int) -> str:
    return user_name(uid)
