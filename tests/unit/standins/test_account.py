"""The account tells what happened, and only that."""

from __future__ import annotations

from itertools import pairwise

from obcd.standins.account import Account, Attempts, prompt_key


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
