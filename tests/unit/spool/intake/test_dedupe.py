"""Equal requests of a job: one is asked, and its result is that of all, whatever becomes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from obcd.core.request.records import JobSettings
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox import control
from obcd.spool.intake.recovery import load_job
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, read_firsts, read_header
from obcd.spool.outbox import publication
from tests.golden.wording import wording
from tests.unit.spool.spools import accept_bytes, answer, failure, lines_of, record

SETTINGS = JobSettings(model="llama3.2", dedupe=True)
#: Ordinals 0 to 8, of which 2, 5 and 7 are the same as 0, and 8 as 4.
LINES: list[dict[str, Any] | str] = [
    {"id": "a", "prompt": "one"},
    {"id": "b", "prompt": "two"},
    {"id": "c", "prompt": "one", "ward": 7},
    "no prompt",
    {"id": "d", "prompt": "three"},
    {"id": "e", "prompt": "one", "model": "Llama3.2:latest"},
    {"id": "f", "prompt": "one", "options": {"seed": 1}},
    {"id": "g", "messages": [{"role": "user", "content": "one"}]},
    {"id": "h", "prompt": "three"},
]
FIRSTS = [0, 1, 0, 3, 4, 0, 6, 0, 4]


def accepted(layout: Layout, lines: list[Any], settings: JobSettings = SETTINGS) -> JobHeader:
    raw = b"".join((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n" for line in lines)
    return accept_bytes(layout, raw, settings=settings)


def test_first_equal_one_of_each_line_is_found_at_acceptance(layout: Layout) -> None:
    header = accepted(layout, LINES)

    assert header.same == 4
    assert read_header(layout.jobs / "job1") == header
    assert list(read_firsts(layout.jobs / "job1", header) or ()) == FIRSTS


def test_nothing_is_compared_where_nobody_wants_it_or_nothing_is_the_same(layout: Layout) -> None:
    plain = accepted(layout, LINES, replace(SETTINGS, dedupe=False))
    assert (plain.same, read_firsts(layout.jobs / "job1", plain)) == (0, None)
    assert not (layout.jobs / "job1" / "firsts").exists()

    other = Layout.at(layout.root.parent / "other")
    other.create([])
    different = accepted(other, LINES[:2])
    assert (different.same, read_firsts(other.jobs / "job1", different)) == (0, None)
    assert load_job(other, "job1").times is None


def test_only_first_ones_are_asked_and_count_for_all(layout: Layout) -> None:
    accepted(layout, LINES)

    loaded = load_job(layout, "job1")
    assert list(loaded.replay.done) == [0, 0, 1, 1, 0, 1, 0, 1, 1]
    assert list(loaded.times or ()) == [4, 1, 0, 1, 2, 0, 1, 0, 0]
    assert (loaded.replay.counts.done, loaded.replay.counts.failures) == (1, 1)

    record(layout, "job1", [answer(0, seconds=2.0), failure(4)])
    loaded = load_job(layout, "job1")
    assert list(loaded.replay.done) == [1, 0, 1, 1, 1, 1, 0, 1, 1]
    counts = loaded.replay.counts
    assert (counts.responses, counts.failures, counts.same, counts.work_seconds) == (4, 3, 4, 2.0)
    assert counts.eval_tokens == 4 * 7


def test_result_of_the_first_is_that_of_all_a_failure_too(layout: Layout) -> None:
    # given
    accepted(layout, LINES)
    record(layout, "job1", [answer(1), failure(4, line=5), answer(6, line=7), answer(0, "so", seconds=2.0)])
    counts = load_job(layout, "job1").replay.counts

    # when
    folder = publication.publish(layout, "job1", {})

    # then
    found = {item["id"]: item for item in lines_of(folder / "responses.jsonl")}
    assert list(found) == ["a", "b", "c", "e", "f", "g"]
    assert {key: (item["line"], item.get("same_as")) for key, item in found.items()} == {
        "a": (1, None),
        "b": (2, None),
        "c": (3, 1),
        "e": (6, 1),
        "f": (7, None),
        "g": (8, 1),
    }
    assert [found[key]["response"] for key in "aceg"] == ["so"] * 4
    assert [found[key]["seconds"] for key in "aceg"] == [2.0, 0.0, 0.0, 0.0]
    assert found["c"]["extra"] == {"ward": 7}
    failed = {item["line"]: item for item in lines_of(folder / "errors.jsonl")}
    assert {line: (item["id"], item.get("same_as")) for line, item in failed.items()} == {
        4: (4, None),
        5: ("d", None),
        9: ("h", 5),
    }
    assert [json.loads(line)["id"] for line in (folder / "retry.jsonl").read_bytes().splitlines()[1:]] == ["d", "h"]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["counts"]["same"] == 4
    assert manifest["counts"]["responses"] == counts.responses == 6
    assert manifest["counts"]["failures"] == counts.failures == 3
    assert manifest["tokens"]["eval"] == counts.eval_tokens
    assert manifest["times"]["work_seconds"] == counts.work_seconds
    assert not (folder / "firsts").exists()
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_cancelled_job_keeps_for_all_what_the_first_was_told(layout: Layout) -> None:
    header = accepted(layout, LINES)
    record(layout, "job1", [answer(0, "so")])
    folder = layout.jobs / "job1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "read_job_controls", lambda _: control.JobControls(canceller=0))
        control.fail_cancelled(folder, header)
        control.fail_cancelled(folder, header)

    places = ledger.index_results(folder / ledger.NAME, header.requests)
    assert [bool(place) for place in places] == [first == ordinal for ordinal, first in enumerate(FIRSTS)]
    published = publication.publish(layout, "job1", {})
    assert [item["id"] for item in lines_of(published / "responses.jsonl")] == ["a", "c", "e", "g"]
    assert [item["line"] for item in lines_of(published / "errors.jsonl")] == [2, 4, 5, 7, 9]


def test_one_of_several_answers_is_that_of_another_line_with_the_same_seed(layout: Layout) -> None:
    several = {"prompt": "one", "n": 2, "options": {"seed": 4}}
    header = accepted(
        layout,
        [
            {"id": 1, **several},
            {"id": 2, "prompt": "one", "options": {"seed": 4}},  # tells no seed: it is another record
            {"id": 3, **several, "options": {"seed": 5}},
            {"id": 4, **several},
            {"id": 5, "prompt": "one", "n": 2},  # its seeds come from its id
            {"id": 6, "prompt": "one", "n": 2},
        ],
    )

    assert list(read_firsts(layout.jobs / "job1", header) or ()) == [0, 1, 2, 1, 4, 0, 1, 7, 8, 9, 10]
    record(layout, "job1", [answer(number, str(number), seed=number) for number in (0, 1, 2, 4, 7, 8, 9, 10)])
    found = lines_of(publication.publish(layout, "job1", {}) / "responses.jsonl")
    assert [[item["response"] for item in line.get("responses", [line])] for line in found] == [
        ["0", "1"],
        ["2"],
        ["1", "4"],
        ["0", "1"],
        ["7", "8"],
        ["9", "10"],
    ]
    assert ["same_as" in line for line in found] == [False, False, False, True, False, False]


@pytest.mark.parametrize("raw", [b"", b"\0" * 32, b"\1\0\0\0" * 9, b"\0\0\0\0" * 4 + b"\2\0\0\0" * 5])
def test_damaged_list_of_first_ones_is_told(layout: Layout, raw: bytes) -> None:
    header = accepted(layout, LINES)
    (layout.jobs / "job1" / "firsts").write_bytes(raw)

    with pytest.raises(ValueError, match=wording("firsts-is-not-what-it-should")):
        read_firsts(layout.jobs / "job1", header)


def test_job_of_before_is_read(layout: Layout) -> None:
    header = accept_bytes(layout, b'{"prompt": "one"}\n', "job2", "other.jsonl")
    document = header.to_json()
    for key in ("dedupe", "cache"):
        del document["settings"][key]
    del document["same"]

    assert JobHeader.from_json(document) == header
