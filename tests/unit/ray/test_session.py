"""What the session reads before it asks Ray: the coordinator's status, and whether a head listens."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.view import JobView, View
from obcd.hosts.record import HostState
from obcd.ray import cluster
from obcd.ray.cluster import Silence
from obcd.ray.messages import DrainCause, GuardState
from obcd.ray.server_records import GONE
from obcd.ray.session import Ending, Order, check_reachable, read_waiting
from tests.unit.ray.test_keeper import TableRay, TableRecords

VIEW = View(
    version="1", pid=1, root="/r", inbox="/i", outbox="/o", state="READY", updated=1000.0, updated_at="",
    jobs=(JobView(job="j", name="n", profile="", state="RUNNING", total=30, done=9),),
)  # fmt: skip


def test_waiting_requests_are_those_of_a_fresh_status(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps(VIEW.to_json()))

    assert read_waiting(path, lambda: 1005.0) == 21
    assert read_waiting(path, lambda: 1011.0) is None


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"version": 7}'])
def test_a_status_that_cannot_be_read_says_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "status.json"
    if content is not None:
        path.write_bytes(content)

    assert read_waiting(path, lambda: 0.0) is None


def test_an_address_where_nothing_listens_is_found_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_reachable(f"127.0.0.1:{port}")
    with pytest.raises(ConnectionError):
        check_reachable(f"127.0.0.1:{port}")


def test_what_is_no_host_and_port_is_left_to_ray() -> None:
    check_reachable("auto")
    check_reachable("")


def test_the_end_drains_what_answers_and_ends_what_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.01)
    ray, records = TableRay(3), TableRecords()
    ray.actors[2] = None
    ending = Ending(Order(do="end", address="auto", namespace="obcd", drain_seconds=600.0), ray, records)

    ending.begin({0, 1, 2})

    assert (ray.ended, ending.left, ray.wanted) == ([2], {0, 1}, [0])
    assert ray.drained == [(0, 600.0, "down"), (1, 600.0, "down")]
    for number in (0, 1):
        ray.actors[number] = replace(ray.serving(number), state=GuardState.DRAINING, cause=DrainCause.DOWN)
    ending.tick(0.0)
    assert records.urls(HostState.DRAINING) == ["http://10.0.0.11:11432", "http://10.0.0.11:11433"]
    ray.actors[0] = replace(ray.serving(0), state=GuardState.ENDED, cause=DrainCause.DOWN)
    ray.actors[1] = Silence(is_dead=True)
    ending.tick(0.0)
    assert ending.left == set()
    assert ending.finish() == 0
    assert list(records.shown.values()) == [GONE, GONE, GONE]


def test_what_has_not_drained_in_time_is_cut_off() -> None:
    ray = TableRay(2)
    ending = Ending(Order(do="end", address="auto", namespace="obcd"), ray, None)
    ending.begin({0, 1})
    ending.tick(0.0)

    assert ending.finish() == 2
    assert ray.ended == [0, 1]
