"""Hold a card: no two servers of one user on one card, whatever started them.

A card is held by a socket with a name of the kernel's abstract namespace (unix(7)). The kernel gives the name to one
process only; it needs no folder (Slurm may give each job its own /tmp); it passes the exec by which the launcher
becomes `ollama serve`, and goes on to the runners: as long as one of them keeps memory of the card, the card is held.

    /proc/net/unix:  Num RefCount Protocol Flags Type St Inode Path        @obcd-card-1000-GPU-…      (proc_pid_net(5))
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from pathlib import Path

from obcd.errors import AlreadyRunningError
from obcd.host.servers.leftovers import slot_of
from obcd.host.servers.plan import Server
from obcd.host.servers.ports import PROC, describe_process, find_processes, is_server

logger = logging.getLogger(__name__)

#: Seconds to wait for a card whose last server has just ended: the kernel closes its sockets a moment later.
CARD_SECONDS = 2.0
#: A name has at most 107 bytes; MIG's old form, MIG-GPU-<uuid>/1/0, has 49.
MAX_PIN = 80


def check_card_free(server: Server, runtime: Path, *, is_supervised: bool) -> None:
    """Check that no other server holds the card; what an earlier server of the same slot left is no other server.

    Args:
        is_supervised: Whether supervisor starts it: then even a server of its slot is a leftover.

    Raises:
        AlreadyRunningError: If one does; the message names its process.
    """
    own = (os.path.realpath(runtime), server.label)
    for pid in _find_holders(server):
        if slot_of(pid) != own or (not is_supervised and is_server(pid)):
            raise AlreadyRunningError(_held(server, pid))


def hold_card(server: Server) -> socket.socket | None:
    """Hold a server's card for this process, and for those that it becomes and starts; None if it cannot be held.

    Raises:
        AlreadyRunningError: If another server holds it.
    """
    if not server.pin:
        return None
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deadline = time.monotonic() + CARD_SECONDS
    while (error := _bind(held, server)) is not None:
        if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
            time.sleep(0.05)
            continue
        held.close()
        holders = _find_holders(server) if error.errno == errno.EADDRINUSE else []
        if holders:
            raise AlreadyRunningError(_held(server, holders[0]))
        # no such names here, or another user's process has taken it: that must not keep the card idle
        logger.warning(
            "GPU %s (%s) is used without a guard against a second server: %s", server.label, server.pin, error.strerror,
            extra={"action": "card_unguarded"},
        )  # fmt: skip
        return None
    held.set_inheritable(True)
    return held


def _bind(held: socket.socket, server: Server) -> OSError | None:
    try:
        held.bind(f"\0{_name(server)}")
    except OSError as error:
        return error
    return None


def _find_holders(server: Server) -> list[int]:
    """Return the processes of this user that hold a card."""
    if not server.pin:
        return []
    try:
        lines = (PROC / "net" / "unix").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        return []
    name = f"@{_name(server)}"
    rows = [columns for columns in map(str.split, lines) if len(columns) == 8 and columns[7] == name]
    return list(find_processes(columns[6] for columns in rows))


def _held(server: Server, pid: int) -> str:
    return (
        f"GPU {server.label} ({server.pin}) is held by {describe_process(pid)}: two servers would share its memory, so "
        "stop that one first, or choose another card"
    )


def _name(server: Server) -> str:
    return f"obcd-card-{os.geteuid()}-{server.pin[:MAX_PIN]}"
