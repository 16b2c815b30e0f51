"""The ASGI layer in front of an application: who may ask for what, and the headers of every reply.

Refusals are one short sentence each. Nothing that a request holds is repeated in a reply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from typing import Any

from obcd.serving.allowed_hosts import AllowedHosts

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

#: Longest path with its query, in bytes.
MAX_PATH_BYTES = 2048

#: Headers of every reply: nothing is framed, sniffed, referred, indexed, or shared with another origin.
ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-robots-tag", b"noindex, nofollow"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)


class Door:
    """Refuses what is not for the application, and adds headers to every reply, its own refusals included.

    Args:
        application: Gets all other requests.
        hosts: The names that are served.
        methods: The methods that it takes.
        headers: Further headers of every reply.
    """

    def __init__(
        self,
        application: Application,
        hosts: AllowedHosts,
        methods: Collection[str] = ("GET", "HEAD"),
        headers: Headers = (),
    ) -> None:
        self._application = application
        self._hosts = hosts
        self._methods = tuple(methods)
        self._headers = [*ALWAYS, *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; a WebSocket is closed before it opens."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        refusal = self._refuse(scope)
        if refusal is None:
            await self._application(scope, receive, send_with_headers)
            return
        status, text, headers = refusal
        body = f"{text}\n".encode()
        plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        start = {"type": "http.response.start", "status": status, "headers": [*plain, *headers]}
        await send_with_headers(start)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _refuse(self, scope: Scope) -> tuple[int, str, Headers] | None:
        """Return status, sentence and headers of a refusal; None for a request that the application gets."""
        named = [value for name, value in scope["headers"] if name == b"host"]
        server = scope.get("server") or ("", None)
        address = "" if is_local(scope) else str(server[0])
        if len(named) != 1 or not self._hosts.allows(named[0].decode("latin-1"), address):
            return 421, WRONG_HOST, ()
        if scope["method"] not in self._methods:
            return 405, "this method is not taken here", [(b"allow", ", ".join(self._methods).encode())]
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") > MAX_PATH_BYTES:
            return 414, "the address is too long", ()
        return None


WRONG_HOST = (
    "this name is not served here: ask for localhost or for the address itself, "
    "or add the name to allowed_hosts in obcd.toml"
)


def is_local(scope: Scope) -> bool:
    """Return whether a request came by a unix socket: by TCP both ends have an address with a port."""
    server = scope.get("server")
    return scope.get("client") is None and (server is None or server[1] is None)
