"""What all tests share: temporary folders in memory; for those with real processes, what ends these with the test."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from obcd.coordinator.disk_watch import BALLAST
from obcd.spool.folders.layout import Layout
from tests.support import (
    Cluster,
    CoordinatorProcess,
    Running,
    Simulated,
    all_gone,
    family,
    make_environment,
    wait_until,
)
from tests.unit.spool.spools import make_layout

#: A filesystem in memory, and the room there from which on temporary folders are put on it.
MEMORY, ROOM_BYTES = Path("/dev/shm"), 2 * 2**30

#: How many examples property tests try; how long one takes is a matter of what else the machine does. The few are the
#: same ones each time, so that a change is judged by what it changes; soak looks for others.
for profile, examples in (("quick", 50), ("soak", 1000)):
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        derandomize=profile == "quick",
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("quick")


def pytest_configure() -> None:
    """Put temporary folders in memory, unless TMPDIR says where: syncs wait for a disk, and no test needs one.

    A shell starts what runs in its background with SIGINT ignored, and nohup ignores SIGHUP; children would inherit
    that, and what both signals do is tested.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if "TMPDIR" not in os.environ and is_roomy(MEMORY):
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Keep the garbage collector from looking at the tests themselves, now and later: none of them is garbage."""
    gc.disable()
    try:
        _import_own_share(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_own_share(config: pytest.Config) -> None:
    """Begin the import of test modules at another place in each worker of xdist.

    In a new checkout pytest compiles every test module, which takes most of the time until the first test. So each
    worker compiles a part, and finds the others' parts in the cache.
    """
    workers = getattr(config, "workerinput", None)
    if workers is None:
        return
    root = config.rootpath
    arguments = [root / argument.partition("::")[0] for argument in config.args]
    files = sorted(file for folder in arguments for file in folder.rglob("test_*.py"))
    first = len(files) * int(workers["workerid"].removeprefix("gw")) // workers["workercount"]
    for file in files[first:] + files[:first]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection reports it
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


def is_roomy(folder: Path) -> bool:
    """Return whether a folder is ours to write in, has room, and may hold programs, which some stand-ins are."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize >= ROOM_BYTES and not disk.f_flag & os.ST_NOEXEC


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a spool with the profile `clinical`; its runtime folder is not the machine's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return make_layout(tmp_path / "root", "clinical")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Yield a short folder for sockets and status files: a unix socket's path has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="obcd-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def shared() -> Iterator[Path]:
    """Yield a folder that other users may look into, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="obcd-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def environment(runtime: Path) -> dict[str, str]:
    return make_environment(runtime)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Running]]:
    """Yield a list; every process in it is ended after the test, the last one first."""
    processes: list[Running] = []
    yield processes
    for process in reversed(processes):
        process.end()


@pytest.fixture
def cluster(environment: dict[str, str], tmp_path: Path, started: list[Running]) -> Iterator[Cluster]:
    """Yield what starts simulated servers and coordinators; no process of a coordinator survives the test."""
    yield Cluster(tmp_path, environment, started)
    for process in started:
        if isinstance(process, CoordinatorProcess) and process.process.poll() is None:
            children = family(process.pid)
            process.kill()
            wait_until(partial(all_gone, children), what="no process outlives its coordinator")
            (process.root / BALLAST).unlink(missing_ok=True)  # pytest keeps the folders of three runs


@pytest.fixture(scope="session")
def _one_quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    folder = tmp_path_factory.mktemp("quick-server")
    server = Simulated(make_environment(folder), folder / "server.log", "--parallel", 4, "--seconds", 0.03)
    yield server
    server.end()


@pytest.fixture
def quick_server(_one_quick_server: Simulated) -> Simulated:
    """Return a server of four slots that many tests share; its account begins anew with each."""
    wait_until(lambda: _one_quick_server.in_flight() == 0)
    _one_quick_server.reset()
    return _one_quick_server


@pytest.fixture(autouse=True)
def _own_log_level() -> Iterator[None]:
    """Set the level back that a command sets at its start; else the next test's caplog has more records than alone."""
    logger = logging.getLogger("obcd")
    before = logger.level
    yield
    logger.setLevel(before)
