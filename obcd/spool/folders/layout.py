"""The folders of one spool, their permissions, and the locks that keep a second coordinator out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shlex
import stat
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders import disk
from obcd.system_paths import SYSTEM_ROOT

#: The installed system's runtime folder (systemd: RuntimeDirectory=obcd-coordinator).
SYSTEM_RUNTIME = Path("/run/obcd-coordinator")
#: The folder of the installed status page's socket (systemd: RuntimeDirectory=obcd-page).
SYSTEM_PAGE_RUNTIME = Path("/run/obcd-page")
#: File of the root that holds the cached answers; see `cache`.
CACHE_NAME = "cache.sqlite"
#: How often a held lock is tried before it counts as another coordinator's, and the seconds between the tries.
LOOKS, LOOK_SECONDS = 3, 0.02


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one spool.

    root/inbox/            users drop here; inbox/<profile>/ uses [profiles.<profile>]
    inbox/.obcd/claim/     claims in progress, 0700
    root/jobs/<id>/        accepted jobs, 0700
    root/answered/         records of drops that are not computed again (`repeat = "skip"`), 0700
    root/cache.sqlite      cached answers (`cache = true`), 0600
    root/history/          what the cluster did, a line a minute (see `history_files`), 0750
    root/outbox/           mirrors the inbox: outbox/[<profile>/]<stem>/, or outbox/<user>/[<profile>/]<stem>/

    Attributes:
        per_user: Whether only their submitter may read answers, each in their own home (see `user_folders`).
    """

    root: Path
    inbox: Path
    outbox: Path
    per_user: bool = False

    @classmethod
    def at(cls, root: Path, inbox: str | None = None, *, per_user: bool = False) -> Layout:
        """Return the layout of a root; only the inbox may be elsewhere, and it may be a link to its real folder."""
        path = Path(inbox).expanduser().absolute() if inbox else root / "inbox"
        with contextlib.suppress(PermissionError):  # a user without permission gets the error of the later operation
            path = path.resolve() if path.is_symlink() and path.is_dir() else path
        return cls(root, path, root / "outbox", per_user)

    @property
    def jobs(self) -> Path:
        """Accepted jobs, one folder each."""
        return self.root / "jobs"

    @property
    def answered(self) -> Path:
        """One small file for each drop that is answered by a pointer if it is dropped again; see `repeat_index`."""
        return self.root / "answered"

    @property
    def cache(self) -> Path:
        """The cached answers; see `cache`."""
        return self.jobs.with_name(CACHE_NAME)

    @property
    def claims(self) -> Path:
        """Claimed files, one folder each, named by the id of the job."""
        return self.inbox / ".obcd" / "claim"

    def claim(self, job: str, profile: str) -> Path:
        """Return the folder of one claimed file; its name carries the profile, so that a crash loses neither."""
        return self.claims / (f"{job}@{profile}" if profile else job)

    @property
    def runtime(self) -> Path:
        """Return the folder of `status.json` and of supervisor's socket.

        The path is short, because the path of a unix socket has at most 107 bytes; it is not under the root, because a
        full disk must not hide the status that reports it.
        """
        if self.root == SYSTEM_ROOT:
            return SYSTEM_RUNTIME
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:10]
        base = os.environ.get("XDG_RUNTIME_DIR")
        if base and os.access(base, os.W_OK):
            return Path(base) / f"obcd-{digest}"
        return Path(tempfile.gettempdir()) / f"obcd-{os.getuid()}-{digest}"

    @property
    def status(self) -> Path:
        """The coordinator's snapshot, for `obcd status`."""
        return self.runtime / "status.json"

    @property
    def page_socket(self) -> Path:
        """The socket of the status page; its folder is not the coordinator's, so that both can stop alone."""
        return (SYSTEM_PAGE_RUNTIME if self.root == SYSTEM_ROOT else self.runtime) / "page.sock"

    @property
    def shared_status(self) -> Path:
        """A copy of it for other machines, from a coordinator inside a Slurm job: users do not log in to its node."""
        return self.root / "status.json"

    def create(self, profiles: list[str], option: str = "--root DIR") -> None:
        """Make the folders that are missing.

        Args:
            option: The option that chooses another place, for the message of an error.

        Raises:
            InputError: If one cannot be made or is not a folder.
        """
        try:
            for folder in (self.root, self.inbox):
                _check_folder(folder)
                disk.make_folders(folder)
            make_own(self.jobs)
            self.create_claims()
            _check_folder(self.outbox)
            disk.make_folder(self.outbox, 0o750)
            self.create_profiles(profiles)
            # One that was found may have been made by a process that was killed before its sync.
            for folder in (self.root, self.inbox, self.claims.parent):
                disk.sync_folder(folder)
            make_private(self.runtime)
        except OSError as error:
            raise InputError(
                f"cannot make the spool at {self.root}: {error.strerror} ({error.filename}); "
                f"choose a folder that you may write to ({option})"
            ) from None

    def create_profiles(self, profiles: Iterable[str]) -> None:
        """Make the missing folders of profiles in the inbox.

        Raises:
            InputError: If something else is there.
            OSError: If one cannot be made.
        """
        for profile in profiles:
            _check_folder(self.inbox / profile)
            make_alike(self.inbox / profile, self.inbox)

    def create_claims(self) -> None:
        """Make the missing folders of claims.

        Raises:
            InputError: If another user made one, who would then own the claimed files.
            OSError: If one cannot be made.
        """
        for folder in (self.claims.parent, self.claims):
            make_own(folder)


def make_own(folder: Path) -> None:
    """Make a folder of the spool, durably, with mode 0700 and owned by this process's user.

    Raises:
        InputError: If something else is there: a file, a link, a folder of another user.
        OSError: If it cannot be made.
    """
    disk.make_folder(folder, 0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{folder} is not a folder: remove it, obcd needs its own folder there")
    if status.st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user (uid {status.st_uid}): {_another_way(folder)}")
    if status.st_mode & 0o077:
        raise InputError(f"other users may access the prompts in {folder}: chmod 0700 {shlex.quote(str(folder))}")


def _another_way(folder: Path) -> str:
    """Return what to do about another user's folder; never advise to remove one with everybody's jobs."""
    if folder.is_relative_to(SYSTEM_ROOT):
        return "this is the system's spool: give it work with obcd submit, or use your own spool with --root DIR"
    return "run as that user, or choose another folder with --root DIR"


def make_alike(folder: Path, inbox: Path) -> None:
    """Make the folder of a profile with the permissions of the inbox: who may drop there may drop here.

    mkdir sets the mode, with the umask cleared, and not chmod: under systemd's RestrictSUIDSGID= no process may set the
    set-group-ID bit, which mkdir inherits from the inbox and chmod would clear. The umask of the whole process changes
    for that moment; other threads give their files an explicit mode.
    """
    mode = stat.S_IMODE(inbox.stat().st_mode) & 0o1777
    old = os.umask(0)
    try:
        disk.make_folder(folder, mode)
    finally:
        os.umask(old)


def _check_folder(path: Path) -> None:
    if os.path.lexists(path) and not path.is_dir():
        raise InputError(f"{path} is not a folder: remove it, or choose another --root")


def make_private(folder: Path) -> None:
    """Make a runtime folder with mode 0700, owned by this process's user; refuse one that another user made.

    Raises:
        InputError: If it exists and belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user: remove it, or set XDG_RUNTIME_DIR to your own folder")


def lock_holder(layout: Layout) -> int | None:
    """Return the process id of the coordinator that runs on a spool, None if none runs.

    The lock decides and not only the content of the file: a coordinator that was killed leaves its id behind, and
    another program may have that id now.

    Raises:
        PermissionError: If this user may not know.
        InputError: If the lock is held and does not name its holder.
    """
    path = layout.root / "lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        word, _, number = os.read(descriptor, 100).decode(errors="replace").strip().partition(" ")
        if word != "pid" or not number.isdecimal():
            raise InputError(f"{path} is locked, and does not say by which process: try again") from None
        return int(number)
    finally:
        os.close(descriptor)
    return None


def _take(descriptor: int) -> None:
    """Take a lock; one that `lock_holder` is testing at this moment is free in the next."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_SECONDS)
        else:
            return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class SpoolLock:
    """`flock` on the root and on the inbox, held until the process ends; close-on-exec, so that no child keeps it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptors: list[int] = []

    def acquire(self) -> None:
        """Take both locks.

        Raises:
            AlreadyRunningError: If another process holds one; nothing is held then.
            InputError: If one cannot be opened; nothing is held then.
        """
        if self._descriptors:  # held already
            return
        for path in (self._layout.root / "lock", self._layout.inbox / ".obcd" / "lock"):
            descriptor = self._open(path)
            try:
                _take(descriptor)
            except OSError as error:
                holder = os.read(descriptor, 100).decode(errors="replace").strip()
                os.close(descriptor)
                self.release()
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise AlreadyRunningError(
                    f"another coordinator ({holder or 'unknown process'}) runs on {path.parent}: "
                    "stop that one first, or choose another --root"
                ) from None
            self._descriptors.append(descriptor)
            self._sign(descriptor, path)

    def _sign(self, descriptor: int, path: Path) -> None:
        """Overwrite the last holder of a lock with this one: that works on a full disk as well."""
        text = f"pid {os.getpid()}\n".encode()
        try:
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        except OSError as error:
            self.release()
            raise InputError(f"cannot write the lock {path}: {error.strerror}; free space there") from None

    def _open(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            self.release()
            raise InputError(
                f"cannot open the lock {path}: {error.strerror}; obcd needs its own file there: remove what is there"
            ) from None

    def check_free(self) -> None:
        """Raise an error unless both locks can be taken now.

        Raises:
            AlreadyRunningError: If another process holds one.
        """
        self.acquire()
        self.release()

    def release(self) -> None:
        """Release both locks; safe to call twice."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
