"""What a pull tells, and when it is given up. No server is asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from obcd.errors import NoEndpointError
from obcd.ollama import pulling
from obcd.ollama.pulling import MAX_LINE_BYTES, SILENCE_SECONDS, Progress, _progress
from tests.golden.wording import wording


def pull(pieces: Iterable[bytes], status_code: int = 200) -> Iterator[Progress]:
    response: Any = SimpleNamespace(status_code=status_code, iter_content=lambda chunk_size: iter(pieces))
    return _progress(response, "qwen3")


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def coming(completed: int) -> bytes:
    return line(status="pulling aa", digest="aa", total=100, completed=completed)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute go by at each look."""
    minutes = itertools.count()
    monkeypatch.setattr(pulling, "monotonic", lambda: 60.0 * next(minutes))


def test_lines_are_told_as_they_come_however_they_are_cut() -> None:
    text = line(status="pulling manifest") + coming(10) + coming(100) + line(status="success").rstrip()

    told = list(pull(text[at : at + 7] for at in range(0, len(text), 7)))

    assert [item.status for item in told] == ["pulling manifest", "pulling aa", "pulling aa", "success"]
    assert [item.completed_bytes for item in told] == [0, 10, 100, 0]


@pytest.mark.parametrize(
    "drip",
    [
        itertools.repeat(coming(10)),
        itertools.repeat(b" "),
        itertools.repeat(b"not json\n"),
        itertools.cycle([b"\n", coming(10)]),
    ],
    ids=["says the same", "no line ends", "nonsense", "empty lines between"],
)
def test_pull_that_brings_nothing_more_is_given_up(clock: None, drip: Iterator[bytes]) -> None:
    assert SILENCE_SECONDS < 60 * MAX_LINE_BYTES  # so that the line's length is not what ends the second one
    with pytest.raises(NoEndpointError, match=wording("nothing-more-came-for-30-min")):
        list(pull(drip))


def test_pull_that_is_slow_goes_on(clock: None) -> None:
    told = list(pull([*(coming(number) for number in range(500)), line(status="success")]))

    assert told[-1].status == "success"


def test_line_without_end_is_refused() -> None:
    with pytest.raises(NoEndpointError, match=wording("it-is-no-ollama")):
        list(pull(itertools.repeat(b"x" * 1000)))


@pytest.mark.parametrize(
    ("pieces", "status_code", "sentence"),
    [
        ([line(error=wording("file-does-not-exist"))], 200, wording("qwen3-file-does-not-exist")),
        ([coming(3)], 200, wording("ended-in-the-middle")),
        ([], 502, "status 502"),
        ([line(error="unauthorized")], 401, "qwen3: unauthorized"),
    ],
)
def test_what_goes_wrong_is_said(pieces: list[bytes], status_code: int, sentence: str) -> None:
    with pytest.raises(NoEndpointError, match=sentence):
        list(pull(pieces, status_code))
