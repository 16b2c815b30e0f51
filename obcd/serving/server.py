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
    protocol = _patient_protocol(h11)
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


def _patient_protocol(h11_impl: Any) -> Any:
    """Return uvicorn's protocol with a limit for heads that do not become complete: it waits for them without one.

    Args:
        h11_impl: The module with uvicorn's protocol.
    """

    class PatientProtocol(h11_impl.H11Protocol):  # type: ignore[misc]
        """Ends a connection whose request is not complete in time."""

        timeout_keep_alive_task: Any

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._limit = self.loop.call_later(SILENT_SECONDS, self._end_without_request)

        def _end_without_request(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        def data_received(self, data: bytes) -> None:
            cycle, waiting = self.cycle, self.timeout_keep_alive_task
            self.timeout_keep_alive_task = None  # uvicorn would end the limit at the first byte of the next request
            super().data_received(data)
            if waiting is None or self.transport.is_closing():
                return
            if self.conn.their_state is h11_impl.h11.IDLE:
                self.timeout_keep_alive_task = waiting
                return
            waiting.cancel()
            if self.cycle is cycle:  # more of a body whose reply is sent already
                self.timeout_keep_alive_task = self.loop.call_later(SILENT_SECONDS, self.timeout_keep_alive_handler)

        def connection_lost(self, exc: Exception | None) -> None:
            self._limit.cancel()
            super().connection_lost(exc)

    return PatientProtocol
