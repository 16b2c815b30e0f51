"""The account tells what happened, and only that."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

from obcd.standins.wire.account import Account, AccountFile, Attempts, PromptTokens, prompt_key


def test_account_counts_busy_waiting_and_their_peaks() -> None:
    account = Account(2, Attempts())

    first, second, third = (account.arrive(prompt) for prompt in ("a", "b", "a"))
    account.start(first)
    account.start(second)
    account.finish(third, "cancelled")
    account.finish(first, "answered")
    told = account.requests()

    assert (told["in_flight"], told["max_in_flight"], told["waiting"], told["max_waiting"]) == (1, 2, 0, 3)
    assert [entry["outcome"] for entry in told["requests"]] == ["answered", None, "cancelled"]
    assert [entry["attempt"] for entry in told["requests"]] == [1, 1, 2]
    assert told["requests"][0]["prompt"] == prompt_key("a")
    assert [change[1:] for change in account.slots()["changes"]] == [
        (0, 0), (0, 1), (0, 2), (0, 3), (1, 2), (2, 1), (2, 0), (1, 0),
    ]  # fmt: skip


def test_reset_keeps_what_is_in_progress_and_forgets_attempts() -> None:
    account = Account(1, Attempts())
    done, running = account.arrive("a"), account.arrive("b")
    account.start(running)
    account.finish(done, "answered")

    account.reset()
    account.finish(running, "answered")

    assert [entry["prompt"] for entry in account.requests()["requests"]] == [prompt_key("b")]
    assert account.arrive("a").attempt == 1
    assert account.slots()["busy"] == 0


def test_busy_slot_seconds_are_the_area_under_the_changes() -> None:
    account = Account(2, Attempts())
    records = [account.arrive("a"), account.arrive("b")]
    for record in records:
        account.start(record)
    for record in records:
        account.finish(record, "answered")

    told = account.slots()
    changes = told["changes"]

    area = sum(busy * (later[0] - at) for (at, busy, _), later in pairwise(changes))
    assert told["busy_slot_seconds"] == area > 0


def test_full_account_says_how_much_it_dropped() -> None:
    account = Account(1, Attempts(), limit=2)
    for _ in range(3):
        account.finish(account.arrive("a"), "answered")

    told = account.requests()

    assert len(told["requests"]) == 2
    assert told["dropped"] > 0


def test_what_a_killed_server_saw_is_read_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "account"
    first, second = (Account(2, Attempts(), file=AccountFile(path), server=number) for number in range(2))
    answered, open_at_the_end = first.arrive("one"), second.arrive("two")
    first.finish(answered, "answered")

    lines = [json.loads(line) for line in path.read_bytes().splitlines()]

    assert [(line["server"], line["request"], line["prompt"], line["event"], line["at"]) for line in lines] == [
        (0, 1, prompt_key("one"), "arrived", answered.arrived),
        (1, 1, prompt_key("two"), "arrived", open_at_the_end.arrived),
        (0, 1, prompt_key("one"), "answered", answered.finished),
    ]
    assert {line["pid"] for line in lines} == {os.getpid()}


def test_tokens_of_a_prompt_stand_in_the_account_and_its_file(tmp_path: Path) -> None:
    path = tmp_path / "account"
    account = Account(2, Attempts(), file=AccountFile(path))
    answered, cancelled = account.arrive("one"), account.arrive("two")
    account.finish(answered, "answered", PromptTokens(evaluated=31, cached=480))
    account.finish(cancelled, "cancelled")

    shown = [(entry["evaluated_tokens"], entry["cached_tokens"]) for entry in account.requests()["requests"]]
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]

    assert shown == [(31, 480), (None, None)]
    assert [line.get("cached_tokens") for line in lines] == [None, None, 480, None]
    assert lines[2]["evaluated_tokens"] == 31
