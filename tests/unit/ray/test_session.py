"""What the session reads before it asks Ray: the coordinator's status, and whether a head listens."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from obcd.coordinator.view import JobView, View
from obcd.ray.session import check_reachable, read_waiting

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
