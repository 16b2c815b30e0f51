"""Supervisor's XML-RPC over a unix socket, with a supervisord of few words at its other end."""

from __future__ import annotations

import base64
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from xmlrpc.client import Fault
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest

from obcd.errors import NoEndpointError, TimedOutError
from obcd.host.supervisord.configuration import SOCKET_NAME
from obcd.host.supervisord.remote import (  # fmt: skip
    ALREADY_STARTED,
    FAULT_NOT_RUNNING,
    SHUTDOWN_STATE,
    ProcessState,
    Remote,
    SupervisorRefusedError,
    _ProcessInfo,
    _refusal,
    _state,
)
from tests.golden.wording import wording

#: As supervisor 4.3 tells, all but what nobody reads.
RUNNING = {"name": "gpu0", "statename": "RUNNING", "pid": 17, "now": 1000, "start": 940, "spawnerr": "old news"}
FATAL = {"name": "gpu1", "statename": "FATAL", "pid": 0, "now": 1000, "start": 990, "spawnerr": "Exited too quickly"}
NEVER = {"name": "gpu2", "statename": "STOPPED", "pid": 0, "now": 1000, "start": 0, "spawnerr": ""}


class _Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2",)
    disable_nagle_algorithm = False  # there is none on a unix socket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        supervisord = self.server
        assert isinstance(supervisord, Supervisord)
        supervisord.credentials.append(self.headers["Authorization"])
        super().do_POST()


class Supervisord(ThreadingUnixStreamServer, SimpleXMLRPCDispatcher):
    """Answers what it is told to, and remembers what it was asked."""

    daemon_threads = True
    logRequests = False  # read by the handler, as is the next
    _send_traceback_header = False

    def __init__(self, runtime: Path) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        ThreadingUnixStreamServer.__init__(self, str(runtime / SOCKET_NAME), _Handler)
        self.asked: list[tuple[Any, ...]] = []
        self.credentials: list[str] = []
        self.connections = 0
        self.fault: Fault | None = None
        for name in ("getAllProcessInfo", "getPID", "signalProcess", "startProcess", "stopProcess"):
            self.register_function(self._answering(name), f"supervisor.{name}")
        self._serving = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._serving.start()

    def _answering(self, name: str) -> Any:
        def answer(*arguments: Any) -> Any:
            self.asked.append((name, *arguments))
            if self.fault is not None:
                raise self.fault
            return {"getAllProcessInfo": [RUNNING, FATAL, NEVER], "getPID": 4711}.get(name, True)

        return answer

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def end(self) -> None:
        self.shutdown()
        self._serving.join()
        self.server_close()


@pytest.fixture
def supervisord(runtime: Path) -> Iterator[Supervisord]:
    made = Supervisord(runtime)
    yield made
    made.end()


@pytest.fixture
def remote(supervisord: Supervisord, runtime: Path) -> Iterator[Remote]:
    with Remote(runtime) as made:
        yield made


def test_states_are_supervisor_s_words_with_ages_and_the_fault_of_what_does_not_run(remote: Remote) -> None:
    found = remote.states()

    assert found == {
        "gpu0": ProcessState(state="RUNNING", pid=17, age_seconds=60.0, fault=""),
        "gpu1": ProcessState(state="FATAL", pid=0, age_seconds=10.0, fault="Exited too quickly"),
        "gpu2": ProcessState(state="STOPPED", pid=0, age_seconds=0.0, fault=""),
    }


@pytest.mark.parametrize(
    ("code", "fault"), [("-1", wording("a-signal-ended-it-dmesg-says")), ("2", wording("it-ended-with-exit-code-2"))]
)
def test_end_of_a_program_is_said_in_plain_words(code: str, fault: str) -> None:
    item = _ProcessInfo(name="gpu0", statename="BACKOFF", pid=0, now=9, start=8, spawnerr=f"Bad exit code {code}")

    assert _state(item).fault == fault


def test_all_calls_go_over_one_connection_with_the_credentials(remote: Remote, supervisord: Supervisord) -> None:
    assert [remote.supervisor_pid(), remote.supervisor_pid()] == [4711, 4711]
    assert supervisord.connections == 1
    assert supervisord.credentials == ["Basic " + base64.b64encode(b"obcd:obcd").decode()] * 2


def test_nothing_waits_for_what_it_asks_to_start_or_stop(remote: Remote, supervisord: Supervisord) -> None:
    remote.start("gpu0")
    remote.stop("gpu1")
    remote.signal("gpu2", "TERM")

    assert supervisord.asked == [
        ("startProcess", "gpu0", False), ("stopProcess", "gpu1", False), ("signalProcess", "gpu2", "TERM"),
    ]  # fmt: skip


def test_what_is_so_already_is_fine(remote: Remote, supervisord: Supervisord) -> None:
    supervisord.fault = Fault(ALREADY_STARTED, "ALREADY_STARTED: gpu0")
    remote.start("gpu0")
    supervisord.fault = Fault(FAULT_NOT_RUNNING, "NOT_RUNNING: gpu0")
    remote.stop("gpu0")
    assert len(supervisord.asked) == 2


@pytest.mark.parametrize(
    ("code", "call"),
    [(10, "start"), (FAULT_NOT_RUNNING, "start"), (ALREADY_STARTED, "stop"), (FAULT_NOT_RUNNING, "signal")],
)
def test_other_refusals_are_errors_with_their_number(
    remote: Remote, supervisord: Supervisord, code: int, call: str
) -> None:
    supervisord.fault = Fault(code, "NOT_NOW")
    with pytest.raises(SupervisorRefusedError, match="NOT_NOW") as caught:
        getattr(remote, call)("gpu0", *(("KILL",) if call == "signal" else ()))
    assert caught.value.code == code


def test_a_supervisord_that_hangs_is_an_error_in_time(runtime: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(runtime / SOCKET_NAME))
        deaf.listen()
        with Remote(runtime, call_seconds=0.05) as remote, pytest.raises(TimedOutError, match="it hangs"):
            remote.states()


def test_after_a_supervisord_ended_the_same_remote_reaches_the_next(runtime: Path) -> None:
    first = Supervisord(runtime)
    with Remote(runtime) as remote:
        remote.supervisor_pid()
        first.end()
        remote.close()  # the thread that serves the open connection outlives its server
        (runtime / SOCKET_NAME).unlink()
        with pytest.raises(NoEndpointError, match=wording("no-obcd-host-runs-here")):
            remote.supervisor_pid()
        second = Supervisord(runtime)
        assert remote.supervisor_pid() == 4711
        second.end()


def test_what_is_no_supervisord_is_none(runtime: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(runtime / SOCKET_NAME))
        stranger.listen()

        def hang_up() -> None:
            connection, _ = stranger.accept()
            with connection:
                said = b""
                while b"</methodCall>" not in said:  # closed with something unread, it would be asked again
                    said += connection.recv(65536)
                connection.sendall(b"220 mail\r\n\r\n")

        serving = threading.Thread(target=hang_up)
        serving.start()
        with Remote(runtime) as remote, pytest.raises(NoEndpointError):
            remote.states()
        serving.join()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use any socket")
def test_another_user_s_socket_is_refused_with_the_way_out(runtime: Path, supervisord: Supervisord) -> None:
    (runtime / SOCKET_NAME).chmod(0)
    with Remote(runtime) as remote, pytest.raises(NoEndpointError, match="with sudo"):
        remote.states()


def test_a_host_that_stops_is_said_in_words() -> None:
    stopping = _refusal(Fault(SHUTDOWN_STATE, "SHUTDOWN_STATE"))
    assert stopping == wording("obcd-host-is-stopping-or-starting")
    assert _refusal(Fault(10, "BAD_NAME")) == "supervisord refuses: BAD_NAME"
