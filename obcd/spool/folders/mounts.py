"""Find the filesystem of a path in the system's table of mounts, and name the limits of network filesystems.

Network filesystems send no file events, show writes of other machines late, and keep locks and fsync only as well as
their server does. Without such a table (no /proc) nothing is known, and nothing is reported.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from obcd.text import printable

#: FUSE programs that only serve data of the network.
_NETWORK_PROGRAMS = ("sshfs", "glusterfs", "ceph", "ceph-fuse", "s3fs", "gcsfuse", "rclone", "juicefs", "curlftpfs")
#: Kinds of filesystem that another machine serves: no events, no reliable locks and fsync.
NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "ncpfs")
).union(("orangefs", "pvfs2", "coda"), (f"fuse.{program}" for program in _NETWORK_PROGRAMS))
#: Kinds that another machine may serve: a program or the host of a virtual machine serves them.
MAYBE_NETWORK = frozenset(("fuse", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "drvfs"))
#: Kinds that lose their content at a restart of the machine.
IN_MEMORY = frozenset(("tmpfs", "ramfs"))
#: Advice about a root on such a filesystem.
LOCAL_ROOT = 'a local folder as --root or [spool] root; the inbox alone may be a share ([spool] inbox = "…")'
#: Minimum seconds that a file of an inbox on a network filesystem must be unchanged: the writer's machine may keep
#: written data for half a minute, and this one the attributes that it saw (nfs(5): acregmax).
SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Mount:
    """The mount point and the kind of a filesystem, e.g. `Mount("/var", "ext4")`."""

    point: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Return whether another machine serves it."""
        return self.kind in NETWORK

    @property
    def is_doubtful(self) -> bool:
        """Return whether another machine may serve it."""
        return not self.is_network and (self.kind in MAYBE_NETWORK or self.kind.startswith("fuse."))


def list_mounts() -> list[Mount]:
    """Return the mounts that this process sees, in the order of mounting; [] if they are unknown.

    Does not wait for a server: psutil reads the kernel's table, /proc/self/mounts (psutil 7.2,
    _pslinux.disk_partitions).
    """
    try:
        return [Mount(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    except OSError:
        return []


def find_mount(mounts: Iterable[Mount], path: str) -> Mount | None:
    """Return the mount of a path: the deepest above it, and of two at one mount point the later one.

    Args:
        path: Absolute and without links.
    """
    above = [item for item in mounts if path == item.point or path.startswith(item.point.rstrip("/") + "/")]
    return max(reversed(above), key=lambda item: len(item.point), default=None)


def read_mount(path: Path) -> Mount | None:
    """Return the mount of a path; None if it is unknown."""
    real = os.path.realpath(path)  # first, because this access may mount it (autofs)
    return find_mount(list_mounts(), real)


def doubt_root(root: Path, mount: Mount | None) -> str:
    """Return what is wrong with a root on this filesystem, "" if nothing is."""
    if mount is None or not (mount.is_network or mount.is_doubtful):
        return ""
    text = f"{printable(str(root))} is on {mount.kind} (mounted at {printable(mount.point)})"
    if mount.is_network:
        return f"{text}, a network filesystem: its locks and fsync cannot be relied on"
    return f"{text}: if another machine serves it, its locks and fsync cannot be relied on"


def describe_inbox(inbox: Path, mount: Mount | None) -> str:
    """Return how obcd treats an inbox on a network filesystem, "" if it is on another one."""
    if mount is None or not mount.is_network:
        return ""
    return (
        f"the inbox {printable(str(inbox))} is on {mount.kind}, a network filesystem: it is scanned without events, "
        f"and a file is accepted when it has not changed for {SETTLE_SECONDS:.0f} s, or at once with its marker "
        "(obcd submit, or NAME.jsonl.done)"
    )
