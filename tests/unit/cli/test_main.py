"""What `obcd` says of an error that no command expected: it names what failed, and blames nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import pytest

from obcd.cli import main
from obcd.cli.main import describe, run
from obcd.errors import ExitCode, naming
from tests.support import obcd_command


def failing(error: BaseException) -> click.Command:
    """Return a command of a library that lies in a checkout of the name obcd, as with its .venv."""
    found: dict[str, Callable[[], None]] = {}
    library = "def fail():\n    raise error\n"
    exec(compile(library, "/home/ann/obcd/.venv/lib/other.py", "exec"), {"error": error}, found)
    return click.command()(found["fail"])


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/a\x1b"), ExitCode.INPUT, r"(/tmp/a\x1b)"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b"), ExitCode.BUG, "(/a -> /b)"),
        (OSError(errno.EMFILE, "Too many open files", b"/c"), ExitCode.INPUT, "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), ExitCode.INPUT, "fs.file-max"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ExitCode.INPUT, "memory"),
        (OSError(errno.EIO, "Input/output error"), ExitCode.BUG, "(in main._execute)"),
        (TimeoutError(), ExitCode.BUG, "TimeoutError (in main._execute)"),
    ],
)
def test_error_is_told_by_what_failed_and_never_as_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, code: ExitCode, words: str
) -> None:
    monkeypatch.setattr(main, "cli", failing(error))

    assert run([]) == code

    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("obcd: ")
    assert told.count("\n") == 1
    assert "standard output" not in told


def test_name_is_given_to_what_has_none_and_kept_where_there_is_one() -> None:
    with pytest.raises(OSError, match="Too many") as nameless, naming("a pipe"):
        raise OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(FileNotFoundError) as named, naming("a pipe"):
        os.stat("/nowhere")

    assert (nameless.value.filename, named.value.filename) == ("a pipe", "/nowhere")
    assert "(a pipe)" in describe(nameless.value)


@pytest.mark.integration
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_is_blamed_for_what_it_does_not_take(environment: Mapping[str, str], unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            obcd_command("--help"), env={**environment, "PYTHONUNBUFFERED": unbuffered},
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (ExitCode.INPUT, "obcd: No space left on device (standard output)\n")


@pytest.mark.integration
def test_daemon_that_may_open_nothing_says_what_and_is_no_bug(environment: Mapping[str, str], tmp_path: Path) -> None:
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6)); "
    script = limit + "os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, *obcd_command("coordinator", "--root", tmp_path / "root")],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == ExitCode.INPUT, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("obcd: Too many open files (")
    assert "standard output" not in last
    assert "ulimit" in last
