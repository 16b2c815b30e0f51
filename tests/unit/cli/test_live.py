"""The picture of `obcd status`: a job's id is there at every width."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime

import pytest
from rich.console import Console

from obcd.cli.live import WIDE, draw
from obcd.coordinator.view import DaemonState, JobState, JobView, PublishedView, RejectedView, View
from tests.golden.wording import wording

JOB = "20261122T180105-3f9a1c4b5d6e"
OLD = "20261122T170105-0011aabbccdd"


def shown(name: str = "notes.jsonl", priority: int = 0, context: str = "") -> View:
    """Return the view of a coordinator with a job under way and one that is published."""
    job = JobView(
        job=JOB,
        name=name,
        profile="clinical",
        state=JobState.RUNNING,
        total=1_000_000,
        done=410_000,
        failed=3,
        priority=priority,
        context=context,
        tokens_per_second=1204.0,
        eta_seconds=7500.0,
    )
    published = PublishedView(job=OLD, name="old.jsonl", folder="f", responses=9, failures=1)
    return View(
        version="1.0",
        pid=812,
        root="r",
        inbox="i",
        outbox="o",
        state=DaemonState.READY,
        updated=0.0,
        updated_at="",
        jobs=(job,),
        published=(published,),
    )


def drawn(view: View, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(draw(view))
    return file.getvalue()


def test_prefix_cache_has_a_line_where_replies_name_it() -> None:
    view = shown()
    job = replace(view.jobs[0], evaluated_tokens=4914, cached_tokens=23480)

    added = set(drawn(replace(view, jobs=(job,)), WIDE).splitlines()) - set(drawn(view, WIDE).splitlines())

    (line,) = added
    assert {"4914", "23480", "notes.jsonl:"} <= set(line.split())
    assert "82 %" in line


def test_wide_table_has_a_job_a_line_with_its_id() -> None:
    lines = drawn(shown(), WIDE).splitlines()

    assert lines[0].split()[:3] == ["job", "id", "state"]
    (line,) = [line for line in lines if "clinical/notes.jsonl" in line]
    assert line.split() == [
        "clinical/notes.jsonl", JOB, "running", "410000/1000000", "(41", "%)", "3", "1204", "2", "h", "05", "min"
    ]  # fmt: skip
    assert any("old.jsonl" in line and OLD in line for line in lines)


def test_empty_answers_have_a_column_where_there_are_any() -> None:
    (job,) = shown().jobs
    lines = drawn(replace(shown(), jobs=(replace(job, empty=17),)), WIDE).splitlines()

    assert lines[0].split()[3:6] == ["done", "failed", "empty"]
    assert [line.split()[6:8] for line in lines if "clinical/notes.jsonl" in line] == [["3", "17"]]
    assert "empty" not in drawn(shown(), WIDE)


def test_priority_is_shown_beside_the_state_where_there_is_one() -> None:
    assert "running (+10)" in drawn(shown(priority=10), WIDE)


def test_contexts_that_were_chosen_for_a_job_are_told_below() -> None:
    context = "num_ctx 4096 for 9912 requests, 16384 for 88"

    assert f"notes.jsonl: {context}" in drawn(shown(context=context), WIDE)


@pytest.mark.parametrize("name", ["notes.jsonl", "a" * 100 + ".jsonl"])
def test_table_of_80_columns_has_the_id_whole_below_the_name(name: str) -> None:
    text = drawn(shown(name), 80)

    assert max(len(line) for line in text.splitlines()) <= 80
    lines = [line.split() for line in text.splitlines()]
    at = next(number for number, words in enumerate(lines) if words[0].startswith("clinical/"))
    assert lines[at][1:] == ["running", "410000/1000000", "3", "1204", "2", "h", "05", "min"]
    assert lines[at + 1] == [JOB, "41", "%"]
    assert [OLD, "100", "%"] in lines


def test_what_was_published_before_and_what_was_rejected_is_counted() -> None:
    view = shown()
    published = tuple(replace(view.published[0], name=f"{number}.jsonl") for number in range(12))
    rejected = tuple(RejectedView(file=f"bad{number}.jsonl", folder="f", why="a picture") for number in range(5))

    text = drawn(replace(view, published=published, rejected=rejected), WIDE)

    assert "7 published before" in text
    assert "11.jsonl" in text
    assert "rejected: bad4.jsonl: a picture" in text
    assert wording("and-2-more-were-rejected") in text


def test_deadline_has_a_line_with_the_expected_end() -> None:
    view = replace(shown(), updated=1_800_000_000.0)
    job = replace(view.jobs[0], by="2027-01-15T12:00:00.000Z", ends_at="2027-01-15T11:00:00.000Z")

    added = set(drawn(replace(view, jobs=(job,)), WIDE).splitlines()) - set(drawn(view, WIDE).splitlines())
    odd = drawn(replace(view, jobs=(replace(job, by="in a newer form"),)), WIDE)

    (line,) = added
    shown_times = [datetime.fromtimestamp(1_800_000_000 + hours * 3600).strftime("%H:%M") for hours in (4, 3)]
    assert [word.strip(",") for word in line.split() if ":" in word.strip(",:")] == shown_times
    assert "in a newer form" in odd


def test_remark_on_a_job_has_a_line() -> None:
    view = shown()
    job = replace(view.jobs[0], remark="it has no deadline")

    assert f"{job.name}: it has no deadline" in drawn(replace(view, jobs=(job,)), WIDE)
