"""A coordinator, clerk or worker that gets no more descriptors or memory: it loses nothing and goes on."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from obcd.results.verify import Verdict, verify
from tests.faults.starving import starve
from tests.golden.wording import wording
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Simulated,
    prompt_key,
    prompts,
    wait_until,
)

pytestmark = pytest.mark.integration

QUICK: dict[str, float | str] = {
    "obcd.coordinator.jobs.recorder:RETRY_SECONDS": 0.1, "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.3,
    "obcd.coordinator.intake.drop_intake:HOLD_SECONDS": 0.3, "obcd.coordinator.intake.drop_intake:DISK_SECONDS": 0.3,
    "obcd.coordinator.intake.drop_intake:SCAN_IDLE": 0.3, "obcd.workers.pool:RESTART_LIMIT": 0.3,
    "obcd.workers.pool:REFUSED_SECONDS": 0.2, "obcd.coordinator.clerk.clerk_process:REFUSED_SECONDS": 0.2,
}  # fmt: skip
FILES, MEMORY = resource.RLIMIT_NOFILE, resource.RLIMIT_AS


@pytest.fixture
def server(cluster: Cluster) -> Simulated:
    return cluster.simulate("--parallel", 4, "--seconds", 0.3)


def limit(pid: int, kind: int, soft: int) -> tuple[int, int]:
    """Give a process less from now on; return what it had."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (soft, before[1]))
    return before


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def clerks(coordinator: CoordinatorProcess) -> dict[str, int]:
    return {name: pid for name, pid in coordinator.status()["processes"].items() if name.startswith("clerk") and pid}


def assert_whole(coordinator: CoordinatorProcess, server: Simulated, drops: dict[str, list[str]], again: int) -> None:
    """Hold the promises against what is there, once all is published; at most `again` requests were asked again."""
    for stem in drops:
        folder = coordinator.published(stem)
        assert folder.errors == []
        assert verify(stem, folder.folder).verdict is Verdict.COMPLETE
    asked = server.asked()
    owed = {prompt_key(prompt) for items in drops.values() for prompt in items}
    assert set(asked) == owed
    assert sum(asked.values()) <= len(owed) + again
    wait_until(lambda: set(os.listdir(coordinator.outbox)) == set(drops), what="no sign is left")
    assert os.listdir(coordinator.jobs) == os.listdir(coordinator.inbox / ".obcd" / "claim") == []
    assert not any(prompt in coordinator.text() for items in drops.values() for prompt in items)


@pytest.mark.case("D13")
@pytest.mark.parametrize("spare", [0, 1, 3])
def test_coordinator_without_descriptors_says_so_loses_nothing_and_goes_on(
    server: Simulated, cluster: Cluster, spare: int
) -> None:
    # given a job that runs
    drops = {"first": prompts(12, "first"), "second": prompts(4, "second")}
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 4}), tweaks=QUICK)
    coordinator.drop(drops["first"], "first.jsonl")
    wait_until(lambda: server.in_flight() == 4)

    # when it gets hardly any more, a worker is killed, and another file comes
    before = limit(coordinator.pid, FILES, descriptors(coordinator.pid) + spare)
    os.kill(coordinator.worker_pids()[server.names[0]], 9)
    coordinator.drop(drops["second"], "second.jsonl")
    wait_until(lambda: "worker of" in coordinator.text())
    if spare < 2:
        wait_until(lambda: "Too many open files" in coordinator.text(), what=coordinator.text)

    # then all goes on when there are some
    resource.prlimit(coordinator.pid, FILES, before)
    assert_whole(coordinator, server, drops, again=4)
    assert coordinator.process.poll() is None


@pytest.mark.case("D13")
def test_forty_descriptors_are_enough_for_a_small_cluster(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.05, count=4)
    coordinator = cluster.coordinate(
        cluster.configure(dict.fromkeys(server.names, 4)), tweaks={**QUICK, **NEVER_HEDGED}
    )
    resource.prlimit(coordinator.pid, FILES, (40, 40))
    drops = {f"job{number}": prompts(20, f"job{number}") for number in range(10)}

    for stem, items in drops.items():
        coordinator.drop(items, f"{stem}.jsonl")

    for stem in drops:
        coordinator.published(stem).assert_complete(20)
    assert set(server.asked().values()) == {1}


@pytest.mark.case("D14")
def test_worker_without_memory_is_replaced_and_what_it_had_is_asked_again(server: Simulated, cluster: Cluster) -> None:
    drops = {"notes": prompts(24)}
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 4}), tweaks=QUICK)
    coordinator.drop(drops["notes"], "notes.jsonl")
    wait_until(lambda: server.in_flight() == 4)
    pid = coordinator.worker_pids()[server.names[0]]

    limit(pid, MEMORY, 2**20)  # less than it has: it gets no page more

    assert_whole(coordinator, server, drops, again=12)


@pytest.mark.case("D14")
def test_clerk_without_memory_is_replaced_and_its_file_is_accepted(server: Simulated, cluster: Cluster) -> None:
    drops = {"first": prompts(4, "first"), "second": prompts(4, "second")}
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 4}), tweaks=QUICK)
    coordinator.drop(drops["first"], "first.jsonl")
    coordinator.published("first").assert_complete(4)

    for pid in clerks(coordinator).values():
        limit(pid, MEMORY, 2**20)
    coordinator.drop(drops["second"], "second.jsonl")

    assert_whole(coordinator, server, drops, again=0)


@pytest.mark.case("D14")
def test_coordinator_without_memory_ends_and_the_next_one_goes_on(server: Simulated, cluster: Cluster) -> None:
    drops = {"first": prompts(20, "first")}
    config = cluster.configure({server.names[0]: 4})
    coordinator = cluster.coordinate(config, tweaks=QUICK)
    coordinator.drop(drops["first"], "first.jsonl")
    wait_until(lambda: server.in_flight() == 4)

    limit(coordinator.pid, MEMORY, 2**20)
    try:
        code = coordinator.wait(4)
    except Exception:  # noqa: BLE001 - it got along with what it had
        coordinator.kill()
    else:
        assert code != 0

    assert_whole(cluster.coordinate(config, tweaks=QUICK), server, drops, again=8)


# --- file events -----------------------------------------------------------------------------------------------------


@pytest.mark.case("A29")
def test_without_an_inotify_instance_the_inbox_is_scanned_until_there_is_one(
    tmp_path: Path, quick_server: Simulated, cluster: Cluster
) -> None:
    # given a user who has used up all instances
    config, release = cluster.configure(quick_server.names), tmp_path / "release"
    coordinator = cluster.coordinate(config, tweaks=QUICK, wrapper=starve("max_inotify_instances", 2, release))

    # then files are answered all the same, and a note says what to do
    coordinator.drop(prompts(4), "notes.jsonl")
    coordinator.published("notes").assert_complete(4)
    (note,) = coordinator.status()["notes"]
    assert "fs.inotify.max_user_instances" in note
    assert wording("sudo-sysctl-fs-inotify-max-user") in note
    assert coordinator.status()["troubles"] == []
    shown = coordinator.obcd("status").stdout
    assert wording("note-no-file-events") in shown
    assert coordinator.text().count(wording("no-file-events")) == 1

    # when some are free again, then there are events again
    release.touch()
    wait_until(lambda: coordinator.status()["notes"] == [])


#: Looks five times, and prints the descriptors and threads that it has after each look.
LOOK = """
import os, sys, threading
from pathlib import Path
from obcd.coordinator.inbox_watch import InboxWatch
from obcd.coordinator.loop_waits import Waker
watch = InboxWatch([Path(sys.argv[1])], Waker())
for _ in range(5):
    watch.ensure()
    print(len(os.listdir("/proc/self/fd")), threading.active_count(), "max_user_watches" in watch.note)
"""


@pytest.mark.case("A29")
def test_watch_that_is_refused_keeps_no_descriptor_and_no_thread(tmp_path: Path, environment: dict[str, str]) -> None:
    wrapper = starve("max_inotify_watches", 0, tmp_path / "release")

    done = subprocess.run(
        [*wrapper, sys.executable, "-c", LOOK, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    looks = done.stdout.splitlines()
    assert len(looks) == 5
    assert set(looks) == {looks[0]}, looks
    assert looks[0].endswith("1 True")


@pytest.mark.case("A29")
@pytest.mark.parametrize("spare", range(5))
def test_watch_takes_no_descriptor_where_there_are_too_few(
    tmp_path: Path, environment: dict[str, str], spare: int
) -> None:
    script = LOOK.replace("for _", f"""
import resource
count = len(os.listdir("/proc/self/fd")) - 1
resource.setrlimit(resource.RLIMIT_NOFILE, (count + {spare}, count + {spare}))
os.listdir = lambda _: [name for name in range(count + 9) if os.path.exists(f"/proc/self/fd/{{name}}")]
for _""")  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    looks = done.stdout.splitlines()
    assert set(looks) == {looks[0]}, looks
    assert looks[0].split()[1] == "1" if spare < 3 else "3"
