from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.core.answer.outcomes import Cost, ModelAnswer
from obcd.spool.folders.layout import CACHE_NAME
from obcd.spool.job import cache
from obcd.spool.job.cache import AnswerCache, Size, clear, forget, measure
from tests.golden.wording import wording

KEYS = [bytes([number]) * 32 for number in range(20)]
ANSWER = ModelAnswer(text="Name: John Smith \ud800", model="llama3.2:latest", cost=Cost(1.5), finished=100.0)


class Told(list[str]):
    """What was said of a cache."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / CACHE_NAME


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def open_cache(path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> Callable[[], AnswerCache]:
    monkeypatch.setattr(cache, "BUSY_SECONDS", 0.01)
    return lambda: AnswerCache(path, told.append)


OpenCache = Callable[[], AnswerCache]


def test_answer_is_found_by_another_worker_as_it_was_kept(open_cache: OpenCache, told: Told) -> None:
    one, other = open_cache(), open_cache()

    assert one.find(KEYS[0]) is None
    one.keep(KEYS[0], ANSWER)
    one.keep(KEYS[0], ANSWER._replace(text="later", finished=200.0))

    assert other.find(KEYS[0]) == ANSWER
    assert other.find(KEYS[1]) is None
    assert told == []


def test_nothing_is_opened_before_it_is_asked(open_cache: OpenCache, path: Path) -> None:
    open_cache()

    assert not path.exists()
    assert (measure(path), clear(path), forget(path, 9e9)) == (Size(), 0, 0)
    assert not path.exists()


def test_file_that_is_taken_away_is_made_anew_by_those_who_have_it_open(open_cache: OpenCache, path: Path) -> None:
    kept = open_cache()
    kept.keep(KEYS[0], ANSWER)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()

    assert kept.find(KEYS[0]) is None
    kept.keep(KEYS[1], ANSWER._replace(finished=200.0))

    assert measure(path).answers == 1


def test_its_files_are_the_daemons_alone(open_cache: OpenCache, path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)

    kept = open_cache()
    kept.keep(KEYS[0], ANSWER)

    files = list(path.parent.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_link_in_its_place_is_not_followed(open_cache: OpenCache, path: Path, told: Told, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")

    open_cache().keep(KEYS[0], ANSWER)

    assert not (tmp_path / "elsewhere").exists()
    assert len(told) == 1


def spoil_header(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to be read as one" * 100)


def spoil_pages(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)


@pytest.mark.parametrize("spoil", [spoil_header, spoil_pages])
def test_damaged_cache_is_told_once_and_cleared_by_its_removal(
    open_cache: OpenCache, path: Path, told: Told, spoil: Callable[[Path], None]
) -> None:
    # given
    kept = open_cache()
    kept.keep(KEYS[0], ANSWER)
    kept._close()
    spoil(path)

    # when
    kept = open_cache()
    for key in KEYS:
        assert kept.find(key) is None
        kept.keep(key, ANSWER)

    # then
    assert told == [wording("it-is-damaged")]
    kept._close()
    assert clear(path) is None
    open_cache().keep(KEYS[0], ANSWER)
    assert measure(path).answers == 1


@pytest.mark.parametrize("value", ["CAST(replace(fields, 'John', 'Mary') AS BLOB)", "'text'", "7"])
def test_answer_that_is_not_as_it_was_kept_is_none(open_cache: OpenCache, path: Path, told: Told, value: str) -> None:
    kept = open_cache()
    kept.keep(KEYS[0], ANSWER)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE answers SET fields = {value}")
    connection.close()

    assert kept.find(KEYS[0]) is None
    assert told == [wording("it-is-damaged")]


def test_locked_cache_holds_nobody_up_and_serves_again(
    open_cache: OpenCache, path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(cache, "monotonic", lambda: now)
    kept = open_cache()
    kept.keep(KEYS[0], ANSWER)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    kept.keep(KEYS[1], ANSWER)
    other.execute("ROLLBACK")
    other.close()
    kept.keep(KEYS[2], ANSWER)  # nobody looks whether it is free by now
    assert kept.find(KEYS[0]) is None
    now += cache.LOCKED_SECONDS
    kept.keep(KEYS[3], ANSWER)

    assert told == [wording("another-process-keeps-it-locked")]
    assert [kept.find(key) is not None for key in KEYS[:4]] == [True, False, False, True]


def test_full_cache_goes_on_reading_and_is_freed_of_the_oldest(
    open_cache: OpenCache, path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(cache, "MOST_BYTES", 40 * 4096)
    large = ANSWER._replace(text="x" * 12_000)
    kept = open_cache()
    for number, key in enumerate(KEYS):
        kept.keep(key, large._replace(finished=100.0 + number))
    assert told == [wording("there-is-no-room-for-it")]
    before = measure(path).answers
    assert 5 < before < len(KEYS)
    assert kept.find(KEYS[0]) == large

    # when
    gone = forget(path, 0.0)

    # then
    assert 0 < gone < before
    assert kept.find(KEYS[0]) is None
    assert kept.find(KEYS[before - 1]) == large._replace(finished=99.0 + before)
    kept.keep(KEYS[-1], large)
    assert kept.find(KEYS[-1]) == large


def test_what_is_older_than_it_may_be_is_forgotten_and_overwritten(
    open_cache: OpenCache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "ROWS_AT_ONCE", 2)
    kept = open_cache()
    for number, key in enumerate(KEYS):
        kept.keep(key, ANSWER._replace(text=f"secret {number}.", finished=100.0 + number))

    assert forget(path, 115.0) == 15

    assert measure(path) == Size(5, measure(path).bytes, 115.0, 119.0, {"llama3.2:latest": 5})
    raw = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"secret 19." in raw
    assert b"secret 3." not in raw


def test_clear_empties_it_under_its_workers(open_cache: OpenCache, path: Path) -> None:
    kept = open_cache()
    kept.keep(KEYS[0], ANSWER)
    kept.keep(KEYS[1], ANSWER)

    assert clear(path) == 2

    assert kept.find(KEYS[0]) is None
    kept.keep(KEYS[0], ANSWER)
    assert kept.find(KEYS[0]) == ANSWER
    kept._close()
    assert clear(path) == 1
    assert b"John Smith" not in path.read_bytes()


def test_workers_that_start_together_all_keep_theirs(open_cache: OpenCache, path: Path, told: Told) -> None:
    def work(number: int) -> None:
        kept = open_cache()
        start.wait()
        kept.keep(KEYS[number], ANSWER)

    start = threading.Barrier(8)
    cache_seconds = cache.BUSY_SECONDS
    cache.BUSY_SECONDS = 10.0
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    cache.BUSY_SECONDS = cache_seconds

    assert told == []
    assert measure(path).answers == 8
