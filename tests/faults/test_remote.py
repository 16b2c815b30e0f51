"""Inbox or root on a network filesystem, by what a table of mounts says; no server is needed for that."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from obcd.coordinator import inbox_watch
from obcd.coordinator.disk_watch import BALLAST
from obcd.coordinator.inbox_watch import InboxWatch
from obcd.coordinator.loop_waits import Waker
from obcd.spool.folders.mounts import Mount
from tests.golden.wording import wording
from tests.support import (
    Cluster,
    Simulated,
    prompt_key,
    prompt_lines,
    prompts,
    run_obcd,
    wait_until,
    write_config,
)

#: The settling of network filesystems, so that the test does not take a minute; far more than the configuration's 0.2.
SETTLE = 3.0


class Code(str):
    """A tweak's value that is Python code."""

    __slots__ = ()
    __repr__ = str.__str__


def mounts_tweak(place: Path, kind: str) -> dict[str, float | str]:
    """Return the tweak by which psutil lists a root on ext4 and one mount more."""
    listed = f"namespace(mountpoint='/', fstype='ext4'), namespace(mountpoint={str(place)!r}, fstype={kind!r})"
    return {"psutil:disk_partitions": Code(f"lambda all, namespace=__import__('types').SimpleNamespace: [{listed}]")}


def refuse_to_look(folder: Path) -> None:
    raise AssertionError(f"{folder} was looked at, and its server may not answer")


@pytest.mark.case("A30")
@pytest.mark.integration
def test_file_on_a_share_is_taken_after_a_minute_and_one_with_a_marker_at_once(
    tmp_path: Path, quick_server: Simulated, cluster: Cluster
) -> None:
    # given an inbox on a share
    share = tmp_path / "share"
    share.mkdir()
    config = cluster.configure(quick_server.names, spool={"inbox": str(share)})
    tweaks: dict[str, float | str] = {
        **mounts_tweak(share, "nfs4"),
        "obcd.coordinator.inbox_watch:SETTLE_SECONDS": SETTLE,
        "obcd.coordinator.intake.drop_intake:SCAN_IDLE": 0.3,
    }
    coordinator = cluster.coordinate(config, tweaks=tweaks)
    plain, marked = prompts(3, "plain"), prompts(2, "marked")

    # when one file is copied there and one is submitted
    (share / "plain.jsonl").write_bytes(prompt_lines(plain))
    dropped_at = (share / "plain.jsonl").stat().st_mtime
    (tmp_path / "marked.jsonl").write_bytes(prompt_lines(marked))
    assert coordinator.obcd("submit", tmp_path / "marked.jsonl").returncode == 0

    # then the second does not wait, the first does, and all is said
    coordinator.published("marked").assert_complete(2)
    done = coordinator.published("plain")
    done.assert_complete(3)
    log = coordinator.text()
    assert log.index("marked.jsonl accepted") < log.index("plain.jsonl accepted")
    assert datetime.fromisoformat(done.manifest["times"]["accepted_at"]).timestamp() - dropped_at >= SETTLE
    assert quick_server.asked() == {prompt_key(prompt): 1 for prompt in (*plain, *marked)}
    assert log.count(wording("lies-on-nfs4-a-network-filesystem")) == 1
    assert "note: the inbox" in coordinator.obcd("status").stdout
    assert coordinator.status()["troubles"] == []


@pytest.mark.case("A30")
def test_share_is_not_watched_for_events_and_a_local_folder_in_its_place_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    found = [Mount("/", "ext4"), Mount(str(inbox), "cifs")]
    monkeypatch.setattr(inbox_watch, "list_mounts", lambda: found)
    made = InboxWatch([inbox], Waker())
    with monkeypatch.context() as patch:
        patch.setattr(inbox_watch, "_identity", refuse_to_look)
        made.ensure()
    assert (made.least_settle_seconds, made._observer) == (60.0, None)

    found.pop()  # it is unmounted
    made.ensure()
    (inbox / "a.jsonl").touch()

    wait_until(lambda: made.has_news)
    assert (made.least_settle_seconds, made.note) == (0.0, "")
    found.append(Mount(str(inbox), "cifs"))
    made.ensure()
    assert made._observer is None
    made.stop()


@pytest.mark.case("D10")
@pytest.mark.integration
def test_root_on_a_network_filesystem_is_warned_of_everywhere(
    tmp_path: Path, quick_server: Simulated, cluster: Cluster
) -> None:
    root = tmp_path / "root"
    tweaks = mounts_tweak(root, "nfs")
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config, root, tweaks=tweaks)
    place = ("--config", config, "--root", root)
    doubt = f"{root} is on nfs (mounted at {root}), a network filesystem: its locks and fsync cannot be relied on"

    checked = run_obcd(cluster.environment, "check", *place, tweaks=tweaks)

    assert wording("warning-use-a-local-folder", doubt) in coordinator.text()
    assert [text for text in coordinator.status()["troubles"] if text.startswith(doubt)]
    shown = (
        run_obcd(cluster.environment, "status", *place).stdout.replace("\n", "").replace(" ", "")
    )  # folded by the terminal
    assert f"trouble: {doubt}".replace(" ", "") in shown
    assert wording("fault-a-local-folder-as-root", doubt) in checked.stdout
    assert checked.returncode == 5


@pytest.mark.integration
def test_batch_into_a_network_filesystem_says_so(
    tmp_path: Path, quick_server: Simulated, environment: dict[str, str]
) -> None:
    config = write_config(tmp_path / "obcd.toml", quick_server.names)
    (tmp_path / "notes.jsonl").write_bytes(prompt_lines(prompts(2)))
    place = ("--config", config, "--prompts", tmp_path / "notes.jsonl", "--output-dir", tmp_path / "answers")

    done = run_obcd(environment, "batch", *place, tweaks=mounts_tweak(tmp_path, "nfs"))

    assert done.returncode == 0
    assert wording("warning-lies-on-nfs", tmp_path / "answers" / ".obcd") in done.stderr
    assert not (tmp_path / "answers" / ".obcd" / BALLAST).exists()
