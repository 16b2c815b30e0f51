"""Programs of the configuration: what they are given, and for how long they may run."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from obcd.notifications.programs import run_program
from obcd.notifications.ways import DeliveryError
from tests.golden.wording import wording
from tests.receivers import given_to, write_program
from tests.support import is_gone, wait_until


def fails(*words: object, seconds: float = 30.0) -> str:
    with pytest.raises(DeliveryError) as caught:
        run_program([str(word) for word in words], b"{}", seconds)
    return str(caught.value)


def test_program_gets_its_words_unchanged_and_the_event_on_standard_input(tmp_path: Path) -> None:
    words = ["--a", "", "b c", "$HOME", "`id`", "*", "a;b", "ü", '"']

    run_program([str(write_program(tmp_path / "tell", tmp_path / "log")), *words], b'{"a": 1}\n', 30)

    assert given_to(tmp_path / "log") == [(words, '{"a": 1}\n')]


def test_program_may_end_without_reading() -> None:
    run_program(["true"], b"x" * 2**20, 30)


def test_failures_have_a_reason(tmp_path: Path) -> None:
    assert fails("false") == wording("ended-with-exit-code", "false", 1)
    assert fails(tmp_path / "gone") == wording("cannot-be-started", "gone", "No such file or directory")
    (tmp_path / "text").write_text("x")
    assert fails(tmp_path / "text") == wording("cannot-be-started", "text", "Permission denied")
    assert fails("sh", "-c", "kill -9 $$") == wording("was-ended-by-signal", "sh", 9)


def test_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/parent; wait"
    began = time.monotonic()

    assert fails("sh", "-c", script, seconds=0.5) == wording("did-not-end-within", "sh", "0 s")
    assert time.monotonic() - began < 20
    for name in ("parent", "child"):
        pid = int((tmp_path / name).read_text())
        wait_until(lambda pid=pid: is_gone(pid), what=name)  # type: ignore[misc]


def test_program_has_the_usual_signals_and_no_descriptor_of_the_daemon(tmp_path: Path) -> None:
    script = (
        "import json, os, signal, sys\n"
        "open(sys.argv[1], 'w').write(json.dumps([os.listdir('/proc/self/fd'), os.getcwd(),"
        " signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getsid(0) == os.getpid()]))\n"
    )
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        run_program([sys.executable, "-I", "-S", "-c", script, str(tmp_path / "found")], b"", 30)
    finally:
        os.close(held)

    descriptors, folder, has_default, leads = json.loads((tmp_path / "found").read_text())
    assert len(descriptors) <= 5  # 0, 1, 2, the file, and that of the listing
    assert (folder, has_default, leads) == ("/", True, True)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
