"""Install and remove a plan's files: never over a file that an administrator changed, never outside the root.

Installed files are recorded as `{path: fingerprint}` in `/etc/obcd/installed.json`, which only root can write; this
record decides what `uninstall` removes. A file that differs from its fingerprint was changed, and stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from obcd.errors import AlreadyRunningError, InputError
from obcd.install.plan import RECORD, Folder, InstallPlan, Item
from obcd.spool.folders import disk


class InstallVerb(StrEnum):
    """What happens to a path."""

    NEW = "new"
    UNCHANGED = "unchanged"
    UPDATED = "updated"
    KEPT = "kept"
    REPLACED = "replaced"
    REMOVED = "removed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class InstallStep:
    """One path and what happens to it.

    Attributes:
        item: The file or folder to write, None if nothing is written.
        why: Printed after the path, e.g. `you changed it`.
    """

    verb: InstallVerb
    path: str
    item: Item | Folder | None = None
    why: str = ""


Record = Mapping[str, str]


def fingerprint(path: Path) -> str:
    """Return the fingerprint of a path: "" if nothing is there, `link:TARGET`, the SHA-256 of a file, or `other`."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return f"link:{os.readlink(path)}"
        return hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else "other"
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; run this as root") from None


def place(root: Path, path: str) -> Path:
    """Return the place of the plan's path under a root.

    Raises:
        InputError: If a symbolic link in the root leads out of it.
    """
    inside = root / path.lstrip("/")
    if not inside.parent.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{inside.parent} leads out of {root}: remove the symbolic link in this path")
    return inside


def read_record(root: Path) -> Record:
    """Return the record of an earlier installation; empty if there was none.

    Raises:
        InputError: If it cannot be read.
    """
    path = place(root, RECORD)
    try:
        files = disk.read_json(path)["files"]
        return {str(name): str(value) for name, value in files.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, and install once with --force") from None


def decide(plan: InstallPlan, root: Path, record: Record, *, force: bool = False) -> list[InstallStep]:
    """Return what would happen to every path of a plan; write nothing."""
    folders = [_decide_folder(folder, root) for folder in plan.folders]
    return [*folders, *(step for item in plan.items for step in _decide_item(item, root, record, force=force))]


def _decide_folder(folder: Folder, root: Path) -> InstallStep:
    path = place(root, folder.path)
    if not os.path.lexists(path):
        return InstallStep(InstallVerb.NEW, folder.path, folder)
    if path.is_symlink() or not path.is_dir():
        return InstallStep(InstallVerb.KEPT, folder.path, None, "it is not a folder")
    return InstallStep(InstallVerb.UNCHANGED, folder.path)


def _decide_item(item: Item, root: Path, record: Record, *, force: bool) -> list[InstallStep]:
    there, remembered = fingerprint(place(root, item.path)), record.get(item.path, "")
    if there == item.fingerprint:
        return [InstallStep(InstallVerb.UNCHANGED, item.path)]
    if not there:
        return [InstallStep(InstallVerb.NEW, item.path, item)]
    if there == remembered:
        return [InstallStep(InstallVerb.UPDATED, item.path, item)]
    return _decide_changed(item, root, there, remembered, force=force)


def _decide_changed(item: Item, root: Path, there: str, remembered: str, *, force: bool) -> list[InstallStep]:
    """Decide about a path whose content is not the recorded one."""
    if there == "other":
        return [InstallStep(InstallVerb.KEPT, item.path, None, "it is not a file")]
    if force:
        return [InstallStep(InstallVerb.REPLACED, item.path, item, f"yours is now {_old_name(item.path, root)}")]
    if item.link:
        return [InstallStep(InstallVerb.KEPT, item.path, None, f"it is not obcd's; obcd's is {item.link}")]
    why = "you changed it" if remembered else "it was there before"
    if remembered == item.fingerprint:  # nothing newer to offer
        return [InstallStep(InstallVerb.KEPT, item.path, None, why)]
    beside = replace(item, path=f"{item.path}.new")
    return [
        InstallStep(InstallVerb.KEPT, item.path, None, f"{why}; the new one is {beside.path}"),
        *_beside(beside, root),
    ]


def _old_name(path: str, root: Path) -> str:
    """Return a free name for a replaced file: `X.old`, `X.old.2`."""
    name, number = f"{path}.old", 2
    while os.path.lexists(place(root, name)):
        name, number = f"{path}.old.{number}", number + 1
    return name


def _beside(item: Item, root: Path) -> list[InstallStep]:
    there = fingerprint(place(root, item.path))
    return (
        []
        if there == item.fingerprint
        else [InstallStep(InstallVerb.UPDATED if there else InstallVerb.NEW, item.path, item)]
    )


def apply(plan: InstallPlan, steps: list[InstallStep], root: Path, record: Record) -> None:
    """Do the steps and record the installed files, also those that were installed before a fault.

    Raises:
        InputError: If one cannot be done.
    """
    known = dict(record)
    offered = {item.path: item.fingerprint for item in plan.items}
    # Recorded before the first file is written: an installation that is killed can be uninstalled.
    coming = {
        step.path: step.item.fingerprint
        for step in steps
        if step.verb is InstallVerb.NEW and isinstance(step.item, Item)
    }
    try:
        _write_record(root, {**coming, **record})
        for step in steps:
            _do(step, root)
            if isinstance(step.item, Item):
                known[step.path] = step.item.fingerprint
            elif step.path in offered and (step.verb is InstallVerb.UNCHANGED or step.path in record):
                known[step.path] = offered[step.path]
        _write_record(root, known)
    except OSError as error:
        with contextlib.suppress(OSError):  # the fault above is reported
            _write_record(root, known)
        raise InputError(f"cannot write {error.filename or root}: {error.strerror}") from None


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep a second installation out of a root while the block runs.

    Raises:
        AlreadyRunningError: If one is under way.
        InputError: If the root cannot be made.
    """
    try:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyRunningError(f"another obcd install works on {root}: wait until it has ended") from None
    finally:
        os.close(descriptor)


def _do(step: InstallStep, root: Path) -> None:
    if step.item is None:
        return
    path = place(root, step.path)
    if isinstance(step.item, Folder):
        path.mkdir(mode=0o700, parents=True)
        path.chmod(step.item.mode)
        return
    _make_parents(path.parent)
    if step.verb is InstallVerb.REPLACED:
        path.rename(place(root, _old_name(step.path, root)))
    _put(step.item, path)


def _make_parents(folder: Path) -> None:
    if not folder.is_dir():
        _make_parents(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)  # regardless of the umask: everybody may read the configuration's folder


def _put(item: Item, path: Path) -> None:
    if item.link:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(item.link)
        disk.rename(temporary, path)
        return
    with disk.whole_file(path, item.mode) as file:
        os.fchmod(file.fileno(), item.mode)
        file.write(item.content)


def give_to_groups(plan: InstallPlan, steps: list[InstallStep], root: Path) -> None:
    """Give files to the groups that may read them; call it as root, after the groups were made.

    This includes files that were written before: an earlier installation may have ended before this step. A file that
    is kept, or whose group is no longer root's, does not change.

    Raises:
        InputError: If a group does not exist.
    """
    kept = {step.path for step in steps if step.verb is InstallVerb.KEPT}
    for item in plan.items:
        path = place(root, item.path)
        if not item.group or item.path in kept or path.lstat().st_gid != 0:
            continue
        try:
            os.chown(path, -1, grp.getgrnam(item.group).gr_gid, follow_symlinks=False)
        except (KeyError, OSError) as error:
            raise InputError(f"cannot give {path} to group {item.group}: {error}") from None


def _write_record(root: Path, files: Record) -> None:
    path = place(root, RECORD)
    _make_parents(path.parent)
    with disk.whole_file(path, 0o644) as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(json.dumps({"format": 1, "files": dict(sorted(files.items()))}, indent=2).encode() + b"\n")


def decide_removal(root: Path, record: Record) -> list[InstallStep]:
    """Return what would happen to every installed path."""
    steps = []
    for path, remembered in sorted(record.items()):
        there = fingerprint(place(root, path))
        if not there:
            steps.append(InstallStep(InstallVerb.GONE, path))
        elif there == remembered:
            steps.append(InstallStep(InstallVerb.REMOVED, path))
        else:
            steps.append(InstallStep(InstallVerb.KEPT, path, None, "you changed it"))
    return steps


def remove(steps: list[InstallStep], root: Path) -> None:
    """Remove the files of the steps, then the record, then folders that are empty.

    Raises:
        InputError: If a file cannot be removed; the record stays, so that the removal can be tried again.
    """
    paths = [place(root, step.path) for step in steps if step.verb is InstallVerb.REMOVED]
    try:
        for path in paths:
            path.unlink(missing_ok=True)
        place(root, RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove {error.filename}: {error.strerror}") from None
    own = {path.parent for path in (*paths, place(root, RECORD)) if "obcd" in path.parent.name}
    for folder in sorted(own):
        with contextlib.suppress(OSError):  # it holds a file of the administrator
            folder.rmdir()
