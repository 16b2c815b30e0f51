"""The keys of every JSON file and line that obcd writes, from real processes: a coordinator, and a host of GPUs.

What the bytes of `test_data.py` and `test_documents.py` hold already is not here a second time. Values that are there
now and then only (texts of trouble, say) are passed over.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import ExitCode
from tests.golden import drops
from tests.golden.golden import FOLDER, IS_WRITING, compare, copy, fail, load, store
from tests.golden.shapes import shape
from tests.golden.steps import begin_in_vain, lay_control, obcd, open_spool, write_files
from tests.gpu_support import StandIns, cards, free_base
from tests.support import Cluster, CoordinatorProcess, Running, obcd_command, wait_until

GOLDEN = "json_keys.json"
#: {part of a document's name: places of objects whose keys are names}
FREE = {
    "manifest.json": ("endpoints", "digests", "outputs", "settings.aliases", "input.unobeyed"),
    "job.json": ("unobeyed", "settings.aliases"),
    "status.json": ("processes",),
    "cache stats": ("models",),
    "verify": ("by_retries",),
    "watch.json": ("cards", "servers"),
    "plan.json": ("servers[].variables",),
    "burn-in": ("left_out",),
    "bench": ("left_out",),
    "installed.json": ("files",),
}
#: What is null, or a number, by how long things took.
NULLABLE = frozenset(
    (
        "eta_seconds",
        "speedup",
        "late_share",
        "differing_rate",
        "unsteady_rate",
        "server_slots",
        "healthy_since",
        "refused_since",
        "ending_since",
        "stopped_since",
        "pause",
        "start_pause",
        "next_restart_at",
        "next_start_at",
    )
)
#: {part of a document's name: places below which is now this, now that}
PASSED = {
    "burn-in": ("odd",),
    "status.json": (
        "settling",
        "notes",
        "troubles",
        "endpoints[].left_out",
        "endpoints[].models",
        "endpoints[].digests",
        "jobs[].failed_by_class",
        "counters.failures",
        "counters.retries",
        "counters.models",
        "paces",
    ),
    "progress.json": ("failed_by_class",),
}

#: The wait for a slot of the server. A failure that kept a reply has it only where it is not nought.
WAIT = "wait_seconds"


class Keys:
    """The shapes of documents, by what they are; compared with the golden ones at the end."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, str]] = {}

    def add(self, name: str, *documents: Any) -> None:
        assert documents, f"there is no {name}"
        rules = [
            [place for part, places in table.items() if part in name for place in places] for table in (FREE, PASSED)
        ]
        found = shape(documents, *rules)
        self.found[name] = {
            place: _settled(place, kind) for place, kind in found.items() if not _is_wait_of_failure(place, found)
        }

    def add_lines(self, name: str, content: bytes | str) -> None:
        self.add(name, *map(json.loads, content.splitlines()))

    def add_files(self, name: str, files: Iterable[Path]) -> None:
        self.add(name, *(json.loads(path.read_bytes()) for path in files))

    def assert_golden(self, part: str) -> None:
        """Compare with this part of the golden file, or write it."""
        if IS_WRITING:
            store(GOLDEN, dict(sorted({**load(GOLDEN), part: self.found}.items())))
        differences = compare(load(GOLDEN).get(part, {}), self.found)
        if differences:
            fail(f"{GOLDEN}: {part}", differences)


def _is_wait_of_failure(place: str, found: dict[str, str]) -> bool:
    above = place.removesuffix(WAIT)
    return above != place and f"{above}seconds" in found and f"{above}load_seconds" not in found


def _settled(place: str, kind: str) -> str:
    return "number or null" if place.rpartition(".")[2] in NULLABLE else kind


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def say(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return what runs a command line in this process and returns what it prints."""
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, environment[name])

    def run(*arguments: object) -> str:
        capsys.readouterr()
        code = obcd(*arguments)
        printed = capsys.readouterr()
        assert code not in (ExitCode.BUG, ExitCode.USAGE, ExitCode.CONFIGURATION), printed.err
        return printed.out

    return run


#: Lines that wait for a model which has to be fetched: the jobs that they are in do not end by themselves.
WAITING = drops.lines({"id": "waits", "prompt": "Wait.", "model": "mistral", "temperature": 0.5})
WAITING_CHAT = drops.lines(drops.chat("waits", "Wait.", model="mistral"))


#: What is looked at in the outbox: others there are like one of these.
PUBLISHED = (
    "mixed", "asked", "visits/visits", "notes.retry", "remembered/second", "fetched/fetched", "broken.rejected",
    "nightly/again.repeated",
)  # fmt: skip


@pytest.mark.integration
def test_keys_of_what_a_coordinator_writes(
    tmp_path: Path, cluster: Cluster, say: Callable[..., str], keys: Keys
) -> None:
    account = tmp_path / "account.jsonl"
    server = cluster.simulate(
        "--parallel", 4, "--seconds", 0.01, "--load-seconds", 0.0, "--answer-tokens", 4, "--models", drops.MODELS,
        "--pull-seconds", 60.0, "--account", account,
    )  # fmt: skip
    config = drops.configure(tmp_path, server.names[0], slots=4)
    coordinator = cluster.coordinate(config, tweaks={"obcd.coordinator.jobs.job_lifecycle:MOST_REPORTED": 1})
    root, outbox, where = coordinator.root, coordinator.outbox, ("--config", config, "--root", coordinator.root)

    # what is published at once
    coordinator.drop(drops.VISITS, "visits.csv", "visits")
    coordinator.drop(drops.FAILING)
    coordinator.drop(drops.REMEMBERED, "first.jsonl", "remembered")
    coordinator.drop(drops.REMEMBERED, "again.jsonl", "nightly")
    coordinator.drop(b" \n", "broken.jsonl")
    coordinator.drop(b"text", "strange.txt")
    coordinator.published("nightly/again")
    coordinator.published("remembered/first")
    coordinator.drop(drops.REMEMBERED, "again.jsonl", "nightly")
    coordinator.drop(drops.REMEMBERED, "second.jsonl", "remembered")
    coordinator.published("notes")
    (tmp_path / "once.jsonl").write_bytes(drops.lines({"prompt": "Now."}))
    say("submit", "--once", *where, tmp_path / "once.jsonl")
    keys.add_lines("submitted/*.log", next((tmp_path / "obcd" / "submitted").iterdir()).read_bytes())
    say("retry", outbox / "notes", *where)
    say("reload", *where)

    # what waits for its model until it is cancelled, and what waits behind it
    coordinator.drop(drops.MIXED + WAITING, "mixed.jsonl")
    coordinator.drop(drops.OPENAI + WAITING_CHAT, "asked.jsonl")
    jobs = {"mixed": _job(coordinator, "mixed.jsonl", 24), "asked": _job(coordinator, "asked.jsonl", 13)}
    coordinator.drop(WAITING, "fetched.jsonl", "fetched")
    wait_until(lambda: coordinator.status()["pulls"], what="a model is pulled")
    for name in ("behind", "further"):
        coordinator.drop(WAITING, f"{name}.jsonl")
    wait_until(lambda: coordinator.status()["further_jobs"], what="a job has no whole entry")
    for name in jobs:
        say("priority", f"{name}.jsonl", "3", *where)
    wait_until(lambda: all((root / "jobs" / job / "priority").exists() for job in jobs.values()))
    wait_until((outbox / "asked.partial" / "progress.json").exists)

    keys.add_lines("status.json", say("status", "--json", *where))
    keys.add_files("progress.json", [outbox / "mixed.partial" / "progress.json"])
    keys.add_files("progress.json of OpenAI's lines", [outbox / "asked.partial" / "progress.json"])
    keys.add_files("answered/*.json", (root / "answered").iterdir())
    for name, job in jobs.items():
        folder = root / "jobs" / job
        keys.add_files(f"{name}: job.json", [folder / "job.json"])
        keys.add_files(f"{name}: begun", [folder / "begun"])
        keys.add_files(f"{name}: priority", [folder / "priority"])
        given = (folder / "input.jsonl").read_bytes().splitlines()
        for line, found in sorted(_records(folder / "ledger.log").items()):
            keys.add(f"{name}: ledger.log: {_label(given[line - 1], line)}", *found)
    with closing(sqlite3.connect(root / "cache.sqlite")) as cache:
        rows = cache.execute("SELECT fields FROM answers ORDER BY model, fields").fetchall()
    keys.add("cache.sqlite: fields", *(json.loads(raw) for (raw,) in rows))
    keys.add_lines("cache stats --json", say("cache", "stats", "--json", *where))
    keys.add_lines("cache clear --json", say("cache", "clear", "--json", *where))
    keys.add_lines("check --json", say("check", "--json", *where))

    # what becomes of them
    for name in (*jobs, "fetched", "behind", "further"):
        say("cancel", f"fetched/{name}.jsonl" if name == "fetched" else f"{name}.jsonl", *where)
    for name in jobs:
        coordinator.published(name)
    coordinator.published("notes.retry")
    coordinator.published("remembered/second")
    for label in PUBLISHED:
        keys.add_files(f"{label}/manifest.json", [outbox / label / "manifest.json"])
        for name in ("responses.jsonl", "errors.jsonl"):
            path = outbox / label / name
            if path.exists() and path.read_bytes():
                keys.add_lines(f"{label}/{name}", path.read_bytes())
    keys.add_lines("verify --json", say("verify", "--json", outbox))
    keys.add_lines("simulate --account", account.read_bytes())

    _add_measured(keys, cluster.environment, config, tmp_path)
    keys.assert_golden("coordinator")


def _job(coordinator: CoordinatorProcess, name: str, requests: int) -> str:
    """Wait until all requests of a job but the one that waits have a result; returns its id."""

    def found() -> str:
        for entry in coordinator.status()["jobs"]:
            if entry["name"] == name and entry["done"] == requests - 1:
                return str(entry["job"])
        return ""

    return wait_until(found, what=lambda: f"{name} is answered:\n{coordinator.text()}")


def _records(ledger: Path) -> dict[int, list[Any]]:
    """Return `{number of a line: its records}`."""
    found: dict[int, list[Any]] = {}
    for raw in ledger.read_bytes().splitlines():
        record = json.loads(raw[9:])
        found.setdefault(record["line"], []).append(record)
    return found


def _label(raw: bytes, line: int) -> str:
    """Return what a line is called here: its id, or its number."""
    try:
        document = json.loads(raw)
    except ValueError:
        return f"line {line}"
    return str(document.get("id") or document.get("custom_id") or f"line {line}")


def _add_measured(keys: Keys, environment: dict[str, str], config: Path, folder: Path) -> None:
    """Add what `bench` and `burn-in` write, which run at the same time."""
    commands = {
        "bench --json": ("bench", "--json", "--slots", "1,2", "--requests", "1", "--config", config, "--out", folder),
        "burn-in --json": ("burn-in", "--json", "--seconds", "0.3", "--slots", "1", "--config", config),
    }
    running = {
        name: subprocess.Popen(
            obcd_command(*command), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name, command in commands.items()
    }
    for name, process in running.items():
        printed, said = process.communicate(timeout=60)
        assert printed, said
        keys.add_lines(name, printed)
    keys.add_files("bench --out", folder.glob("bench-*.json"))


# --- a host of GPUs ---------------------------------------------------------------------------------------------------

#: The watch's pauses, shortened.
WATCH_OPTIONS: Any = ("--limit", "probe=0.3", "--limit", "reading=0.3")


@pytest.mark.integration
def test_keys_of_what_a_host_writes(
    tmp_path: Path,
    runtime: Path,
    environment: dict[str, str],
    started: list[Running],
    say: Callable[..., str],
    keys: Keys,
) -> None:
    machine = StandIns(tmp_path / "machine", cards(2))
    folder = runtime / "host"
    place = ("--runtime", folder)
    command = ("host", "--gpus", 2, "--base-port", free_base(2), *place)
    tweaks = {"obcd.host.control.programs:WATCH_OPTIONS": WATCH_OPTIONS}
    own = machine.environment({**environment, "XDG_STATE_HOME": str(tmp_path / "state")})
    host = Running(obcd_command(*command, tweaks=tweaks), own, tmp_path / "host.log")
    started.append(host)

    def status() -> dict[str, Any]:
        assert host.process.poll() is None, host.text()
        return dict(json.loads(say("host", "status", "--json", *place)))

    try:
        wait_until((folder / "watch.json").exists, what=host.text)
        wait_until(lambda: all(map(_is_known, status()["servers"])), what=host.text)
        keys.add_lines("host pull --json", say("host", "pull", "--json", *place, "qwen3:0.6b"))
        say("host", "restart", *place, "0")
        wait_until(lambda: any(item["restart_log"] for item in status()["servers"]), what=host.text)

        keys.add("host status --json", status())
        keys.add_files("watch.json", [folder / "watch.json"])
        keys.add_files("plan.json", [folder / "plan.json"])
    finally:
        host.process.terminate()
        host.wait()
        machine.end()
    keys.assert_golden("host")


def _is_known(server: dict[str, Any]) -> bool:
    """Return whether the watch has seen a server and its card."""
    return server.get("answer") == "answers" and server["reading"] is not None and bool(server["models"])


# --- what no process is needed for ------------------------------------------------------------------------------------


def test_keys_of_what_commands_leave_behind(tmp_path: Path, keys: Keys) -> None:
    # an installation
    assert obcd("install", "--root", tmp_path / "machine") == ExitCode.DONE
    keys.add_files("installed.json", [tmp_path / "machine" / "etc" / "obcd" / "installed.json"])

    # a job that ends its coordinator again and again
    root = tmp_path / "root"
    open_spool(root)
    copy(FOLDER / "data" / "spools" / "torn", root)
    (folder,) = (root / "jobs").iterdir()
    begin_in_vain(root, folder.name)
    for name in ("begun", "quarantined"):
        keys.add_files(f"jobs/<id>/{name}", [folder / name])
    keys.add_files("inbox/*.cancel", [lay_control(root, folder.name)])

    # a file an answer
    published, output = copy(FOLDER / "data" / "expected" / "mixed", tmp_path / "mixed"), tmp_path / "responses"
    output.mkdir()
    write_files(published, output)
    keys.add_files("batch --files: response-files.json", [published / "response-files.json"])
    keys.add_files("batch --files: <epoch>-<line>.json", sorted(output.glob("*.json")))

    keys.assert_golden("files")
