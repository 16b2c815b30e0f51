"""Which filesystem a path lies on, by the kernel's table of mounts, and what another machine's cannot be trusted with.

Network filesystems send no file events, show others' writes late, and keep locks and fsync only as well as their
server does. Where there is no such table (no /proc) nothing is known, and nothing is said.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from obcd.logs import printable

#: The kernel's table of mounts (proc(5)), as this process sees them. Reading it waits for no server.
MOUNTINFO = Path("/proc/self/mountinfo")
#: What FUSE serves with nothing but the network behind it.
_NETWORK_PROGRAMS = ("sshfs", "glusterfs", "ceph", "ceph-fuse", "s3fs", "gcsfuse", "rclone", "juicefs", "curlftpfs")
#: Kinds of filesystem that another machine serves: no events, no dependable locks and fsync.
NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "ncpfs")
).union(("orangefs", "pvfs2", "coda"), (f"fuse.{program}" for program in _NETWORK_PROGRAMS))
#: Kinds that may be another machine's: a program or the host of a virtual machine serves them.
MAYBE_NETWORK = frozenset(("fuse", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "drvfs"))
#: Kinds that are gone after a restart of the machine.
IN_MEMORY = frozenset(("tmpfs", "ramfs"))
#: What has to be done about a root on such a filesystem.
LOCAL_ROOT = 'a local folder as --root or [spool] root; the inbox alone may be a share ([spool] inbox = "…")'
#: Seconds that a file of an inbox on a network filesystem has to lie unchanged at least: its writer's machine may keep
#: what it wrote for half a minute, and ours what it saw (nfs(5): acregmax).
SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a filesystem hangs in, and of which kind it is, e.g. `Mount("/var", "ext4")`."""

    point: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Tell whether another machine serves it."""
        return self.kind in NETWORK

    @property
    def is_doubtful(self) -> bool:
        """Tell whether another machine may serve it."""
        return not self.is_network and (self.kind in MAYBE_NETWORK or self.kind.startswith("fuse."))


def find_mount(table: bytes, path: bytes) -> Mount | None:
    """Find the mount that a path lies on.

    Args:
        table: What `/proc/self/mountinfo` holds; lines that are not as they should be are passed over.
        path: Absolute and without links.
    """
    found: tuple[bytes, bytes] | None = None
    for line in table.splitlines():
        left, _, right = line.partition(b" - ")
        fields, kinds = left.split(b" "), right.split(b" ")
        if len(fields) < 5:
            continue
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
        holds = path == point or path.startswith(point.rstrip(b"/") + b"/")
        if holds and (found is None or len(point) >= len(found[0])):  # of two on one point the later one counts
            found = (point, kinds[0])
    return None if found is None else Mount(os.fsdecode(found[0]), found[1].decode("ascii", "replace"))


def real_path(path: Path) -> bytes:
    """Return what `find_mount` wants. Follows links, so it may wait for a server that does not answer."""
    return os.fsencode(os.path.realpath(path))


def read_table(source: Path | None = None) -> bytes:
    """Return the kernel's table, empty where there is none."""
    try:
        return Path(source or MOUNTINFO).read_bytes()
    except OSError:
        return b""


def read_mount(path: Path, source: Path | None = None) -> Mount | None:
    """Return the mount that a path lies on; None where that cannot be known."""
    real = real_path(path)  # first: it may be mounted only now that somebody looks at it (autofs)
    return find_mount(read_table(source), real)


def doubt_root(root: Path, mount: Mount | None) -> str:
    """Return what is wrong with a root on this filesystem, "" when nothing is."""
    if mount is None or not (mount.is_network or mount.is_doubtful):
        return ""
    text = f"{printable(str(root))} lies on {mount.kind} (mounted at {printable(mount.point)})"
    if mount.is_network:
        return f"{text}, a network filesystem: its locks and fsync cannot be relied on"
    return f"{text}: if another machine serves it, its locks and fsync cannot be relied on"


def tell_inbox(inbox: Path, mount: Mount | None) -> str:
    """Return what is different with an inbox on a network filesystem, "" when it lies on none."""
    if mount is None or not mount.is_network:
        return ""
    return (
        f"the inbox {printable(str(inbox))} lies on {mount.kind}, a network filesystem: it is scanned without events, "
        f"and a file is taken when it has not changed for {SETTLE_SECONDS:.0f} s, or at once with its marker "
        "(obcd submit, or NAME.jsonl.done)"
    )
