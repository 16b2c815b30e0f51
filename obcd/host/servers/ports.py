"""Find who listens on a port, on Linux: for a start that finds it held, and for the watch, which counts only its own.

    /proc/net/tcp, tcp6:  sl local_address rem_address st … uid timeout inode      (proc_pid_net(5); st 0A: listening)
    /proc/PID/fd/3 -> socket:[inode]

Only root can see the sockets of other users' processes; everybody can see the owner of a socket.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from obcd.host.servers.leftovers import slot_of
from obcd.host.servers.runtime import UNIT
from obcd.users import user_name

LISTENING, ESTABLISHED = "0A", "01"
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class PortListener:
    """One listening socket."""

    inode: str
    uid: int


def listeners(port: int) -> list[PortListener]:
    """Return the sockets that listen on a port, on any address; empty if they cannot be found."""
    return [PortListener(words[9], int(words[7])) for words in _rows(LISTENING, {port})]


def connections(ports: Collection[int]) -> frozenset[str]:
    """Return the established connections to some ports of this machine, each as both its addresses."""
    return frozenset(f"{words[1]} {words[2]}" for words in _rows(ESTABLISHED, ports))


def _rows(state: str, ports: Collection[int]) -> Iterator[list[str]]:
    """Yield the words of each line of the kernel's tables with a state and a local port; none if there is no table."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text("ascii", "replace").splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            if len(words) > 9 and words[3] == state and int(words[1].rpartition(":")[2], 16) in ports:
                yield words


def is_foreign(pid: int, port: int) -> bool:
    """Return whether other processes listen on a port and this one does not; False if it is unknown."""
    inodes = {f"socket:[{item.inode}]" for item in listeners(port)}
    if not inodes:
        return False
    try:
        return inodes.isdisjoint(_sockets(pid))
    except OSError:  # it has just ended, or is not readable
        return False


def holder(port: int) -> str:
    """Return the process that listens on a port, e.g. `process 812 (ollama)`, `a process of user ollama`."""
    found = listeners(port)
    pid = next(find_processes(item.inode for item in found), None)
    if pid is not None:
        return describe_process(pid)
    return f"a process of user {user_name(found[0].uid)}" if found else "another process"


def host_of(port: int) -> Path | None:
    """Return the runtime folder of the obcd host whose server listens on a port; None for other processes."""
    pid = next(find_processes(item.inode for item in listeners(port)), None)
    mark = None if pid is None else slot_of(pid)
    return None if mark is None else Path(mark[0])


def find_processes(inodes: Iterable[str]) -> Iterator[int]:
    """Yield the processes that have one of some sockets open, as far as this user can see."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()) if wanted else ():
        try:
            if not wanted.isdisjoint(_sockets(pid)):
                yield pid
        except OSError:
            continue


def is_server(pid: int) -> bool:
    """Return whether a process is an `ollama serve`, and not one of its runners."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[-2:] == [b"serve", b""]
    except OSError:
        return False


def describe_process(pid: int) -> str:
    """Return e.g. `process 812 (ollama)`; a server of obcd with its host."""
    try:
        name = (PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        name = "unknown"
    mark = slot_of(pid)
    if mark is None:
        return f"process {pid} ({name})"
    folder, label = mark
    host = UNIT if folder == "/run/obcd-host" else f"the obcd host at {folder}"
    return f"process {pid} ({name}), the server {label if label == 'cpu' else f'gpu{label}'} of {host}"


def _sockets(pid: int) -> Iterator[str]:
    """Yield the link of each descriptor of a process.

    Raises:
        OSError: If they may not be seen.
    """
    folder = PROC / str(pid) / "fd"
    for name in os.listdir(folder):
        try:
            yield os.readlink(folder / name)
        except FileNotFoundError:  # closed meanwhile
            continue
