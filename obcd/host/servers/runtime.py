"""Which runtime folder is meant: of a host that is to start, and of the one that runs, for those who speak to it.

A folder in a place where others may write (/tmp) proves nothing by its name: only one that belongs to the caller, and
that nobody else can write into, is looked into. The system's lies in /run, where only root makes folders.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from obcd.errors import AlreadyRunningError, InputError
from obcd.host.servers.locks import is_host_alive
from obcd.host.servers.plan import SYSTEM_RUNTIME
from obcd.spool.folders.layout import make_private
from obcd.users import user_name

UNIT = "obcd-host.service"


def folder_to_start(given: str | None = None) -> Path:
    """Return the folder for a host that starts: what was given, systemd's, or the caller's own.

    Raises:
        AlreadyRunningError: If nothing was given and the system's host runs: its cards and ports are taken.
        InputError: If somebody else planted the folder.
    """
    if given:
        return Path(given).absolute()
    if from_systemd := _from_systemd():
        return from_systemd
    if SYSTEM_RUNTIME.is_dir() and is_host_alive(SYSTEM_RUNTIME) is not False:
        raise AlreadyRunningError(
            f"{UNIT} runs here: see obcd host status; for one of your own choose --runtime DIR, --base-port and --gpus"
        )
    return checked(own_folder())


def folder_that_runs(given: str | None = None) -> Path:
    """Return the folder of the host that runs: what was given, systemd's, else the one that is alive.

    Root's commands mean the system's host first; everybody else's their own. Where none is alive it is the system's if
    it is there, else the caller's own.

    Raises:
        InputError: If only one that somebody else planted is left.
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
    """Return where the caller's own host has its folder, unless told otherwise."""
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "obcd-host"
    return Path(tempfile.gettempdir()) / f"obcd-{os.getuid()}-host"


def checked(folder: Path) -> Path:
    """Return a folder that is the caller's, or not there.

    Raises:
        InputError: If it is somebody else's.
    """
    if why := distrust(folder):
        raise InputError(f"{folder} {why}, so nothing in it is trusted: have it removed, or choose --runtime DIR")
    return folder


def distrust(folder: Path) -> str | None:
    """Return why a folder may be another's doing, None when it is the caller's own or not there."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return None
    except PermissionError:
        return "lies where you may not look"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder"
    if status.st_uid != os.getuid():
        return f"belongs to user {user_name(status.st_uid)}"
    return "can be written by everybody" if status.st_mode & stat.S_IWOTH else None


def make_folder(folder: Path) -> None:
    """Make a host's folder, 0700 and ours.

    Raises:
        InputError: If it cannot be made, or is there and another's.
    """
    checked(folder)
    try:
        make_private(folder)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; choose --runtime DIR where you may write") from None


def find_logs(runtime: Path) -> Path:
    """Return where the servers' logs go: systemd's LogsDirectory, else the user's state folder.

    Always files, under systemd too: ollama writes a line per request, which no journal wants, and files serve
    `obcd host logs` alike everywhere. Not in the runtime folder: it lies in memory, and ends with the unit.
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
