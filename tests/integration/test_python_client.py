"""`import obcd` against a real coordinator: answers, and a kernel that is killed at random and run again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import obcd
from obcd.client import batching
from obcd.client.watching import progress
from obcd.errors import KeyConflict, NoEndpointError
from obcd.spool.folders import acl
from tests.faults.users import ALICE, GROUP, MALLORY, User, make_shared_root, needs_root
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Running,
    Simulated,
    prompt_key,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration

#: A cell of a notebook, with its kernel: it says when it has begun, and writes what it got.
KERNEL = """
import json, sys
import obcd
obcd.ask, obcd.batch
rows = ({{"n": number}} for number in range({rows}))
open({began!r}, "w").close()
answers = {call}
open({result!r}, "w").write(json.dumps(answers))
"""
ROWS = 60


@pytest.fixture
def coordinator(cluster: Cluster, quick_server: Simulated, monkeypatch: pytest.MonkeyPatch) -> CoordinatorProcess:
    """Return a coordinator; this process finds its spool as a user's program would."""
    running = cluster.coordinate(cluster.configure(quick_server.names), tweaks=NEVER_HEDGED)
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("XDG_STATE_HOME", str(cluster.folder / "state"))
    monkeypatch.setenv("OBCD_ROOT", str(running.root))
    monkeypatch.delenv("OBCD_CONFIG", raising=False)
    return running


def test_rows_are_answered_by_a_daemon_and_progress_is_seen(coordinator: CoordinatorProcess) -> None:
    job = obcd.submit(
        ({"place": number, "note": f"note {number}"} for number in range(40)),
        "Summarise: {note}", key="notes", keep=["place"], options={"num_predict": 16},
    )  # fmt: skip
    seen = set()
    while not job.status.is_finished:
        seen.add(job.status.state)
        time.sleep(0.02)

    answers = list(job.wait().results())
    assert [answer.extra["place"] for answer in answers] == list(range(40))
    assert all(answer.response and answer.eval_tokens <= 16 and answer.endpoint for answer in answers)
    assert seen <= {"WAITING", "ACCEPTED", "RUNNING", "COMPLETE"}
    with pytest.raises(KeyConflict):
        obcd.submit(["other"], key="notes")


def test_job_is_cancelled_and_the_rest_is_retried(coordinator: CoordinatorProcess, quick_server: Simulated) -> None:
    job = obcd.submit([f"prompt {number}" for number in range(300)], key="long")
    wait_until(lambda: job.status.done > 3)

    job.cancel()

    failed = len(job.wait().failures())
    assert 0 < failed < 300
    assert job.status.failed == failed
    job.retry().wait()
    assert [answer.row for answer in job.results()] == list(range(300))
    assert quick_server.asked().total() - 300 <= 4  # those in flight at the end


def run_kernel(cluster: Cluster, script: str, environment: dict[str, str], number: int) -> Running:
    return Running([sys.executable, "-c", script], environment, cluster.folder / f"kernel{number}.log", cluster.folder)


def kill_and_run_again(cluster: Cluster, call: str, kills: int, environment: dict[str, str]) -> list[str]:
    """Run a cell, kill its kernel at random, run it again …, and return what the last kernel got."""
    chance, result, began = random.Random(7), cluster.folder / "result.json", cluster.folder / "began"
    script = KERNEL.format(rows=ROWS, call=call, result=str(result), began=str(began))
    for number in range(kills):
        began.unlink(missing_ok=True)
        kernel = run_kernel(cluster, script, environment, number)
        try:
            wait_until(began.exists, what=kernel.text)
            time.sleep(chance.random() ** 2 * 0.5)
        finally:
            kernel.kill()
    kernel = run_kernel(cluster, script, environment, kills)
    try:
        assert kernel.wait() == 0, kernel.text()
    finally:
        kernel.kill()
    found: list[str] = json.loads(result.read_text())
    return found


KILLS = [5, pytest.param(50, marks=pytest.mark.soak)]


@pytest.mark.parametrize("kills", KILLS)
def test_kernel_killed_and_run_again_sends_nothing_twice(
    coordinator: CoordinatorProcess, cluster: Cluster, quick_server: Simulated, kills: int
) -> None:
    environment = {
        **cluster.environment,
        "OBCD_ROOT": str(coordinator.root),
        "XDG_STATE_HOME": str(cluster.folder / "state"),
    }

    answers = kill_and_run_again(cluster, "obcd.ask(rows, 'prompt number {n}')", kills, environment)

    assert len(answers) == ROWS
    assert all(answers)
    assert quick_server.asked() == Counter({prompt_key(f"prompt number {number}"): 1 for number in range(ROWS)})
    assert len(list(coordinator.outbox.glob("*/manifest.json"))) == 1
    assert [path.name for path in coordinator.inbox.iterdir() if not path.name.startswith(".obcd")] == []


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.soak)])
def test_kernel_of_a_batch_killed_and_run_again_sends_only_what_was_in_flight_again(
    cluster: Cluster, quick_server: Simulated, kills: int
) -> None:
    config = cluster.configure(quick_server.names)
    environment = {**cluster.environment, "OBCD_CONFIG": str(config)}

    answers = kill_and_run_again(
        cluster, "obcd.ask(rows, 'prompt number {n}', daemon=False, output='answers')", kills, environment
    )

    assert len(answers) == ROWS
    assert all(answers)
    asked = quick_server.asked()
    assert len(asked) == ROWS
    assert asked.total() - ROWS <= 2 * kills  # the slots of the endpoint, at each kill
    assert len(list((cluster.folder / "answers").glob("*/manifest.json"))) == 1
    assert list((cluster.folder / "answers" / ".obcd" / "rows").iterdir()) == []


@needs_root
@pytest.mark.parametrize("per_user", [False, True], ids=["for the group", "per user"])
def test_users_of_the_same_key_get_their_own_answers_or_one_sentence(
    shared: Path, quick_server: Simulated, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *, per_user: bool
) -> None:
    if not acl.has_acls(shared):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    root = make_shared_root(shared)
    config = write_config(shared / "obcd.toml", quick_server.names, spool={"per_user": per_user})
    cluster.coordinate(config, root)
    wait_until((root / "jobs").exists)
    for folder in (root, root / "inbox", root / "outbox"):
        os.chown(folder, -1, GROUP)
    monkeypatch.setenv("OBCD_CONFIG", str(config))
    monkeypatch.setenv("OBCD_ROOT", str(root))

    def ask(user: int) -> str:
        home = shared / str(user)
        os.environ.update(HOME=str(home), XDG_STATE_HOME=str(home / "state"))
        obcd.ask([f"{user} {number}" for number in range(3)], key="notes")
        return str([answer.prompt for answer in obcd.attach("notes").results()])

    # root first: others may not import from everywhere
    users = [User(os.geteuid()), ALICE, MALLORY]
    for user in users:
        (shared / str(user.uid)).mkdir()
        os.chown(shared / str(user.uid), user.uid, -1)
        answered = ask(user.uid) if user is users[0] else user.does(partial(ask, user.uid))
        is_free = per_user or user is users[0]  # the group has one outbox, and names in it are of the first
        assert answered == (str([f"{user.uid} {number}" for number in range(3)]) if is_free else "InputError")
    assert quick_server.asked().total() == (9 if per_user else 3)


def test_batch_returns_what_is_there_and_refuses_other_content(cluster: Cluster, quick_server: Simulated) -> None:
    config, output = cluster.configure(quick_server.names), cluster.folder / "answers"
    rows = [{"note": word} for word in ("a", "b")]

    first = obcd.batch(rows, "Read: {note}", key="notes", config=config, output=output)
    again = obcd.batch(rows, "Read: {note}", key="notes", config=config, output=output)

    assert [answer.response for answer in first.results()] == [answer.response for answer in again.results()]
    assert quick_server.asked().total() == 2
    with pytest.raises(KeyConflict):
        obcd.batch(rows[:1], "Read: {note}", key="notes", config=config, output=output)


def test_batch_shows_how_far_it_is(
    cluster: Cluster, quick_server: Simulated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(batching, "LOOK_SECONDS", 0.05)
    config = cluster.configure(quick_server.names)

    obcd.batch(map(str, range(600)), config=config, output=cluster.folder / "answers", key="notes", progress=True)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "notes: starting"
    assert any(re.fullmatch(r"notes: [1-9]\d*/600, 0 failed, .*", line) for line in lines)


def test_batch_without_an_endpoint_raises_its_sentence(cluster: Cluster) -> None:
    config = cluster.configure(["127.0.0.1:9"])

    with pytest.raises(NoEndpointError, match="start Ollama"):
        obcd.batch(["a"], config=config, output=cluster.folder / "answers")


def test_import_is_quick_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, time\nbegan = time.process_time()\nimport obcd\nspent = time.process_time() - began\n"
        "print(spent, sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))\n"
        "obcd.submit, obcd.ask\n"
        "print([name for name in ('pandas', 'polars', 'pyarrow', 'IPython', 'rich') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, heavy = done.stdout.splitlines()
    spent, _, modules = first.partition(" ")

    assert float(spent) < 0.06
    assert not {"pydantic", "click", "numpy", "requests"} & set(json.loads(modules.replace("'", '"')))
    assert heavy == "[]"


def test_signal_handlers_of_the_program_stay_as_they_are(coordinator: CoordinatorProcess) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    obcd.ask(["a"])

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
