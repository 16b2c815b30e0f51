"""One line of `[ollama_instances]`: `"host:port" = GPU index`, as a checked endpoint."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

#: Ollama's own port (ollama envconfig/config.go).
DEFAULT_PORT = 11434


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One Ollama base URL.

    Attributes:
        name: As the configuration writes it, e.g. `server1:11432`; unique.
        scheme: `http` or `https`.
        prefix: Path in front of `/api`, without a trailing slash; most often empty.
        gpu: The index shown beside it; obcd does not pin by it.
        slots: Requests in flight at once.
    """

    name: str
    scheme: str
    host: str
    port: int
    prefix: str = ""
    gpu: int = 0
    slots: int = 4

    @property
    def url(self) -> str:
        """Return the base URL, e.g. `http://server1:11432`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    @property
    def is_private(self) -> bool:
        """Tell whether it is on loopback or a private network; a name that is no address counts as private."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return address.is_private or address.is_loopback or address.is_link_local


def parse_endpoint(name: str, gpu: int, slots: int) -> Endpoint:
    """Read an endpoint's name: `host`, `host:port`, or `http(s)://host[:port][/prefix]`.

    Raises:
        ValueError: With the reason.
    """
    parts = urlsplit(name if "://" in name else f"http://{name}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"`{parts.scheme}://` is not a way to reach Ollama: write host:port or https://host/prefix")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an endpoint is host:port or https://host/prefix, without user, query or fragment")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port must be a number from 1 to 65535") from None
    if not parts.hostname or port == 0:
        raise ValueError('it must be "host:port", e.g. "127.0.0.1:11434"')
    default = 443 if parts.scheme == "https" else (80 if "://" in name else DEFAULT_PORT)
    return Endpoint(
        name=name,
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or default,
        prefix=parts.path.rstrip("/"),
        gpu=gpu,
        slots=slots,
    )
