"""A trial from its marker to what is shown of it: the request as it was sent, the answer, and whether it fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.core.request.records import JobSettings
from obcd.errors import InputError
from obcd.results.trying.tried_lines import TriedLine, read_tried
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox.publication import publish
from obcd.spool.submit.dropping import drop
from obcd.spool.submit.target import find_target
from tests.unit.spool.spools import accepted, answer, drop_of, failure, make_layout, order_of, record

AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
LINES = [
    {"id": "a", "prompt": "one"},
    {"prompt": "two", "format": AGE, "options": {"temperature": 0}},
    {"prompt": "three"},
    {"prompt": 4},
    {"prompt": "five", "n": 2},
]
SETTINGS = JobSettings(model="llama3.2", system="Be brief.", num_ctx=32768, num_ctx_max=32768, num_predict=96)


def dropped(layout: Layout, tmp_path: Path, trial: str = "remove") -> Path:
    """Drop the lines as `obcd try` does; return the file in the inbox."""
    target = replace(find_target(layout.inbox, "", "notes.try.jsonl"), trial=trial)
    source = tmp_path / "lines"
    source.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in LINES))
    with source.open("rb") as reader:
        drop(reader, "notes.jsonl", target, 2**20)
    return target.path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the published folder of a trial."""
    layout = make_layout(tmp_path / "root")
    header = accepted(layout, order_of(drop_of(dropped(layout, tmp_path)), settings=SETTINGS))
    parsed = answer(1, '{"age": 4}', parsed={"age": 4}, wait_seconds=0.1, load_seconds=0.1)
    several = [answer(4, "I", line=5), answer(5, "II", line=5)]
    record(layout, header.id, [answer(0, "I"), parsed, failure(2, "no answer"), *several])
    return publish(layout, header.id, {})


@pytest.fixture
def tried(folder: Path) -> list[TriedLine]:
    return read_tried(folder, (10, 20, 30, 40, 50))


def test_requests_are_shown_as_they_were_sent(tried: list[TriedLine]) -> None:
    first, second, *_ = tried

    assert first.request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
    ]
    assert first.request["options"] == {"num_ctx": 2048, "num_predict": 96}  # as it was planned for the job
    assert second.request["options"]["temperature"] == 0
    assert second.request["format"] == AGE
    assert [line.path for line in tried] == ["/api/chat"] * 3 + ["", "/api/chat"]
    assert [line.answers for line in tried] == [1, 1, 1, 1, 2]


def test_lines_have_their_numbers_of_the_whole_file(tried: list[TriedLine]) -> None:
    assert [line.line for line in tried] == [10, 20, 30, 40, 50]
    assert [line.result["id"] for line in tried] == ["a", 20, 30, 40, 50]


def test_verdict_says_whether_the_answer_is_complete_and_fits(tried: list[TriedLine]) -> None:
    assert [line.fits for line in tried] == [None, True, False, False, None]
    assert [line.failed for line in tried] == ["", "", "server_error", "bad_line", ""]
    assert tried[2].why == "server_error: no answer"
    cut = replace(tried[1], result={**tried[1].result, "done_reason": "length"})
    empty = replace(tried[1], result={**tried[1].result, "response": ""})
    assert [cut.fits, empty.fits] == [False, False]


def test_measured_time_is_that_in_a_slot(tried: list[TriedLine]) -> None:
    assert tried[0].seconds == pytest.approx(0.5)
    assert tried[1].seconds == pytest.approx(0.3)
    assert tried[2].seconds is None
    assert tried[0].tokens == (3, 7)
    assert json.loads(json.dumps(tried[0].to_json()))["result"]["response"] == "I"


def test_folder_that_is_gone_or_damaged_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    for path in (folder, tmp_path / "gone"):
        with pytest.raises(InputError, match=str(path)):
            read_tried(path, (1, 2, 3, 4, 5))


def test_marker_makes_a_trial_which_is_answered_however_often_it_is_repeated(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "root")
    for number, trial in enumerate(("remove", "keep", "never")):
        path = dropped(layout, tmp_path, trial)
        order = order_of(drop_of(path), f"job{number}", answered_since=0.0)
        header = accepted(layout, order)
        record(layout, header.id, [answer(place, line=place + 1) for place in (0, 1, 2)])
        record(layout, header.id, [answer(4, line=5), answer(5, line=5)])
        manifest = json.loads((publish(layout, header.id, {}) / "manifest.json").read_bytes())
        is_trial = trial != "never"
        assert (header.trial, header.repeat) == ((trial, "run") if is_trial else ("", "skip"))
        assert manifest.get("trial", "never") == trial
        assert ("trial" in header.to_json()) == is_trial
