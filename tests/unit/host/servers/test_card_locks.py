"""A card has one holder, and the message names it."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import pytest

from obcd.errors import AlreadyRunningError
from obcd.host.servers import card_locks
from obcd.host.servers.card_locks import check_card_free, hold_card
from obcd.host.servers.plan import Server
from tests.golden.wording import wording


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(card_locks, "CARD_SECONDS", 0.0)
    pin = f"GPU-{secrets.token_hex(16)}"
    return Server(label="0", pin=pin, gpu=0, card="", memory_bytes=0, port=1, variables={})


def test_a_card_is_held_once_and_the_holder_is_named(server: Server, tmp_path: Path) -> None:
    held = hold_card(server)
    assert held is not None
    assert held.get_inheritable()

    with pytest.raises(
        AlreadyRunningError, match=re.escape(wording("gpu-0-is-held-by-process", server.pin, os.getpid()))
    ):
        hold_card(server)
    with pytest.raises(AlreadyRunningError):
        check_card_free(server, tmp_path, is_supervised=True)

    held.close()
    check_card_free(server, tmp_path, is_supervised=True)
    again = hold_card(server)
    assert again is not None
    again.close()


def test_a_name_that_another_user_took_does_not_keep_the_card_idle(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_card(server)
    assert held is not None
    monkeypatch.setattr(card_locks, "find_processes", lambda _: iter(()))  # none of this user's has it

    assert hold_card(server) is None
    held.close()


def test_the_cpu_is_held_by_nobody(server: Server, tmp_path: Path) -> None:
    cpu = Server(label="cpu", pin="", gpu=0, card="", memory_bytes=0, port=1, variables={})

    assert hold_card(cpu) is None
    check_card_free(cpu, tmp_path, is_supervised=False)
