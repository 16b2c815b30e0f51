"""Supervisor's XML-RPC over its unix socket, every call with a time limit.

supervisor's own transport has no time limit: a supervisord that hangs would hang its caller.
"""

from __future__ import annotations

import base64
import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from obcd.errors import EXHAUSTED, ExhaustedError, NoEndpointError, ObcdError, TimedOutError
from obcd.host.supervisord.configuration import PASSWORD, SOCKET_NAME, USER

#: supervisord's words about a program that ended; -1 where a signal ended it.
_BAD_EXIT = "Bad exit code "
#: Seconds for one step of a call, which usually takes less than a millisecond; supervisord's loop runs once a second.
CALL_SECONDS = 5.0
#: supervisor/xmlrpc.py: Faults
FAULT_NOT_RUNNING, ALREADY_STARTED, SHUTDOWN_STATE = 70, 60, 6


class SupervisorRefusedError(ObcdError):
    """supervisord refuses a call.

    Attributes:
        code: supervisor's fault number.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """The state of one program in supervisor.

    Attributes:
        state: Supervisor's name: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL or UNKNOWN.
        pid: 0 if it does not run.
        age_seconds: Seconds from its last start; 0 if it was never started.
        fault: Supervisor's message about its last start, "" if there is none.
    """

    state: str
    pid: int
    age_seconds: float
    fault: str


class Remote:
    """A client of one supervisord, over its socket; one thread uses it.

    Args:
        runtime: The folder that holds its socket.
    """

    def __init__(self, runtime: Path, call_seconds: float = CALL_SECONDS) -> None:
        self._path = runtime / SOCKET_NAME
        transport = _Transport(self._path, call_seconds)
        self._proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._proxy("close")()

    def states(self) -> dict[str, ProcessState]:
        """Return `{program: its state}` of all programs and listeners.

        Raises:
            NoEndpointError: If no supervisord answers there.
            TimedOutError: If it does not answer in time.
            ExhaustedError: If no socket can be opened.
        """
        found: list[_ProcessInfo] = self._call("supervisor.getAllProcessInfo")
        return {item["name"]: _state(item) for item in found}

    def supervisor_pid(self) -> int:
        """Return supervisord's process id."""
        return int(self._call("supervisor.getPID"))

    def signal(self, name: str, signal: str) -> None:
        """Send a signal (`TERM`) to a program's process, which supervisor then starts again.

        Raises:
            RefusedError: If it does not run.
        """
        self._call("supervisor.signalProcess", name, signal)

    def start(self, name: str) -> None:
        """Start a program without waiting for it; one that is already started is no error.

        Raises:
            RefusedError: If supervisor refuses.
        """
        self._call_unless(ALREADY_STARTED, "supervisor.startProcess", name)

    def stop(self, name: str) -> None:
        """Stop a program permanently without waiting for it; one that does not run is no error."""
        self._call_unless(FAULT_NOT_RUNNING, "supervisor.stopProcess", name)

    def _call_unless(self, harmless: int, method: str, name: str) -> None:
        try:
            self._call(method, name, False)
        except SupervisorRefusedError as error:
            if error.code != harmless:
                raise

    def _call(self, method: str, *arguments: str | bool) -> Any:
        try:
            return getattr(self._proxy, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorRefusedError(fault.faultCode, _refusal(fault)) from None
        except TimeoutError:
            self.close()
            raise TimedOutError(f"supervisord does not answer on {self._path}: it hangs; restart obcd host") from None
        except PermissionError:
            raise NoEndpointError(
                f"{self._path} cannot be used by this user: run this as the user who runs obcd host, or with sudo"
            ) from None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            self.close()
            if isinstance(error, OSError) and error.errno in EXHAUSTED:
                raise ExhaustedError(f"supervisord cannot be reached: {error.strerror}") from None
            raise NoEndpointError(
                f"no obcd host runs here (nothing answers on {self._path}): start one with obcd host"
            ) from None


def _refusal(fault: xmlrpc.client.Fault) -> str:
    if fault.faultCode == SHUTDOWN_STATE:
        return "obcd host is stopping or restarting: try again in a moment"
    return f"supervisord refuses: {fault.faultString}"


class _ProcessInfo(TypedDict):
    """The used fields of supervisord's record of a program (supervisor.rpcinterface: getProcessInfo)."""

    name: str
    statename: str
    pid: int
    now: int
    start: int
    spawnerr: str


def _state(item: _ProcessInfo) -> ProcessState:
    is_alive = item["pid"] != 0
    return ProcessState(
        state=str(item["statename"]),
        pid=int(item["pid"]),
        age_seconds=float(max(0, item["now"] - item["start"])) if item["start"] else 0.0,
        fault="" if is_alive else _fault(str(item["spawnerr"])),
    )


def _fault(words: str) -> str:
    """Return why a program does not run; supervisord gives a number where a signal ended it."""
    code = words.removeprefix(_BAD_EXIT)
    if code == words:
        return words
    return "a signal ended it: dmesg says whether memory ran out" if code == "-1" else f"it ended with exit code {code}"


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    """xmlrpc's transport over a unix socket; it keeps one connection open."""

    def __init__(self, path: Path, timeout: float) -> None:
        credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {credentials}")])
        self._path, self._timeout = path, timeout
        self._open: _Connection | None = None

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        """Return the open connection, or a new one."""
        if self._open is None:
            self._open = _Connection(self._path, self._timeout)
        return self._open

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None
