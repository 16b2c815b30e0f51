"""`obcd metrics`: what it writes where, while a coordinator runs and while none does."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.cli.seeing import metrics
from obcd.coordinator.view import View
from obcd.errors import ExitCode, InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.status_file import STALE_SECONDS
from tests.support import wait_until

UP, DOWN = "obcd_up 1.0\n", "obcd_up 0.0\n"


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return the folders of a coordinator that has just written its status."""
    monkeypatch.setenv("OBCD_ROOT", str(tmp_path / "spool"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    layout = Layout.at(tmp_path / "spool")
    layout.status.parent.mkdir(parents=True)
    write_status(layout, time.time())
    return layout


def write_status(layout: Layout, updated: float, **changes: object) -> None:
    view = View(
        version="1", pid=1, state="READY", updated=updated, updated_at="now", requests_waiting=5, root=str(layout.root),
        inbox="", outbox="",
    )  # fmt: skip
    disk.show_json(layout.status, view.to_json() | changes)


def test_metrics_go_to_standard_output(spool: Layout, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["metrics"]) == ExitCode.DONE

    said = capfd.readouterr().out
    assert UP in said
    assert "obcd_requests_waiting 5.0\n" in said


def test_file_is_whole_and_readable_by_others_whatever_the_umask(spool: Layout, tmp_path: Path) -> None:
    path = tmp_path / "obcd.prom"
    old = os.umask(0o077)
    try:
        assert run(["metrics", "--textfile", str(path)]) == ExitCode.DONE
    finally:
        os.umask(old)

    assert UP in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


@pytest.mark.parametrize("age", [STALE_SECONDS + 5, None])
def test_status_that_is_old_or_missing_means_down(
    spool: Layout, age: float | None, capfd: pytest.CaptureFixture[str]
) -> None:
    if age is None:
        spool.status.unlink()
    else:
        write_status(spool, time.time() - age)

    assert run(["metrics"]) == ExitCode.DONE
    assert [line for line in capfd.readouterr().out.splitlines() if line[0] != "#"] == [DOWN.strip()]


def test_status_of_another_version_is_an_error_and_leaves_the_file(spool: Layout, tmp_path: Path) -> None:
    path = tmp_path / "obcd.prom"
    write_status(spool, time.time(), state=3)

    assert run(["metrics", "--textfile", str(path)]) == ExitCode.INPUT
    assert not path.exists()


@pytest.mark.parametrize(
    "words", [["--textfile", "obcd.txt"], ["--every", "15"], ["--textfile", "o.prom", "--every", "0"]]
)
def test_file_that_nobody_would_read_is_refused(spool: Layout, words: list[str]) -> None:
    assert run(["metrics", *words]) == ExitCode.USAGE


def test_missing_library_is_named(
    spool: Layout, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    monkeypatch.delitem(sys.modules, "obcd.metrics.samples", raising=False)

    assert run(["metrics"]) == ExitCode.USAGE
    assert "pip install 'obcd[web]'" in capfd.readouterr().err


def test_folder_that_is_missing_is_an_error(spool: Layout, tmp_path: Path) -> None:
    assert run(["metrics", "--textfile", str(tmp_path / "none/obcd.prom")]) == ExitCode.INPUT


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put back the handlers of the signals that the command catches."""
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_repeated_file_follows_the_coordinator_and_goes_at_the_end(
    spool: Layout, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, configuration, seen = tmp_path / "obcd.prom", tmp_path / "obcd.toml", []
    configuration.touch()

    def wait_for(expected: str) -> None:
        wait_until(lambda: path.exists() and expected in path.read_text("utf-8"))
        seen.append(expected)

    def watch() -> None:
        try:
            wait_for(UP)
            write_status(spool, time.time(), state=3)
            wait_for(DOWN)
            configuration.write_text("settle = 5", "utf-8")
            spool.status.unlink()
            wait_until(lambda: "settle" in capfd.readouterr().err, what="the fault is said")
            configuration.write_text("", "utf-8")
            write_status(spool, time.time())
            wait_for(UP)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    metrics._repeat(path, 0.02, partial(metrics._find_view, str(configuration), None), metrics._load_exposition())
    thread.join()

    assert (seen, path.exists()) == ([UP, DOWN, UP], False)


@pytest.mark.usefixtures("handlers")
def test_trouble_is_said_once_however_often_it_is_tried(
    spool: Layout, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tries = 0

    def fail() -> View | None:
        nonlocal tries
        tries += 1
        if tries == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        raise InputError("it cannot be read")

    metrics._repeat(tmp_path / "obcd.prom", 0.01, fail, metrics._load_exposition())

    assert tries == 3
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("handlers")
def test_folder_that_is_missing_ends_a_repetition_at_once(spool: Layout, tmp_path: Path) -> None:
    assert run(["metrics", "--textfile", str(tmp_path / "none/obcd.prom"), "--every", "1"]) == ExitCode.INPUT
