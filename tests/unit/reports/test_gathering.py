"""What a report says: of a job by its manifest, of its time by the history."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.coordinator.view import FurtherJobView, JobState, JobView
from obcd.reports import gathering
from obcd.reports.gathering import (
    ESTIMATED,
    NO_ENERGY,
    NO_HISTORY,
    PART_OF_HISTORY,
    SHARED,
    UNFINISHED,
    UNREADABLE,
    report_job,
    report_period,
)
from obcd.reports.report import Report, ReportedIdle
from obcd.spool.folders.layout import Layout
from obcd.spool.history.history_files import read_history, write_history
from tests.unit.coordinator.history.test_minutes import VIEW
from tests.unit.reports.support import NOW, SECRET, make_job, make_root, minute


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "wall", lambda: NOW)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_root(tmp_path / "root")


def on_job(layout: Layout, word: str = "notes") -> Report:
    found = report_job(layout, word, None)
    assert found is not None
    return found


#: In the form of a job's id.
ID = "20261122T123320-0123456789ab"


@pytest.mark.parametrize("word", ["notes", "notes.jsonl", ID])
def test_report_on_a_job_has_what_its_manifest_says(tmp_path: Path, word: str) -> None:
    found = on_job(make_root(tmp_path / "root", job=ID), word)

    (job,) = found.jobs
    assert (job.requests, job.responses, job.failures, job.cut_short) == (100, 97, 3, 1)
    assert job.failures_by_class == {"timeout": 2, "no_json": 1}
    assert (job.seconds, job.responses_per_second, job.output_tokens_per_second) == (600.0, 0.162, 8.1)
    assert (found.start, found.end, found.covered_seconds) == (NOW - 1200, NOW - 600, 600.0)


def test_folder_of_a_job_is_found_from_anywhere(layout: Layout) -> None:
    assert on_job(layout, str(layout.outbox / "notes")).jobs[0].job == "id-notes"
    assert report_job(layout, "others", None) is None


def test_word_means_the_same_job_as_in_other_commands(layout: Layout) -> None:
    running = JobView(job=ID, name="notes.jsonl", profile="", state=JobState.RUNNING, total=900, done=61)
    progress = layout.outbox / "notes.partial" / "progress.json"
    progress.parent.mkdir()

    for view in (replace(VIEW, jobs=(running,)), None):  # without a status the progress folder has it
        progress.write_text(json.dumps(running.to_json()), "utf-8")
        found = report_job(layout, "notes", view)
        assert found is not None
        assert (found.jobs[0].state, found.jobs[0].responses) == ("RUNNING", 61)

    (layout.inbox).mkdir()
    (layout.inbox / "notes.jsonl").write_bytes(b"")
    with pytest.raises(ValueError, match="its file is in the inbox"):
        report_job(layout, "notes", None)


def test_job_without_figures_has_its_reason(layout: Layout) -> None:
    further = FurtherJobView(job=ID, name="late.jsonl", profile="", state=JobState.ACCEPTED)
    rejected = make_job(layout.outbox, "bad.rejected", NOW - 500, NOW - 100)
    (rejected / "manifest.json").write_text('{"job": "x", "name": "bad.jsonl", "rejected": "it has no line"}', "utf-8")

    with pytest.raises(ValueError, match="no figures before it runs"):
        report_job(layout, "late", replace(VIEW, further_jobs=(further,)))
    with pytest.raises(ValueError, match="it was rejected: it has no line"):
        report_job(layout, "bad", None)


def test_energy_of_a_job_is_that_of_its_cards_by_its_part_of_the_work(layout: Layout) -> None:
    found = on_job(layout)

    assert (found.energy.cards, found.energy.joules, found.energy.share) == (
        1,
        60_000.0,
        0.5,
    )  # card 0 serves it: 100 W
    assert found.energy.watt_hours == pytest.approx(30_000 / 3600, abs=0.001)
    assert found.energy.output_tokens_per_watt_hour == pytest.approx(4850 / (30_000 / 3600), rel=0.001)
    assert found.energy.tokens_per_watt_hour == pytest.approx((9700 + 4850) / (30_000 / 3600), rel=0.001)
    assert found.notes == (SHARED,)


def test_where_the_cards_of_a_job_are_not_known_all_of_them_count(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    for number in range(31):
        write_history(tmp_path, minute(NOW - 60.0 * (30 - number), "id-notes", number, endpoint="elsewhere"))
    make_job(layout.outbox, "notes", NOW - 1200, NOW - 600)

    assert on_job(layout).energy.cards == 2


def test_plots_of_a_job_have_its_own_speed_beside_that_of_all(layout: Layout) -> None:
    found = on_job(layout)

    assert [point.responses for point in found.points] == [1.0] * 10
    assert [point.responses for point in found.job_points] == [0.5] * 10
    assert [point.output_tokens for point in found.job_points] == [10.0] * 10


def test_endpoint_of_a_job_has_its_card_and_the_part_of_the_job(layout: Layout) -> None:
    (item,) = on_job(layout).endpoints

    assert (item.name, item.host, item.product, item.responses, item.job_output_tokens) == ("a", "h", "H100", 97, 4850)
    assert (item.up, item.busy, item.answered) == (1.0, 1.0, 600)


def test_idle_slots_have_their_reason_and_their_share(layout: Layout) -> None:
    assert on_job(layout).idle == (ReportedIdle(reason="endpoint_down", slot_seconds=9600.0, share=0.5),)


def test_report_on_a_time_sums_the_history(layout: Layout) -> None:
    found = report_period(layout, NOW - 1800, NOW, None)

    assert (found.responses, found.failures, found.prompt_tokens, found.output_tokens) == (1800, 30, 180_000, 36_000)
    assert (found.failures_by_class, found.retries_by_class) == ({"timeout": 30}, {"busy": 60})
    assert [card.joules for card in found.cards] == [180_000.0, 540_000.0]
    assert (found.energy.joules, found.energy.share, found.energy.watt_hours) == (720_000.0, 1.0, 200.0)
    assert found.energy.output_tokens_per_watt_hour == 180.0
    assert [(item.name, item.up, item.busy) for item in found.endpoints] == [("a", 1.0, 1.0), ("b", 0.0, 0.0)]
    assert found.notes == ()


def test_line_at_the_edge_of_a_time_counts_by_its_part(layout: Layout) -> None:
    assert report_period(layout, NOW - 90, NOW - 30, None).responses == 60


def test_jobs_of_a_time_are_those_that_ran_in_it_the_last_first(layout: Layout) -> None:
    make_job(layout.outbox / "profile", "late", NOW - 500, NOW - 100)
    make_job(layout.outbox, "long-ago", NOW - 9000, NOW - 8000)
    rejected = make_job(layout.outbox, "bad.rejected", NOW - 500, NOW - 100)
    (rejected / "manifest.json").write_text('{"job": "x", "name": "bad", "rejected": "no line"}', "utf-8")
    (make_job(layout.outbox, "damaged", NOW - 500, NOW - 100) / "manifest.json").write_text('{"job": 7}', "utf-8")

    found = report_period(layout, NOW - 1800, NOW, None)

    assert [job.name for job in found.jobs] == ["late.jsonl", "notes.jsonl"]


def test_more_jobs_than_a_report_lists_are_counted(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_JOBS", 1)
    make_job(layout.outbox, "more", NOW - 500, NOW - 100)

    found = report_period(layout, NOW - 1800, NOW, None)

    assert (len(found.jobs), found.more_jobs) == (1, 1)


def test_job_that_runs_has_its_figures_so_far(layout: Layout) -> None:
    for number in (31, 32):
        write_history(layout.root, minute(NOW + 60.0 * (number - 30), "20261122T123320-ab", number))
    running = JobView(
        job="20261122T123320-ab", name="big.jsonl", profile="p", state=JobState.RUNNING, total=900, done=61, failed=1,
        failed_by_class={"timeout": 1}, tokens_per_second=20.0, requests_per_second=0.5, work_seconds=100.0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "wall", lambda: NOW + 120)
        found = report_job(layout, "p/big.jsonl", replace(VIEW, jobs=(running,)))

    assert found is not None
    (job,) = found.jobs
    assert (job.state, job.responses, job.failures_by_class) == ("RUNNING", 60, {"timeout": 1})
    assert (job.prompt_tokens, job.output_tokens, job.output_tokens_per_second) == (6000, 1200, 20.0)
    assert UNFINISHED in found.notes


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    make_job(layout.outbox, "notes", NOW - 1200, NOW - 600)
    assert on_job(layout).notes == (NO_HISTORY,)

    for number in range(5):
        write_history(tmp_path, minute(NOW - 900 + 60.0 * number, "id-notes", number, cards=0))
    assert on_job(layout).notes == (PART_OF_HISTORY, SHARED, NO_ENERGY)


def test_energy_by_power_alone_is_called_an_estimate(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    make_job(layout.outbox, "notes", NOW - 1200, NOW - 600)
    for number in range(31):
        line = minute(NOW - 60.0 * (30 - number), "id-notes", number)
        write_history(tmp_path, replace(line, cards=replace(line.cards, energy_joules=(None, None))))

    found = on_job(layout)

    assert (found.energy.joules, found.energy.estimated_joules) == (60_000.0, 60_000.0)
    assert ESTIMATED in found.notes


def test_history_that_may_not_be_read_leaves_what_the_manifest_says(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(gathering, "read_history", refuse)

    found = on_job(layout)

    assert (found.jobs[0].responses, found.points, found.notes) == (97, (), (UNREADABLE,))


def test_report_survives_its_json_and_never_has_a_prompt_or_a_message(layout: Layout) -> None:
    text = json.dumps(on_job(layout).to_json())

    assert Report.from_json(json.loads(text)) == on_job(layout)
    assert SECRET not in text


def test_openai_lines_have_their_class_too(layout: Layout) -> None:
    line = {"id": "batch_req_x_1", "custom_id": "a", "response": None, "error": {"code": "timeout", "message": SECRET}}
    (layout.outbox / "notes" / "errors.jsonl").write_text(json.dumps(line) + "\n{torn", "utf-8")

    assert sum(on_job(layout).jobs[0].failures_by_class.values()) == 1


def test_sums_of_a_history_are_those_of_its_lines(layout: Layout) -> None:
    lines = list(read_history(layout.root))
    found = report_period(layout, NOW - 86400, NOW + 1, None)

    assert found.responses == sum(line.responses for line in lines)
