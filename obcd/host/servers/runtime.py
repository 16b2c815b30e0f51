"""Find the runtime folder: of a host that starts, and of the running host, for commands that control it.

The name of a folder proves nothing in a place where others may write (/tmp): only a folder that belongs to the caller,
and that nobody else can write to, is used. The system's folder is in /run, where only root makes folders.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from obcd.errors import AlreadyRunningError, InputError
from obcd.host.servers.allocation import allocation_name
from obcd.host.servers.locks import is_host_alive
from obcd.host.servers.plan import SYSTEM_RUNTIME
from obcd.spool.folders.layout import make_private
from obcd.users import user_name

UNIT = "obcd-host.service"
#: Longest temporary folder below which a Slurm task's own folder may lie: a unix socket's path has at most 107 bytes.
MAX_BASE = 50


def folder_to_start(given: str | None = None) -> Path:
    """Return the folder for a host that starts: the given one, systemd's, or the caller's own.

    Raises:
        AlreadyRunningError: If no folder is given and the system's host runs: its cards and ports are in use.
        InputError: If another user made the folder.
    """
    if given:
        return Path(given).absolute()
    if from_systemd := _from_systemd():
        return from_systemd
    if allocation_name(os.environ):  # the cards are this job's: other hosts of the machine have others
        return checked(own_folder())
    if SYSTEM_RUNTIME.is_dir() and is_host_alive(SYSTEM_RUNTIME) is not False:
        raise AlreadyRunningError(
            f"{UNIT} runs here: see obcd host status; for your own, choose --runtime DIR, --base-port and --gpus"
        )
    return checked(own_folder())


def folder_that_runs(given: str | None = None) -> Path:
    """Return the folder of the running host: the given one, systemd's, else the one that is alive.

    Commands of root look for the system's host first, those of other users for their own. If no host is alive, it is
    the system's folder if that exists, else the caller's own.

    Raises:
        InputError: If the only folder left was made by another user.
    """
    if given:
        return Path(given).absolute()
    if from_systemd := _from_systemd():
        return from_systemd
    own = own_folder()
    usable = [own] if distrust(own) is None else []
    usable = [SYSTEM_RUNTIME, *usable] if os.getuid() == 0 else [*usable, SYSTEM_RUNTIME]
    alive = [folder for folder in usable if is_host_alive(folder)]
    if alive:
        return alive[0]
    if SYSTEM_RUNTIME.is_dir() or (os.getuid() == 0 and own not in usable):
        return SYSTEM_RUNTIME
    return checked(own)


def own_folder() -> Path:
    """Return the default folder of the caller's own host; each Slurm task of a machine has its own."""
    task = allocation_name(os.environ)
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and (not task or os.access(base, os.W_OK)):  # Slurm passes on the variable, and the folder is not there
        return Path(base) / (f"obcd-host-{task}" if task else "obcd-host")
    temporary = tempfile.gettempdir()
    if task and len(temporary) > MAX_BASE:  # a job's own TMPDIR, too long for a unix socket below it
        temporary = "/tmp"  # noqa: S108 - `checked` looks at who made the folder
    return Path(temporary) / (f"obcd-{os.getuid()}-{task}" if task else f"obcd-{os.getuid()}-host")


def checked(folder: Path) -> Path:
    """Return a folder that belongs to the caller, or does not exist.

    Raises:
        InputError: If it belongs to another user.
    """
    if why := distrust(folder):
        raise InputError(f"{folder} {why}, so nothing in it is trusted: remove it, or choose --runtime DIR")
    return folder


def distrust(folder: Path) -> str | None:
    """Return why a folder may be made by another user, None if it is the caller's own or does not exist."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return None
    except PermissionError:
        return "is in a folder that you may not search"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.getuid():
        return f"belongs to user {user_name(status.st_uid)}"
    return "can be written by everybody" if status.st_mode & stat.S_IWOTH else None


def make_folder(folder: Path) -> None:
    """Make a host's folder with mode 0700, owned by the caller.

    Raises:
        InputError: If it cannot be made, or belongs to another user.
    """
    checked(folder)
    try:
        make_private(folder)
    except OSError as error:
        raise InputError(
            f"cannot make {folder}: {error.strerror}; choose a --runtime DIR that you can write to"
        ) from None


def find_logs(runtime: Path) -> Path:
    """Return the folder of the servers' logs: systemd's LogsDirectory, else the user's state folder.

    Logs are files, also under systemd: ollama writes a line per request, too many for a journal, and `obcd host logs`
    reads files everywhere. They are not in the runtime folder, which is in memory and ends with the unit.
    """
    for name in filter(None, os.environ.get("LOGS_DIRECTORY", "").split(":")):
        return Path(name)
    if runtime == SYSTEM_RUNTIME:
        return Path("/var/log/obcd")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser())
    return state / "obcd" / runtime.name


def _from_systemd() -> Path | None:
    """Return the unit's RuntimeDirectory= (systemd.exec(5))."""
    names = os.environ.get("RUNTIME_DIRECTORY", "").split(":")
    return next((Path(name) for name in names if name.endswith(SYSTEM_RUNTIME.name)), None)
