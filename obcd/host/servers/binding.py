"""Try addresses and ports of this machine as Ollama will, and choose ports that are free."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from obcd.errors import EXHAUSTED, ConfigurationError, ExhaustedError, UsageError, naming


def check_address(bind: str) -> None:
    """Check that servers can listen on an address of this machine.

    Raises:
        ConfigurationError: If the address is not one of this machine.
    """
    is_free(bind, 0)  # 0 is always free


def is_free(bind: str, port: int) -> bool:
    """Return whether a server could listen there now.

    Raises:
        ConfigurationError: If the address is not one of this machine, or the port needs root.
        ExhaustedError: If no socket can be opened to try it.
    """
    try:
        _try_port(bind, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        if error.errno in EXHAUSTED:
            raise ExhaustedError(f"cannot find out whether port {port} is free: {error.strerror}") from None
        raise _no_address(bind, port, error) from None
    except UnicodeError as error:  # not a valid name: a part is too long or empty
        raise _no_address(bind, port, OSError(0, "not a host's name")) from error
    return True


def _try_port(bind: str, port: int) -> None:
    """Bind as Go's net.Listen does, and close the socket.

    It sets SO_REUSEADDR: then old connections in TIME_WAIT do not prevent it, and a listener still does. To Go, either
    wildcard means both families if the machine has both, so a foreign listener of either family counts.
    """
    if bind in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        _try_address(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 - closed at once
        if socket.has_dualstack_ipv6():
            try:
                _try_address(socket.AF_INET6, "::", port)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # IPv6 is compiled in and switched off
                    raise
        return
    family, *_, where = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
    _try_address(family, str(where[0]), port)


def _try_address(family: int, address: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))


def _no_address(bind: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EACCES:
        return ConfigurationError(f"port {port} needs root: choose [host] base_port above 1023")
    return ConfigurationError(
        f'[host] bind = "{bind}" is not an address of this machine ({error.strerror}): `ip address` lists them'
    )


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports of which each server gets a free one, `first` to `last`; 0 to 0: those that the kernel chooses."""

    first: int
    last: int


def parse_ports(text: str) -> PortRange:
    """Read `0` (any free port), `11432` or `20000-20999`.

    Raises:
        UsageError: If it has no such form.
    """
    first, _, last = text.partition("-")
    words = (first, last or first)
    if not all(word.isascii() and word.isdecimal() and len(word) <= 5 for word in words):
        raise UsageError(f"--port {text[:40]!r} is no port: write 0 for any free port, or a range such as 20000-20999")
    found = PortRange(*map(int, words))
    if found != PortRange(0, 0) and not 0 < found.first <= found.last <= 65535:
        raise UsageError(f"--port {text[:40]!r} is not a range of ports from 1 to 65535, the lower one first")
    return found


def choose_ports(bind: str, names: Sequence[str], wanted: PortRange) -> list[int]:
    """Return a free port for each name.

    The search in a range begins at a place that follows from the name, the card's UUID: jobs that start at the same
    moment on one machine have different cards, and would otherwise all choose the lowest port.

    Raises:
        ConfigurationError: If the address is not one of this machine, or the range has too few free ports.
    """
    if wanted == PortRange(0, 0):
        return _kernel_ports(bind, len(names))
    size, taken = wanted.last - wanted.first + 1, list[int]()
    for name in names:
        start = zlib.crc32(name.encode())
        places = (wanted.first + (start + step) % size for step in range(size))
        port = next((port for port in places if port not in taken and is_free(bind, port)), None)
        if port is None:
            raise ConfigurationError(
                f"--port {wanted.first}-{wanted.last} has no free port of {bind} left for {len(names)} servers: "
                "choose a wider range, or --port 0"
            )
        taken.append(port)
    return taken


def _kernel_ports(bind: str, count: int) -> list[int]:
    """Return free ports that the kernel chooses; each is held until all are found."""
    check_address(bind)
    family, *_, where = socket.getaddrinfo(bind, 0, type=socket.SOCK_STREAM)[0]
    with contextlib.ExitStack() as held:
        found = []
        for _ in range(count):
            with naming(f"a free port of {bind}"):
                sock = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
                sock.bind((str(where[0]), 0))
            found.append(int(sock.getsockname()[1]))
        return found


def own_address(name: str | None = None) -> str:
    """Return the one address, not loopback, to which this machine's host name resolves.

    Raises:
        ConfigurationError: If there is none, or more than one; the message names `--bind`.
    """
    host = name or socket.gethostname()
    try:
        found = {str(item[4][0]) for item in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        found = set()
    usable = [item for item in map(ipaddress.ip_address, sorted(text.partition("%")[0] for text in found))
              if not (item.is_loopback or item.is_link_local or item.is_unspecified)]  # fmt: skip
    chosen = [item for item in usable if item.version == 4] or usable  # both families of one address are usual
    if len(chosen) == 1:
        return str(chosen[0])
    listed = " and ".join(map(str, chosen)) if chosen else ", ".join(sorted(found)) or "nothing"
    raise ConfigurationError(
        f"the coordinator has to reach these servers, and this machine's name {host} resolves to {listed}: "
        "choose the address with --bind, e.g. --bind 10.0.0.11"
    )


def check_registered(bind: str) -> None:
    """Check an address to register: one literal address, and not all addresses of the machine.

    Raises:
        ConfigurationError: If it is not.
    """
    try:
        address = ipaddress.ip_address(bind)
    except ValueError:
        address = None
    if address is None or address.is_unspecified:
        what = "is not an address" if address is None else "means all addresses of this machine"
        raise ConfigurationError(
            f"--register needs one address, and {bind} {what}: Ollama has no authentication, so choose the address in "
            "your private network with --bind"
        )
