"""The tokens of the API: a file of their SHA-256 digests, each bound to a user of this machine.

    4b227777d4dd1fc61c6f884f48641d02b4d121d3fd328cb08b5531fcacdabf8a ann 2026-12-01T09:00:00.000Z

A token has 256 random bits, so that a plain digest of it gives nothing away. The file is read again when it changes: a
token that is removed is refused at once.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from obcd.clock import timestamp
from obcd.config.tokens import MAX_TOKEN, read_closed
from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.inbox.submitters import find_uid

#: Tokens begin so, so that a person or a scanner who finds one knows what it is.
PREFIX = "obcd-"
#: Longest file that is read, in bytes.
MAX_BYTES = 2**20
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) (?P<user>\S{1,256})(?: (?P<made>\S+))?")


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """A line of the file.

    Attributes:
        user: The name of the user whose batches it makes.
        made: When it was made, e.g. `2026-12-01T09:00:00.000Z`; "" where that is not known.
    """

    digest: str
    user: str
    made: str = ""


@dataclass(frozen=True, slots=True)
class ApiUser:
    """The user behind a request."""

    name: str
    uid: int


def digest_of(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_entries(path: Path, owners: Collection[int] = ()) -> tuple[TokenEntry, ...]:
    """Read the file; a missing one holds none.

    Args:
        owners: The users to whom it may belong, beside root and this process's.

    Raises:
        ValueError: With the reason and the command that corrects it; nothing of the content is in a message.
    """
    try:
        raw = read_closed(path, MAX_BYTES + 1, owners)
    except FileNotFoundError:
        return ()
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{path} is longer than {MAX_BYTES} bytes")
    entries = []
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise ValueError(f"line {number} of {path} is no token's: obcd api token NAME writes them")
            entries.append(TokenEntry(match["digest"], match["user"], match["made"] or ""))
    return tuple(entries)


def write_entries(path: Path, entries: Iterable[TokenEntry], owner: int) -> None:
    """Replace the file; only its owner may read it.

    Raises:
        InputError: If it cannot be written; the old one is still there then.
    """
    try:
        with disk.whole_file(path, 0o600) as file:
            os.fchmod(file.fileno(), 0o600)
            if owner != os.geteuid():
                os.fchown(file.fileno(), owner, -1)
            for entry in entries:
                file.write(f"{entry.digest} {entry.user} {entry.made}".strip().encode() + b"\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; run this as root, or as [api] user") from None


def make_token(user: str, now: float) -> tuple[str, TokenEntry]:
    """Return a new token for a user, and the line for the file."""
    token = PREFIX + secrets.token_urlsafe(32)
    return token, TokenEntry(digest_of(token), user, timestamp(now))


class TokenFile:
    """The tokens that are valid now. Any thread may call it.

    Args:
        forbidden: Users whose tokens do not count: root and the daemon's user.
        only: The one user whose tokens count; None: all others.
    """

    def __init__(self, path: Path, forbidden: Collection[int], only: int | None = None) -> None:
        self._path = path
        self._forbidden = frozenset(forbidden)
        self._only = only
        self._entries: tuple[TokenEntry, ...] = ()
        self._seen: tuple[int, ...] | None = None
        #: Why the file cannot be read, "" if it can: no token is valid then.
        self.trouble = ""

    def find(self, token: str) -> ApiUser | None:
        """Return whose token this is; None if it is not valid. The time does not depend on how much of it is right."""
        self.refresh()
        if not 0 < len(token) <= MAX_TOKEN:
            return None
        digest, found = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest(), None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        uid = find_uid(found.user) if found is not None else None
        if found is None or uid is None or uid in self._forbidden or self._only not in (None, uid):
            return None
        return ApiUser(found.user, uid)

    def refresh(self) -> int:
        """Read the file again if it changed; return how many tokens are in it."""
        seen: tuple[int, ...] = ()
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        except OSError:  # there is none, or it cannot be seen: no token is valid
            pass
        if seen != self._seen:
            try:
                self._entries, self.trouble = read_entries(self._path), ""
            except ValueError as error:
                self._entries, self.trouble = (), str(error)
            self._seen = seen
        return len(self._entries)
