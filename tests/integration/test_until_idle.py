"""A coordinator that ends by itself, and the status that it shares with other machines from inside a Slurm job."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.cli.common import is_running, read_status
from obcd.coordinator.daemon import UntilIdle
from obcd.errors import ExitCode
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from tests.support import Cluster, Published, Simulated, prompt_lines, prompts, run_here, wait_until


@pytest.mark.integration
def test_what_lies_in_the_inbox_is_answered_and_then_the_coordinator_ends(
    cluster: Cluster, quick_server: Simulated
) -> None:
    config = cluster.configure({quick_server.names[0]: 4})
    root = cluster.folder / "root"
    (root / "inbox").mkdir(parents=True)
    (root / "inbox" / "early.jsonl").write_bytes(prompt_lines(prompts(20)))
    cluster.environment["SLURM_JOB_ID"] = "4711"

    process = cluster.begin("coordinator", "--config", config, "--root", root, "--until-idle", 2)
    wait_until((root / "status.json").exists, what=process.text)
    elsewhere = {**cluster.environment, "XDG_RUNTIME_DIR": "/var/empty", "TMPDIR": str(cluster.folder / "tmp")}
    seen = run_here(elsewhere, "status", "--root", root)  # another machine has another runtime folder

    assert process.wait() == ExitCode.DONE, process.text()
    assert seen.returncode == ExitCode.DONE, seen.stderr
    Published(root / "outbox" / "early").assert_complete(20)
    assert not (root / "status.json").exists()


class Resting:
    """A coordinator that is at rest or not."""

    is_at_rest = True


def test_the_time_begins_again_with_each_piece_of_work() -> None:
    coordinator = Resting()
    until = UntilIdle(coordinator, 10.0)  # type: ignore[arg-type]

    assert not until(100.0)
    assert not until(109.9)
    coordinator.is_at_rest = False
    assert not until(110.0)
    coordinator.is_at_rest = True
    assert not until(115.0)
    assert not until(124.9)
    assert until(125.0)


def test_the_newest_of_two_statuses_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    layout = Layout.at(tmp_path / "root")
    layout.status.parent.mkdir()
    layout.root.mkdir()
    assert not is_running(layout)

    disk.show_json(layout.status, {"updated": 100.0, "pid": 1})
    assert read_status(layout)["pid"] == 1
    disk.show_json(layout.shared_status, {"updated": 200.0, "pid": 2})
    assert read_status(layout)["pid"] == 2
    disk.show_json(layout.status, {"updated": 300.0, "pid": 3})
    assert read_status(layout)["pid"] == 3
    layout.shared_status.write_text("{", "utf-8")
    assert read_status(layout)["pid"] == 3
