"""What is opened outside of the main loop, in a process that may open nothing more: the real limit, no double."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.errors import ExhaustedError
from obcd.host.cards import nvml
from obcd.host.cards.card import GpuError
from obcd.host.cards.gpus import read_cards
from obcd.host.servers.binding import check_address
from obcd.host.servers.locks import PULL_LOCK, is_host_alive, is_pulling
from obcd.host.supervisord.remote import Remote
from obcd.host.supervisord.up_programs import free_ports
from obcd.host.watch.probing import Prober
from obcd.host.watch.watch_rules import ProbeAnswer
from obcd.logs.journal import JournalHandler
from obcd.workers.pool import Child
from tests.golden.wording import wording
from tests.support import wait_until


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing inside the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.case("D13")
def test_log_goes_to_standard_error_until_the_journal_can_be_reached(tmp_path: Path) -> None:
    told: list[str] = []

    class Fallback(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        with no_descriptors():
            handler = JournalHandler(Fallback(), tmp_path / "journal")
            handler.handle(logging.LogRecord("obcd", logging.INFO, "", 1, "first", None, None))
        handler.handle(logging.LogRecord("obcd", logging.INFO, "", 1, "second", None, None))
        handler.close()

        assert told == ["first"]
        assert b"MESSAGE=second" in journal.recv(4096)


@pytest.mark.case("D13")
def test_port_and_address_are_not_judged() -> None:
    with no_descriptors(), pytest.raises(ExhaustedError, match="Too many open files"):
        check_address("127.0.0.1")


@pytest.mark.case("D13")
def test_port_that_is_looked_for_is_named() -> None:
    with no_descriptors(), pytest.raises(OSError, match=wording("a-free-port-of")):
        free_ports(1)


@pytest.mark.case("D13")
def test_host_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / PULL_LOCK).touch()

    with no_descriptors():
        assert is_host_alive(tmp_path) is None
        assert is_pulling(tmp_path)
        with Remote(tmp_path) as remote, pytest.raises(ExhaustedError, match="Too many open files"):
            remote.states()


@pytest.mark.case("D13")
def test_server_is_not_said_to_refuse() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        prober = Prober({"0": f"http://127.0.0.1:{listening.getsockname()[1]}"})
        with no_descriptors():
            prober.tick(0.0)
            wait_until(lambda: not any(thread.name == "probe" for thread in threading.enumerate()))
            prober._targets["0"].tick(0.0)

        assert (prober.latest("0").number, prober.latest("0").answer) == (1, ProbeAnswer.UNKNOWN)


@pytest.mark.case("D13")
def test_cards_are_not_read_and_that_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)

    with no_descriptors(), pytest.raises(GpuError, match="Too many open files"):
        nvml.find_cards()
    with no_descriptors():
        assert read_cards(["GPU-1"]) == {}


@pytest.mark.case("D13")
@pytest.mark.integration
def test_child_process_is_not_said_to_stand_still() -> None:
    child = Child("sleeper", _wait)
    try:
        with no_descriptors():
            assert not child.is_stopped
    finally:
        child.end()


def _wait(channel: object) -> None:
    threading.Event().wait(60)
