"""One entry of `[ollama_instances]` (`"host:port" = GPU index`), parsed into a checked endpoint."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from obcd.secret import Secret
from obcd.text import printable

#: Ollama's own port (ollama envconfig/config.go).
DEFAULT_PORT = 11434
#: A host name: labels of 1 to 63 letters, digits, hyphens and underscores (RFC 1123; Python's IDNA refuses others).
HOST_NAME = re.compile(r"([\w-]{1,63}\.)*[\w-]{1,63}\.?")
EXAMPLE = '"host:port", e.g. "127.0.0.1:11434"'
EXPECTED = f"it must be {EXAMPLE}"

BRACKETS = "; an IPv6 address needs brackets: [::1]:11434"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One Ollama base URL.

    Attributes:
        name: As written in the configuration, e.g. `server1:11432`; unique.
        scheme: `http` or `https`.
        prefix: The path in front of `/api`, without a trailing slash; usually empty.
        gpu: The index shown beside the endpoint; obcd does not pin by it.
        slots: The number of requests in flight at once; None: as many as prove best (`obcd.core.endpoint.concurrency`).
        token: Sent with every request and call to it; None for no token.
        window: The windows in which it may be used; empty: at any time.
        yields: Whether people use it too, who come first (`obcd.core.endpoint.yielding`).
    """

    name: str
    scheme: str
    host: str
    port: int
    prefix: str = ""
    gpu: int = 0
    slots: int | None = None
    token: Secret | None = None
    window: tuple[str, ...] = ()
    yields: bool = False

    @property
    def url(self) -> str:
        """Return the base URL, e.g. `http://server1:11432`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    @property
    def is_loopback(self) -> bool:
        """Return whether the endpoint is on this machine, as far as its name shows."""
        return is_loopback(self.host)

    def exposure(self, peer: str = "") -> str:
        """Return one sentence on how prompts are exposed on the way to the endpoint, or "" if they are not.

        Args:
            peer: The address that the connection reached; without it, a host name says nothing.
        """
        address = _address(peer or self.host)
        if address is None:
            return ""
        if address.is_unspecified:
            return f"{address} means every address of a machine and cannot be connected to: write 127.0.0.1, or its own"
        if not address.is_global:
            return ""
        if self.scheme == "http":
            return (
                f"it has a public address ({address}) and uses plain HTTP, so that anybody on the way can read "
                "prompts and answers: reach it by https://, a tunnel or a private network"
            )
        return f"it has a public address ({address}): prompts leave your network, encrypted"


#: The end of a path that belongs to an API and not to an endpoint: obcd adds the paths of Ollama's API itself.
_API_PATH = re.compile(
    r"(/(v1|api)(/(chat(/completions)?|completions|generate|embed(dings)?|tags|models|version|ps))?)/*$"
)


def misplaced_path(url: str) -> str:
    """Return what to do about an endpoint whose path is that of an API, "" for any other endpoint.

    A proxy may serve Ollama below such a path, so that it is only a fault where no Ollama answers.
    """
    found = _API_PATH.search(urlsplit(url).path)
    if found is None:
        return ""
    return f"take the path {printable(found[1])} off: obcd adds the paths of Ollama's API itself, write {EXAMPLE}"


def is_loopback(host: str) -> bool:
    """Return whether a host or address is this machine's own, as far as it shows."""
    address = _address(host)
    return address.is_loopback if address is not None else host == "localhost"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host as an address, or None if it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def parse_endpoint(name: str, gpu: int = 0, slots: int | None = None) -> Endpoint:
    """Parse an endpoint's name: `host`, `host:port`, or `http(s)://host[:port][/prefix]`.

    Raises:
        ValueError: If it is not valid; the message is the reason.
    """
    try:
        parts = urlsplit(name if "://" in name else f"http://{name}")
    except ValueError:
        raise ValueError(EXPECTED) from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"`{parts.scheme}://` is not a way to reach Ollama: write host:port or https://host/prefix")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an endpoint is host:port or https://host/prefix, without user, query or fragment")
    port = _port(name, parts)
    if not parts.hostname:
        raise ValueError(EXPECTED)
    is_name = name.isprintable() and HOST_NAME.fullmatch(parts.hostname)  # urlsplit drops line breaks silently
    if not is_name and ":" not in parts.hostname:
        raise ValueError(f"`{printable(parts.hostname)}` is not the name of a host")
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


def _port(name: str, parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        hint = "" if name.count(":") < 2 or "[" in name or "://" in name else BRACKETS
        raise ValueError(f"its port must be a number from 1 to 65535{hint}")
    return port
