"""Serve an ASGI application over sockets until a signal ends it. uvicorn comes with the extra `obcd[web]`."""

from __future__ import annotations

import importlib
import logging
import signal
import socket
from types import FrameType
from typing import Any

from obcd.errors import ExitCode, UsageError
from obcd.notify import notify
from obcd.serving.door import Application

#: The modules of the extra `web` that a server needs.
WEB = ("starlette", "uvicorn", "prometheus_client")
#: Connections at once. Further ones get 503.
MOST_CONNECTIONS = 512
#: Seconds that a connection may be silent, before its first request or after a reply.
SILENT_SECONDS = 30
#: Bytes of a request's head.
MAX_HEAD_BYTES = 32768
#: Seconds that replies may still take after a signal.
STOP_SECONDS = 2


def need_web(*modules: str) -> list[Any]:
    """Import modules of the extra `web`.

    Raises:
        UsageError: If one is not installed.
    """
    try:
        return [importlib.import_module(module) for module in modules]
    except ModuleNotFoundError as error:
        raise UsageError(f"this needs {error.name}, which is not installed: pip install 'obcd[web]'") from error


def serve(application: Application, sockets: list[socket.socket]) -> None:
    """Serve until INT or TERM; systemd learns that it is ready.

    Raises:
        UsageError: If uvicorn is not installed.
    """
    uvicorn, h11 = need_web("uvicorn", "uvicorn.protocols.http.h11_impl")
    protocol = _patient_protocol(h11.H11Protocol)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        application,
        http=protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=SILENT_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    notify(READY=1)  # the sockets listen: a client that connects now is served
    uvicorn.Server(config).run(sockets=sockets)


def _end(number: int, frame: FrameType | None) -> None:
    """End this process: uvicorn raises the signal again once it has stopped, and its default would kill us."""
    raise SystemExit(ExitCode.DONE)


def _patient_protocol(base: Any) -> Any:
    """Return uvicorn's protocol with a limit for the first request too: it waits without one."""

    class PatientProtocol(base):  # type: ignore[misc]
        """Ends a connection whose request is not complete in time."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._limit = self.loop.call_later(SILENT_SECONDS, self._end_without_request)

        def _end_without_request(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._limit.cancel()
            super().connection_lost(exc)

    return PatientProtocol
