"""Answers of one submitter alone, answers that are deleted, drops that are not computed twice: by real processes."""

from __future__ import annotations

import codecs
import os
import shutil
from pathlib import Path

import pytest

import obcd.cli.files.verify
import obcd.cli.jobs.submit
import obcd.cli.jobs.wait  # noqa: F401 - to be there in a child that may not read this Python
from obcd.cli.main import run
from obcd.spool.folders import acl
from tests.faults.users import ALICE, GROUP, MALLORY, needs_root
from tests.golden.wording import wording
from tests.support import (
    Cluster,
    Published,
    Simulated,
    prompt_key,
    prompt_lines,
    prompts,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration

#: What the coordinator does now and then it does at once.
QUICK = {
    "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.1,
    "obcd.coordinator.jobs.retention_sweeps:FIRST_SECONDS": 0.0,
    "obcd.coordinator.jobs.retention_sweeps:SWEEP_SECONDS": 0.2,
}


@needs_root
@pytest.mark.case("F10")
@pytest.mark.parametrize("profile", ["", "clinical"])
def test_submitter_waits_for_answers_that_nobody_else_may_read(
    shared: Path, quick_server: Simulated, cluster: Cluster, profile: str
) -> None:
    config = write_config(
        shared / "obcd.toml", quick_server.names, spool={"per_user": True}, profiles={"clinical": {"num_predict": 9}}
    )
    root = shared / "root"
    for name, mode in (("", 0o755), ("inbox", 0o3730), ("outbox", 0o2750)):
        (root / name).mkdir()
        os.chown(root / name, 0, GROUP)
        (root / name).chmod(mode)
    coordinator = cluster.coordinate(config, root)
    source = shared / "notes.jsonl"
    source.write_bytes(prompt_lines(prompts(3)))
    words = ["submit", str(source), "--profile", profile, "--wait", "--timeout", "30"]
    words += ["--config", str(config), "--root", str(root)]
    for encoding in ("utf-8-sig", "unicode_escape"):
        codecs.lookup(encoding)

    code = ALICE.does(lambda: int(run(words)))

    assert code == "0", coordinator.text()
    folder = root / "outbox" / str(ALICE.uid) / profile / "notes"
    Published(folder).assert_complete(3)
    assert ALICE.does((folder / "responses.jsonl").read_bytes) == str((folder / "responses.jsonl").read_bytes())
    assert MALLORY.does((folder / "responses.jsonl").read_bytes) == "PermissionError"
    assert MALLORY.does(lambda: os.listdir(root / "outbox" / str(ALICE.uid))) == "PermissionError"
    assert ALICE.does(lambda: int(run(["verify", str(root / "outbox")]))) == "0"
    assert coordinator.status()["published"][0]["folder"] == str(folder)


@needs_root
@pytest.mark.case("F9")
def test_coordinator_does_not_start_on_an_inbox_whose_users_can_take_each_others_files(
    shared: Path, quick_server: Simulated, environment: dict[str, str]
) -> None:
    config = write_config(shared / "obcd.toml", quick_server.names)
    inbox = shared / "root" / "inbox"
    inbox.mkdir(parents=True)
    os.chown(inbox, 0, GROUP)
    inbox.chmod(0o2770)

    done = run_obcd(environment, "coordinator", "--config", config, "--root", shared / "root")

    assert done.returncode == 5
    (last,) = done.stderr.splitlines()[-1:]
    assert last == (wording("obcd-has-mode-2770-its-users", inbox, inbox))


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o3730])
def test_coordinator_starts_on_a_private_inbox_and_on_a_right_one(
    tmp_path: Path, quick_server: Simulated, cluster: Cluster, mode: int
) -> None:
    inbox = tmp_path / "root" / "inbox"
    inbox.mkdir(parents=True)
    inbox.chmod(mode)
    coordinator = cluster.coordinate(cluster.configure(quick_server.names))

    coordinator.drop(prompts(1))

    coordinator.published().assert_complete(1)


def test_repeated_drop_is_answered_by_a_pointer_and_asked_nothing(
    tmp_path: Path, quick_server: Simulated, cluster: Cluster
) -> None:
    config = cluster.configure(quick_server.names, repeat="skip")
    coordinator = cluster.coordinate(config)
    source = tmp_path / "notes.jsonl"
    source.write_bytes(prompt_lines(prompts(2)) + b"bad\n")
    words = ("submit", source, "--wait", "--timeout", 30, "--config", config, "--root", coordinator.root)
    first = run_obcd(cluster.environment, *words)
    shutil.rmtree(coordinator.outbox / "notes")  # its consumer took it away

    second = run_obcd(cluster.environment, *words)

    assert (first.returncode, second.returncode) == (3, 3)  # a line failed, then as now
    assert second.stderr.startswith(wording("notes-jsonl-was-answered-before-2"))
    assert [path.name for path in coordinator.outbox.iterdir()] == ["notes.repeated"]
    assert quick_server.asked() == {prompt_key(prompt): 1 for prompt in prompts(2)}
    assert coordinator.text().count(wording("was-answered-before-as-job")) == 1
    verified = run_obcd(cluster.environment, "verify", coordinator.outbox)
    assert verified.stdout.startswith(wording("notes-repeated-answered-before-by-job"))


@pytest.mark.case("F20")
def test_answers_are_deleted_in_their_time_and_the_log_names_them(quick_server: Simulated, cluster: Cluster) -> None:
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config, tweaks=QUICK)
    (coordinator.outbox / ".swept-job0-12345678").mkdir()
    coordinator.drop(prompts(2))
    job = coordinator.published().manifest["job"]
    hidden = coordinator.outbox / ".swept-job0-12345678"
    wait_until(lambda: not hidden.exists(), what="what a crash left hidden is deleted")
    assert (coordinator.outbox / "notes").exists()

    write_config(config, quick_server.names, spool={"keep_days": 0.000001})
    reloaded = coordinator.obcd("reload")

    assert "spool.keep_days changed" in reloaded.stdout + reloaded.stderr
    wait_until(lambda: not list(coordinator.outbox.iterdir()), what=coordinator.text)
    wait_until(lambda: f"job {job} deleted after keep_days" in coordinator.text())
    assert "prompt number" not in coordinator.text()


def test_keeping_answers_apart_needs_a_restart_and_says_so(
    tmp_path: Path, quick_server: Simulated, cluster: Cluster
) -> None:
    if not acl.has_acls(tmp_path):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config)
    write_config(config, quick_server.names, spool={"per_user": True})

    reloaded = coordinator.obcd("reload")

    assert reloaded.returncode == 4
    assert wording("spool-per-user-cannot-change-while") in reloaded.stderr
