"""The names of files in the inbox: of drops, their markers and hidden copies, control files, and what is ignored."""

from __future__ import annotations

import re
from pathlib import Path

from obcd.core.tables.file_format import ENDING, form_of

MARKER_SUFFIX = ".done"
MAX_NAME_BYTES = 200
#: The daemon's own folder in the inbox (see `layout`).
OWN_FOLDER = ".obcd"
#: Ends of names that programs use while they write, for locks and for earlier versions (rsync, WinSCP, aria2, lftp,
#: browsers, editors, Office, clouds); ignored silently, in any case.
TEMPORARY_SUFFIXES = (
    *("~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".aria2"),
    *(".swp", ".swo", ".swx", ".bak", ".bkp", ".orig", ".old", ".save", ".autosave", ".lock", ".lck", ".pid"),
    *(".lftp-pget-status", ".icloud", ".!ut", ".!qb", ".kate-swp", ".crswap", ".rsync-partial"),
)
#: Beginnings of such names: hidden files, Emacs, the owner files of Office, Syncthing, Word.
TEMPORARY_PREFIXES = (".", "#", "~$", "~syncthing~", "~wr")
#: Files that systems put into folders: Windows, macOS, Synology, WebDAV.
SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf", "icon\r", "$recycle.bin")
)
#: Folders of systems, which belong to no profile and hold nobody's drops.
SYSTEM_FOLDERS = frozenset(
    ("$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle", "__macosx")
)
#: Names without an ending: vim tries whether it may write with 4913 and more; Excel writes under eight digits first.
_PROBES = re.compile(r"4913|(?:5|6|7)\d{3}|[0-9A-F]{5}000")
#: macOS writes `notes.csv.sb-1f2e3d4c-AbCdEf` first.
_SAFE_SAVE = re.compile(r".+\.sb-[0-9a-f]{8}-\w{6}", re.DOTALL)
#: Names of control files beside a drop (see `control`, which also has the range of the number).
CONTROL = re.compile(rf"(?P<drop>.+{ENDING})\.(?P<verb>cancel|pause|resume|priority|show)(-(?P<value>.*))?", re.DOTALL)


def marker_of(path: Path) -> Path:
    """Return the path of a drop's marker."""
    return path.with_name(path.name + MARKER_SUFFIX)


def hidden(path: Path, drop_id: str) -> Path:
    """Return the path of a drop's copy until it gets its final name."""
    return path.with_name(f".{drop_id}.tmp")


def is_ignored(name: str) -> bool:
    """Return whether a name cannot be that of a drop: it is temporary or a system's, a marker's or a control file's."""
    return is_temporary(name) or name.endswith(MARKER_SUFFIX) or is_control(name)


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a file that a program or a system made for itself."""
    low = name.lower()
    return (
        low.startswith(TEMPORARY_PREFIXES)
        or low.endswith(TEMPORARY_SUFFIXES)
        or low in SYSTEM_FILES
        or _PROBES.fullmatch(name) is not None
        or _SAFE_SAVE.fullmatch(name) is not None
    )


def is_control(name: str) -> bool:
    """Return whether a name is that of a control file, valid or not; a name that ends like a drop's is a drop's."""
    return form_of(name) is None and CONTROL.fullmatch(name) is not None


def is_marker(name: str) -> bool:
    """Return whether a name is that of the marker of a drop."""
    return name.endswith(MARKER_SUFFIX) and form_of(name.removesuffix(MARKER_SUFFIX)) is not None
