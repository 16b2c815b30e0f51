"""Nothing is tied to a parent unless the environment asks for it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import pytest

from obcd import parent_death


def test_without_the_variable_nothing_is_asked_of_the_kernel() -> None:
    assert parent_death.tie_to_parent({}) is False
    assert parent_death.tie_to_parent({parent_death.VARIABLE: "0"}) is False
    assert parent_death.tie_to_parent({parent_death.VARIABLE: "yes"}) is False


class Kernel:
    """A C library whose prctl only notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def prctl(self, *arguments: int) -> int:
        self.asked.append(arguments)
        return 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent-death signal is Linux's own")
@pytest.mark.parametrize("is_gone", [False, True])
def test_parent_that_was_gone_before_the_call_ends_us_too(monkeypatch: pytest.MonkeyPatch, is_gone: bool) -> None:
    kernel, sent = Kernel(), list[tuple[int, int]]()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: kernel)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))

    assert parent_death.tie_to_parent({parent_death.VARIABLE: "1"}, parent=-1 if is_gone else None)

    assert kernel.asked == [(parent_death.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)]
    assert sent == ([(os.getpid(), signal.SIGTERM)] if is_gone else [])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent-death signal is Linux's own")
@pytest.mark.parametrize(("named", "is_ended"), [(os.getppid(), False), (2**22 + 1, True)])
def test_parent_that_is_named_is_missed_even_if_it_ended_before_we_looked(
    monkeypatch: pytest.MonkeyPatch, named: int, is_ended: bool
) -> None:
    sent = list[tuple[int, int]]()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Kernel())
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))

    assert parent_death.tie_to_parent({parent_death.VARIABLE: str(named)})

    assert sent == ([(os.getpid(), signal.SIGTERM)] if is_ended else [])
