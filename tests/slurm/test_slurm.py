"""obcd on a real Slurm: the walk of the manual, a day of a shared cluster, and cards that belong to somebody else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.acceptance.shell_blocks import read_blocks
from tests.slurm.cluster import SlurmCluster, node_card, slurm_here, why_no_slurm
from tests.slurm.story import SIMULATE, SLOTS, Site, run_story
from tests.support import SOURCES, all_gone, wait_until

pytestmark = [pytest.mark.acceptance, pytest.mark.engine]

PAGE = SOURCES / "etc" / "manual" / "on-slurm.md"
#: The cards of a task of the story.
CARDS = 2


@pytest.fixture
def cluster() -> Iterator[SlurmCluster]:
    reason = why_no_slurm()
    if reason and os.environ.get("OBCD_ENGINES") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with slurm_here(SIMULATE) as made:
        yield made


def test_the_blocks_of_the_page_run_one_after_the_other(cluster: SlurmCluster) -> None:
    blocks = [block for block in read_blocks(PAGE) if block.tag == "slurm"]
    (cluster.home / "accounts").mkdir()
    script = "set -e\n" + "".join(f"echo '== {block.place}' >&2\n{block.text}" for block in blocks)

    done = cluster.run("bash", "-c", script, check=False, timeout=240)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{cluster.logs()}"
    assert [line for line in done.stderr.splitlines() if line.startswith("== ")] == [
        f"== {block.place}" for block in blocks
    ]
    assert set(cluster.states(1).values()) == {"COMPLETED"}
    records = [path.read_text() for path in (cluster.home / "obcd" / "hosts").glob("*.json")]
    assert len(records) == 5
    assert all('"state": "gone"' in record for record in records)


def test_requeue_power_cut_and_time_limit_lose_nothing(cluster: SlurmCluster) -> None:
    requests = 2000

    figures = run_story(cluster, requests)

    assert len(figures.answered) == requests
    assert set(figures.answered.values()) == {1}
    # a requeued task and a node without power lose what was in flight, with the eighth more that lies ready; the task
    # at its time limit loses nothing
    assert figures.arrivals - requests <= 2 * CARDS * (SLOTS + 1)
    assert figures.ratio < 2  # `make bench` measures it: here other tests may run beside


def test_two_jobs_of_a_node_never_have_the_same_card(cluster: SlurmCluster) -> None:
    site = Site(cluster)
    cluster.run("sbatch", "--nodelist=n1", "--gres=gpu:1", "--output=/dev/null", "--wrap", "sleep 600")
    wait_until(lambda: "RUNNING" in cluster.states(1).values(), what=cluster.logs)
    site.submit("--tasks", 3, "--sbatch", "nodelist=n1", "--sbatch", "time=10")

    wait_until(lambda: sum(map(len, site.serving().values())) == 3, what=site.log)
    found = sorted(item["gpu_uuid"] for record in site.records().values() for item in record["endpoints"])  # type: ignore[attr-defined]
    assert found == [node_card("n1", index) for index in (1, 2, 3)]
    refused = cluster.run("srun", "--nodelist=n2", "obcd", "host", "--register", site.folder / "hosts", check=False)
    assert refused.returncode == 6
    assert "Slurm gave this process no card" in refused.stderr

    cluster.run("obcd", "slurm", "cancel")
    wait_until(lambda: not site.serving(), what=site.log)


def test_nothing_is_left_of_a_cluster() -> None:
    if reason := why_no_slurm():
        pytest.skip(reason)
    with slurm_here() as made:
        found = made.processes()
        folder = made.folder

    assert len(found) > 10
    assert all_gone([process.pid for process in found])
    assert not folder.exists()
