"""The listening sockets of a server. They are bound here: uvicorn makes its unix sockets 0666 (Kludex/uvicorn#2731)."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from pathlib import Path

from obcd.errors import AlreadyRunningError, InputError

BACKLOG = 128
#: Longest path of a unix socket on Linux, in bytes (unix(7)).
MAX_PATH_BYTES = 107


def bind_unix(path: Path, group: str) -> tuple[socket.socket, bool]:
    """Return a listening unix socket, in place of one whose server has ended.

    It appears under its name with its final mode: 0660 for a group of which this process is a member, else 0600.

    Returns:
        The socket, and whether the group's members may connect.

    Raises:
        AlreadyRunningError: If another server listens there.
        InputError: If it cannot be made.
    """
    if len(os.fsencode(path)) + len(".new") > MAX_PATH_BYTES:
        raise InputError(f"the path of the socket is longer than {MAX_PATH_BYTES - len('.new')} bytes: {path}")
    _check_free(path)
    temporary = path.with_name(path.name + ".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        old = os.umask(0o177)
        try:
            listener.bind(str(temporary))
        finally:
            os.umask(old)
        is_shared = _give_to_group(temporary, group)
        listener.listen(BACKLOG)
        temporary.replace(path)
    except OSError as error:
        listener.close()
        raise InputError(f"cannot make the socket {path}: {error.strerror}") from None
    return listener, is_shared


def _check_free(path: Path) -> None:
    """Refuse a path at which a server listens, or where something else is."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InputError(f"{path} is not a socket: remove it, or choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
            raise InputError(f"cannot find out whether {path} is in use: {error.strerror}") from None
    raise AlreadyRunningError(f"another server listens at {path}: stop that one first, or choose another path")


def _give_to_group(path: Path, name: str) -> bool:
    try:
        number = grp.getgrnam(name).gr_gid
        if number not in (os.getegid(), *os.getgroups()) and os.geteuid() != 0:
            return False
        os.chown(path, -1, number)
    except (KeyError, PermissionError):
        return False
    path.chmod(0o660)
    return True


def bind_tcp(address: str, port: int) -> socket.socket:
    """Return a listening TCP socket.

    Args:
        address: An IPv4 or IPv6 address, or a name.
        port: 0 for any free one.

    Raises:
        AlreadyRunningError: If the port is in use.
        InputError: If it cannot be bound.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise InputError(f"{address!r:.80} is not an address of this machine") from None
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AlreadyRunningError(f"port {port} of {address} is in use: choose another port") from None
        raise InputError(f"cannot listen at {address} port {port}: {error.strerror}") from None
    return listener


def url_of(host: str, port: int) -> str:
    """Return the address of a TCP port for a browser, e.g. `http://127.0.0.1:8620/`."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
