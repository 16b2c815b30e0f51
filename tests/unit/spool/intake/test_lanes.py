"""Accepted jobs with prompts that begin alike."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from obcd.core.pending.lanes import LaneIndex
from obcd.core.request.records import JobSettings
from obcd.spool.folders.layout import Layout
from obcd.spool.intake import acceptance
from obcd.spool.intake.recovery import load_job
from obcd.spool.job.lane_index import NAME
from tests.unit.core.request.prefixes.finding import words
from tests.unit.spool.spools import (
    SETTINGS,
    Crashed,
    accept_bytes,
    accepted,
    answer,
    crash_at,
    drop_of,
    finish,
    order_of,
    put,
    record,
)

DOCUMENTS = [words(1500) for _ in range(4)]
PROMPTS = [f"{document} Question {number}?" for document in DOCUMENTS for number in range(5)]
FILE = b"".join(json.dumps({"prompt": prompt}).encode() + b"\n" for prompt in PROMPTS)
FOUR = [list(range(start, start + 5)) for start in range(0, 20, 5)]


def lanes_of(layout: Layout) -> list[list[int]] | None:
    lanes = load_job(layout, "job1").lanes
    return None if lanes is None else members_of(lanes)


def members_of(lanes: LaneIndex) -> list[list[int]]:
    starts = lanes.starts
    return [list(lanes.members[start:end]) for start, end in pairwise(starts)]


def test_job_whose_prompts_begin_alike_has_lanes(layout: Layout) -> None:
    accept_bytes(layout, FILE)

    assert lanes_of(layout) == FOUR


def test_job_that_shares_nothing_has_no_file(layout: Layout) -> None:
    accept_bytes(layout, b"".join(json.dumps({"prompt": words(900)}).encode() + b"\n" for _ in range(9)))

    assert not (layout.jobs / "job1" / NAME).exists()
    assert lanes_of(layout) is None


def test_profile_can_switch_lanes_off(layout: Layout) -> None:
    accept_bytes(layout, FILE, settings=replace(SETTINGS, prefix_affinity="off"))

    assert not (layout.jobs / "job1" / NAME).exists()


def test_setting_is_in_a_document_only_where_it_is_off() -> None:
    off = replace(SETTINGS, prefix_affinity="off")

    assert "prefix_affinity" not in SETTINGS.to_json()
    assert JobSettings.from_json(off.to_json()) == off
    assert JobSettings.from_json(SETTINGS.to_json()) == SETTINGS


def test_lines_that_are_not_prompts_are_in_no_lane(layout: Layout) -> None:
    lines = FILE.splitlines()
    lines[3:3] = [b"no prompt", b"", json.dumps({"embed": PROMPTS[0]}).encode()]

    accept_bytes(layout, b"\n".join(lines))

    assert lanes_of(layout) == [[0, 1, 2, 5, 6], *([place + 2 for place in lane] for lane in FOUR[1:])]


def test_answers_of_one_prompt_are_in_one_lane(layout: Layout) -> None:
    accept_bytes(layout, FILE, settings=replace(SETTINGS, n=2))

    assert lanes_of(layout) == [list(range(start, start + 10)) for start in range(0, 40, 10)]


def test_equal_requests_are_sent_once_and_make_no_lane(layout: Layout) -> None:
    lines = [json.dumps({"prompt": document}).encode() for document in DOCUMENTS for _ in range(5)]

    accept_bytes(layout, b"\n".join(lines), settings=replace(SETTINGS, dedupe=True))

    assert lanes_of(layout) is None


def test_planned_context_lengths_divide_a_lane(layout: Layout) -> None:
    # given documents with many short questions, and two long ones that need a larger context
    documents = DOCUMENTS * 2
    prompts = [f"{document} {words(40)}" for document in documents for _ in range(100)]
    prompts += [f"{DOCUMENTS[0]} {words(90_000)}" for _ in range(2)]
    content = b"".join(json.dumps({"prompt": prompt}).encode() + b"\n" for prompt in prompts)

    accept_bytes(layout, content, settings=replace(SETTINGS, num_ctx=32768, num_ctx_max=32768))

    column, found = load_job(layout, "job1").column, lanes_of(layout)
    assert len(set(column)) == 2
    assert found is not None
    assert [len(lane) for lane in found] == [200, 200, 200, 200, 2]
    assert found[-1] == [800, 801]


@pytest.mark.parametrize("form", ["gz", "csv", "template", "first", "batch"])
def test_lanes_are_those_of_the_lines_whatever_the_file_is(layout: Layout, tmp_path: Path, form: str) -> None:
    everything = frozenset({"gz", "csv"})
    match form:
        case "gz":
            accept_bytes(layout, gzip.compress(FILE), name="notes.jsonl.gz", accepts=everything)
        case "csv":
            rows = "prompt\n" + "".join(f'"{prompt}"\n' for prompt in PROMPTS)
            accept_bytes(layout, rows.encode(), name="notes.csv", accepts=everything)
        case "template":
            lines = [json.dumps({"a": prompt[:1500], "b": prompt[1500:]}) for prompt in PROMPTS]
            settings = replace(SETTINGS, template="{a} and {b}")
            accept_bytes(layout, "\n".join(lines).encode(), settings=settings)
        case "first":
            accept_bytes(layout, FILE + FILE, most_requests=20)
        case _:
            file = tmp_path / "own.jsonl"
            file.write_bytes(FILE)
            acceptance.accept_copy(layout, order_of(drop_of(file)), file)

    assert lanes_of(layout) == FOUR


def test_lanes_are_durable_before_the_job_is_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    order = order_of(drop_of(put(layout, FILE)))

    with crash_at(0, monkeypatch) as calls:
        accepted(layout, order)

    synced = next(place for place, call in enumerate(calls) if call.endswith(f"job1.tmp/{NAME}"))
    assert synced < next(place for place, call in enumerate(calls) if "job.json" in call)


def test_crash_at_any_step_leads_to_the_same_lanes(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    order, number = order_of(drop_of(put(layout, FILE))), 1
    while True:
        try:
            with crash_at(number, monkeypatch):
                accepted(layout, order)
            break
        except Crashed:
            number += 1

    assert number > 5
    assert lanes_of(layout) == FOUR


def test_damaged_lanes_are_no_lanes_and_the_job_is_published(layout: Layout) -> None:
    header = accept_bytes(layout, FILE)
    (layout.jobs / "job1" / NAME).write_bytes(b"garbage" * 9)

    assert lanes_of(layout) is None
    record(layout, "job1", [answer(ordinal) for ordinal in range(20)])
    folder = finish(layout, header)

    assert not (folder / NAME).exists()
    assert (folder / "responses.jsonl").exists()
