"""The records of a namespace: written by number, and those of an earlier keeper are buried."""

from __future__ import annotations

import json
from pathlib import Path

from obcd.hosts.record import HostState
from obcd.ray.server_records import ServerRecords
from tests.support import wait_until


def states(folder: Path) -> dict[str, str]:
    return {path.name: json.loads(path.read_bytes())["state"] for path in folder.glob("*.json")}


def test_records_are_written_and_those_of_servers_that_are_not_there_are_gone(tmp_path: Path) -> None:
    earlier = ServerRecords(tmp_path, "ray-obcd-", "ray obcd n1")
    for number in (0, 1, 12):
        earlier.put(number, (HostState.SERVING, (), ()))
    earlier.finish()
    (tmp_path / "ray-other-1.json").write_text('{"state": "serving"}')

    later = ServerRecords(tmp_path, "ray-obcd-", "ray obcd n1")
    later.bury({1})
    wait_until(lambda: "serving" not in (states(tmp_path)["ray-obcd-0.json"], states(tmp_path)["ray-obcd-12.json"]))
    later.finish()

    assert states(tmp_path)["ray-obcd-1.json"] == "serving"
    assert states(tmp_path)["ray-other-1.json"] == "serving"


def test_a_folder_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    records = ServerRecords(tmp_path / "none", "ray-obcd-", "")
    records.bury(set())
    records.put(0, (HostState.SERVING, (), ()))
    records.finish()
