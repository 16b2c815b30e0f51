"""The pool: who has said something, whose worker is missing, and who does not read. No process is started."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.workers import channel as channel_module
from obcd.workers import pool as module
from obcd.workers.channel import Channel, channel_pair
from obcd.workers.pool import Lost, Pool, Received
from obcd.workers.worker import WorkerSpec


class FakeChild:
    """A child process that is only its channel."""

    def __init__(self) -> None:
        self.channel, theirs = channel_pair()
        self.channel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.other = Channel(theirs)

    def kill(self) -> None:
        self.channel.close()


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, FakeChild]]:
    """Return `{name: child}` of all that a pool has started."""
    made: dict[str, FakeChild] = {}

    def start(name: str, *_: object) -> Any:
        made[name.removeprefix("worker ")] = child = FakeChild()
        return child

    monkeypatch.setattr(module, "try_to_start", start)
    yield made
    for child in made.values():
        child.channel.close()
        child.other.close()


@pytest.fixture
def pool(children: dict[str, FakeChild]) -> Pool:
    made = Pool()
    for name in ("a", "b"):
        made.add(WorkerSpec(name, "http://127.0.0.1:1", Path("jobs"), 1.0))
    assert made.next_restart() == 0.0
    while made.start_missing(0.0):
        pass
    assert made.next_restart() is None
    return made


def test_who_said_something_is_found_by_descriptor_and_strangers_are_passed_over(
    pool: Pool, children: dict[str, FakeChild]
) -> None:
    children["b"].other.send("word")
    readable = [children["b"].channel.fileno(), 10_000]

    assert set(pool.channels) == {child.channel.fileno() for child in children.values()}
    assert pool.find_ready(readable) == ["b"]
    assert list(pool.receive("b", 1.0)) == [Received("b", "word")]


def test_worker_that_is_gone_is_missing_and_its_successor_is_waited_on(
    pool: Pool, children: dict[str, FakeChild]
) -> None:
    # given
    gone = children["a"]
    gone.other.close()

    # when
    (lost,) = pool.receive("a", 1.0)

    # then
    assert isinstance(lost, Lost)
    assert set(pool.channels) == {children["b"].channel.fileno()}
    due = pool.next_restart()
    assert due is not None
    assert pool.start_missing(due) == ["a"]
    assert children["a"] is not gone
    assert children["a"].channel.fileno() in pool.channels


def test_what_did_not_fit_is_sent_once_there_is_room_and_nobody_else_is_asked_for_it(
    pool: Pool, children: dict[str, FakeChild]
) -> None:
    # given more than the socket takes
    for number in range(1000):
        pool.send("a", f"{number:0200}")
    assert pool._unread == {"a"}

    # when
    read: list[str] = []
    while len(read) < 1000:
        assert pool.find_ready([]) == []
        read += children["a"].other.receive()

    # then
    assert read == [f"{number:0200}" for number in range(1000)]
    pool.find_ready([])
    assert pool._unread == set()


def test_worker_that_never_reads_is_lost(
    pool: Pool, children: dict[str, FakeChild], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_WAITING_BYTES", 10_000)
    for number in range(1000):
        pool.send("a", f"{number:0200}")

    assert pool.find_ready([]) == ["a"]
    (lost,) = pool.receive("a", 1.0)
    assert isinstance(lost, Lost)
    assert pool.find_ready([]) == []


def test_removed_worker_is_not_waited_on(pool: Pool, children: dict[str, FakeChild]) -> None:
    pool.remove("a", 1.0)
    assert set(pool.channels) == {children["b"].channel.fileno()}
    assert pool.start_missing(100.0) == []
