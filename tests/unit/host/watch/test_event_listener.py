from __future__ import annotations

import pytest

from obcd.host.watch.event_listener import Event, ProtocolError, SupervisorEvents

TICK = b"ver:3.0 server:supervisor serial:7 pool:watch poolserial:7 eventname:TICK_5 len:15\nwhen:1795370000"
EXITED = (
    b"ver:3.0 server:supervisor serial:8 pool:watch poolserial:8 eventname:PROCESS_STATE_EXITED len:71\n"
    b"processname:gpu0 groupname:gpu0 from_state:RUNNING expected:0 pid:2766 x"
)[:-1]


def answering() -> tuple[SupervisorEvents, list[bytes]]:
    sent: list[bytes] = []
    return SupervisorEvents(sent.append), sent


def test_it_says_that_it_is_ready_before_anything_else() -> None:
    events, sent = answering()
    events.start()
    assert sent == [b"READY\n"]


@pytest.mark.parametrize("size", [1, 2, 7, 50, 1000])
def test_events_come_whole_and_in_order_whatever_the_pieces(size: int) -> None:
    events, sent = answering()
    stream = TICK + EXITED + TICK
    found = [event for start in range(0, len(stream), size) for event in events.feed(stream[start : start + size])]
    tick = Event("TICK_5")
    assert found == [tick, Event("PROCESS_STATE_EXITED"), tick]
    assert sent == [b"RESULT 2\nOKREADY\n"] * 3


def test_an_event_is_answered_when_it_is_complete_and_not_before() -> None:
    events, sent = answering()
    assert events.feed(TICK[:-1]) == []
    assert sent == []
    events.feed(TICK[-1:])
    assert len(sent) == 1


@pytest.mark.parametrize("data", [b"hello\n", b"eventname:TICK_5 len:x\n", b"x" * (2**20 + 1)])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    events, _ = answering()
    with pytest.raises(ProtocolError):
        events.feed(data)
