"""Which names a browser may ask for: without that, a foreign web page could read ours by DNS rebinding. Pure.

A page from evil.example may send requests to its own name while that name leads to 127.0.0.1; the browser then lets
it read the replies, and only the Host header shows it. An address cannot be rebound: the address that was connected to
is always allowed. Own code: starlette's TrustedHostMiddleware cuts an IPv6 address at its first colon.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

#: The names of this machine by which only its own users reach it.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: RFC 9110 7.2: `name[:port]`, where an IPv6 address is in brackets.
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.%]{2,60}\]|[0-9a-z_](?:[0-9a-z._-]{0,253}))(?::[0-9]{0,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The names that are served, beside those of loopback.

    Attributes:
        names: In lower case, without ports.
    """

    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, names: tuple[str, ...]) -> AllowedHosts:
        """Return those of the configuration; a port beside a name is ignored."""
        found = (_HOST.fullmatch(name.strip().lower()) for name in names)
        return cls(frozenset(_without_dot(match["name"]) for match in found if match))

    def allows(self, header: str, address: str = "") -> bool:
        """Return whether a Host header names this server.

        Args:
            address: The address that was connected to; "" for a unix socket.
        """
        match = _HOST.fullmatch(header.lower())
        if match is None:
            return False
        name = _without_dot(match["name"])
        return name in LOOPBACK or name in self.names or (bool(address) and _is_address(name, address))


def _without_dot(name: str) -> str:
    return name.removesuffix(".")


def _is_address(name: str, address: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")) == ipaddress.ip_address(address)
    except ValueError:
        return False
