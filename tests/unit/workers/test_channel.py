"""The channel: messages whole and in order, and never a wait on the coordinator's side."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from obcd.workers import channel as channel_module
from obcd.workers.channel import Channel, ClosedError, channel_pair


@contextlib.contextmanager
def pair() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = channel_pair()
    ours._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    other = Channel(theirs)
    try:
        yield ours, other
    finally:
        ours.close()
        other.close()


def read_all(ours: Channel, other: Channel) -> list[object]:
    """Read until nothing waits and nothing comes."""
    messages: list[object] = []
    while new := other.receive() or ours.wants_write:
        messages += new if isinstance(new, list) else []
        ours.flush()
    return messages


def test_sends_to_a_reader_that_stands_still_return_at_once_and_all_arrive_in_order_later() -> None:
    with pair() as (ours, other):
        for number in range(2000):
            ours.send(f"{number:0200}")
        assert ours.wants_write

        assert read_all(ours, other) == [f"{number:0200}" for number in range(2000)]
        assert not ours.wants_write


def test_receive_flushes_too() -> None:
    with pair() as (ours, other):
        ours.send("x" * 50_000)
        messages: list[object] = []
        while not messages:
            assert ours.receive() == []
            messages += other.receive()

        assert messages == ["x" * 50_000]


def test_message_larger_than_the_socket_holds_goes_through_from_the_side_that_waits() -> None:
    with pair() as (ours, other):
        sender = threading.Thread(target=other.send, args=("x" * 10**6,))
        sender.start()
        messages: list[object] = []
        while not messages:
            messages += ours.receive()
        sender.join(10)

        assert messages == ["x" * 10**6]


def test_message_of_several_buffers_is_received_at_once_and_the_end_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_READ", 1000)
    with pair() as (ours, other):
        for number in range(3):
            other.send(f"{number}" * 5000)
        other.close()

        assert ours.receive() == [f"{number}" * 5000 for number in range(3)]
        with pytest.raises(ClosedError):
            ours.receive()


def test_reader_that_never_reads_again_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "MAX_WAITING_BYTES", 100_000)

    with pair() as (ours, _):
        with contextlib.suppress(ClosedError):
            for _ in range(1000):
                ours.send("x" * 1000)
        assert not ours.wants_write

        with pytest.raises(ClosedError):
            ours.receive()


def test_what_was_said_before_the_end_is_read_though_more_waits_to_be_sent() -> None:
    with pair() as (ours, other):
        ours.send("x" * 50_000)
        while not other._buffer:
            assert other.receive() == []  # a reader that has taken all there was goes with an end of file
        while ours.wants_write:
            ours.flush()
            if other.receive():
                break
        ours.send("late")
        other.receive()
        other.send("last words")
        other.close()

        with contextlib.suppress(ClosedError):
            ours.send("too late")
        assert ours.receive() == ["last words"]
        with pytest.raises(ClosedError):
            ours.receive()
