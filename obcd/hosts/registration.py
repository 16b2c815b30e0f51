"""Register a host: write its record into the hosts folder, every `WRITE_SECONDS`.

    .NAME.BOOT.tmp ─rename─► NAME.json        sequence + 1 each time; `gone` at the end

The folder may lie on a file server that hangs, and then each call here hangs too: make them in a thread of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from obcd.clock import wall
from obcd.hosts.machine import machine_id
from obcd.hosts.record import (
    MAX_RECORD_BYTES,
    MAX_TEXT,
    NAME,
    SUFFIX,
    CardReading,
    HostRecord,
    HostState,
    RegisteredEndpoint,
    encode_record,
    parse_record,
)
from obcd.spool.folders import disk
from obcd.text import printable
from obcd.users import user_name

#: Mode of a record: the coordinator reads it as the owner or by the folder's group, which the file inherits.
RECORD_MODE = 0o640
#: Seconds after which a record of this user that says `gone`, or a temporary file, is removed.
KEPT_SECONDS = 600.0
#: The temporary file of a record. The folder may hold others, of other programs.
_TEMPORARY = re.compile(rf"\.{NAME.pattern}\.[0-9a-f]{{32}}\.tmp")


class Registration:
    """The record of one host, or of one actor. One thread at a time.

    Args:
        folder: The hosts folder; it must exist.
        name: The record's name, e.g. the host's; unique in the folder.
        by: What started the host, for people, e.g. `slurm 4711_2`.
        until: When its allocation ends, in Unix seconds of this machine's clock; None: it has no end.

    Attributes:
        until: May be changed; the next writing has it.
        sequence: Of the last writing.

    Raises:
        ValueError: If the name is not valid.
    """

    def __init__(self, folder: Path, name: str, *, by: str = "", until: float | None = None) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(f"{printable(name)!r} is not a valid name of a record: use letters, digits, '.', '_', '-'")
        self.folder, self.name = folder, name
        self.path = folder / f"{name}{SUFFIX}"
        self.until = until
        self.sequence = 0
        self._by = printable(by)[:MAX_TEXT]
        self._boot = secrets.token_hex(16)
        self._temporary = folder / f".{name}.{self._boot}.tmp"
        self._machine = machine_id()
        self._is_written = self._is_tidy = False

    def write(
        self,
        state: HostState,
        endpoints: Sequence[RegisteredEndpoint] = (),
        cards: Sequence[CardReading] = (),
    ) -> str:
        """Write the record; raises nothing because of the folder.

        Returns:
            Why it could not be written, as a sentence for people; "" when it is written.

        Raises:
            ValueError: If no coordinator would accept the record; nothing is written.
        """
        self.sequence += 1
        record = HostRecord(
            id=self.name,
            boot=self._boot,
            sequence=self.sequence,
            state=state,
            until=self.until,
            seconds_left=None if self.until is None else round(max(0.0, self.until - wall()), 3),
            machine_id=self._machine,
            by=self._by,
            endpoints=tuple(endpoints),
            cards=tuple(cards),
        )
        raw = encode_record(record)
        try:
            if self._is_written and self._is_taken_over():
                return (
                    f"another process registers as {self.name} in {printable(str(self.folder))}: stop one of the two, "
                    "or give it another name"
                )
            self._put(raw)
        except OSError as error:
            return self._describe(error)
        self._is_written = True
        if not self._is_tidy:
            self._is_tidy = True
            self._tidy()
        return ""

    def close(self) -> str:
        """Write that the host is gone, at its end; as `write`. Nothing is written if no record was written before."""
        return self.write(HostState.GONE) if self._is_written else ""

    def _put(self, raw: bytes) -> None:
        """Give the record its name when it is complete; not durably, because it is worthless after a crash."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._temporary.unlink(missing_ok=True)
        try:
            descriptor = os.open(self._temporary, flags, RECORD_MODE)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, RECORD_MODE)  # whatever the umask is
                file.write(raw)
            self._temporary.replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)
            raise

    def _is_taken_over(self) -> bool:
        """Return whether a later start of the same name has written the record: the newest one counts."""
        try:
            with disk.open_regular(self.path, os.O_NOFOLLOW) as file:
                return parse_record(file.read(MAX_RECORD_BYTES + 1)).boot != self._boot
        except (FileNotFoundError, ValueError):  # removed, or replaced by something that no coordinator obeys
            return False

    def _describe(self, error: OSError) -> str:
        """Return why the record could not be written, and what to do."""
        where = printable(str(self.folder))
        if isinstance(error, FileNotFoundError):
            return f"the hosts folder {where} does not exist: make it, or mount the file system that has it"
        if isinstance(error, PermissionError):
            with contextlib.suppress(OSError):
                owner = self.path.lstat().st_uid
                if owner != os.geteuid():
                    return f"the record {self.name} in {where} belongs to {user_name(owner)}: give another name"
            return f"this user may not write into the hosts folder {where}: ask its owner for access"
        return f"the record {self.name} cannot be written into {where}: {error.strerror or error}"

    def _tidy(self) -> None:
        """Remove what this user's earlier hosts left: records that say `gone`, and temporary files.

        The age is measured on the file server's clock only, from their last change to that of this record.
        """
        with contextlib.suppress(OSError):
            now = self.path.stat().st_mtime
            for entry in list(os.scandir(self.folder)):
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    is_old = stat.S_ISREG(found.st_mode) and now - found.st_mtime > KEPT_SECONDS
                    if is_old and found.st_uid == os.geteuid() and _is_left_over(Path(entry.path)):
                        os.unlink(entry.path)


def _is_left_over(path: Path) -> bool:
    if _TEMPORARY.fullmatch(path.name):
        return True
    if path.suffix != SUFFIX:
        return False
    try:
        with disk.open_regular(path, os.O_NOFOLLOW) as file:
            return parse_record(file.read(MAX_RECORD_BYTES + 1)).state == HostState.GONE
    except ValueError:
        return False
