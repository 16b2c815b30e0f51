"""`repeat = "skip"`: a drop that was answered before is not computed again, whatever crashes in between."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Drop
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import Accepted, Repeated, accept, accept_claimed
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job import repeat_index
from obcd.spool.outbox import publication
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.spool.outbox.retention import sweep
from tests.faults import checks
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    THREE,
    Crashed,
    accepted,
    crash_at,
    drop_of,
    finish,
    make_layout,
    order_of,
    put,
    put_marker,
)

NAME, PROFILE = "notes.jsonl", "clinical"


@pytest.fixture
def spool(scratch: Path) -> Layout:
    return make_layout(scratch / "root", PROFILE)


def order(layout: Layout, job: str, content: bytes = THREE, name: str = NAME, since: float | None = 0.0) -> AcceptOrder:
    """Drop a file and return the order to accept it."""
    path = put(layout, content, name, PROFILE)
    return order_of(drop_of(path, PROFILE), job, answered_since=since)


def answer_first(layout: Layout) -> Path:
    header = accepted(layout, order(layout, "job1"))
    return finish(layout, header)


@pytest.mark.case("A16")
@pytest.mark.parametrize("is_taken_away", [False, True], ids=["answers there", "answers taken away"])
def test_drop_that_was_answered_before_ends_as_a_pointer(spool: Layout, is_taken_away: bool) -> None:
    earlier = answer_first(spool)
    manifest = disk.read_json(earlier / MANIFEST)
    if is_taken_away:
        shutil.rmtree(earlier)
    path = put(spool, THREE, NAME, PROFILE)
    put_marker(path, drop_id="d2")

    verdict = accept(spool, order_of(drop_of(path, PROFILE), "job2", answered_since=0.0))

    folder = spool.outbox / PROFILE / "notes.repeated"
    assert verdict == Repeated("job2", "job1", folder)
    document = disk.read_json(folder / MANIFEST)
    assert document["repeats"] == {
        "job": "job1",
        "folder": f"{PROFILE}/notes",
        "published_at": manifest["times"]["published_at"],
        "responses": 3,
        "failures": 0,
    }
    assert (document["drop_id"], document["input"]) == (
        "d2",
        {"sha256": manifest["input"]["sha256"], "bytes": len(THREE)},
    )
    assert [item.name for item in folder.iterdir()] == [MANIFEST]
    assert list(spool.jobs.iterdir()) == list(spool.claims.iterdir()) == []
    found = publication.find_published(spool.outbox, "d2", NAME, PROFILE)
    assert found == (folder, document)


@pytest.mark.parametrize("what", ["content", "name", "rule", "time", "record"])
def test_drop_that_is_not_the_same_is_computed(spool: Layout, what: str) -> None:
    answer_first(spool)
    if what == "record":
        next(spool.answered.iterdir()).write_text(json.dumps({"published_at": 7}), "utf-8")
    orders = {
        "content": lambda: order(spool, "job2", THREE + b'{"prompt": "four"}\n'),
        "name": lambda: order(spool, "job2", name="others.jsonl"),
        "rule": lambda: order(spool, "job2", since=None),
        "time": lambda: order(spool, "job2", since=4e9),
        "record": lambda: order(spool, "job2"),
    }

    assert isinstance(accept(spool, orders[what]()), Accepted)


def test_only_the_same_submitter_and_folder_count(spool: Layout) -> None:
    answer_first(spool)
    elsewhere = accept(spool, order_of(drop_of(put(spool, THREE, NAME)), "job2", answered_since=0.0))
    again = accept(spool, order(spool, "job3", since=None))

    assert isinstance(elsewhere, Accepted)
    assert isinstance(again, Accepted)
    assert repeat_index.find(spool, elsewhere.header, 0.0) is None
    assert repeat_index.find(spool, again.header, 0.0) is not None
    assert repeat_index.find(spool, replace(again.header, uid=again.header.uid + 1), 0.0) is None


def test_job_that_was_not_to_be_remembered_leaves_no_record(spool: Layout) -> None:
    header = accepted(spool, order(spool, "job1", since=None))
    finish(spool, header)

    assert not spool.answered.exists()
    assert isinstance(accept(spool, order(spool, "job2")), Accepted)


def test_rejected_and_repeated_drops_answer_nothing(spool: Layout) -> None:
    accept(spool, order(spool, "job1", b"\n\n"))
    assert not spool.answered.exists()
    answer_first(spool)
    (record,) = spool.answered.iterdir()
    before = record.read_bytes()

    for number in (2, 3):
        accept(spool, order(spool, f"job{number}"))

    assert record.read_bytes() == before
    names = sorted(path.name for path in (spool.outbox / PROFILE).iterdir())
    assert names == ["notes", "notes.job3.repeated", "notes.rejected", "notes.repeated"]


def test_crash_at_any_step_of_publishing_leaves_it_answered_once_it_is_shown(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = checks.Places(scratch)
    with checks.quick_syncs():
        for number in itertools.count(1):
            spool = make_layout(places.next(), PROFILE)
            verdict = accept(spool, order(spool, "job1"))
            assert isinstance(verdict, Accepted)
            with crash_at(number, monkeypatch):
                is_whole = survived(spool, verdict)
            for job in recovery.recover(spool).unpublished:
                publication.publish(spool, job, {})
            if (spool.outbox / PROFILE / "notes").exists():  # else it is asked again, as any job
                shutil.rmtree(spool.outbox / PROFILE / "notes")
                assert isinstance(accept(spool, order(spool, "job2")), Repeated)
            if is_whole:
                break
    assert number > 20


def survived(spool: Layout, verdict: Accepted) -> bool:
    try:
        finish(spool, verdict.header)
    except Crashed:
        return False
    return True


@pytest.mark.parametrize("is_new_coordinator", [False, True], ids=["clerk died", "coordinator died"])
def test_crash_at_any_step_of_a_repeated_drop_leaves_one_pointer_and_nothing_to_compute(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, is_new_coordinator: bool
) -> None:
    places = checks.Places(scratch)
    with checks.quick_syncs():
        for number in itertools.count(1):
            spool = make_layout(places.next(), PROFILE)
            answer_first(spool)
            wanted = order(spool, "job2")
            died = False
            with crash_at(number, monkeypatch):
                try:
                    accept(spool, wanted)
                except Crashed:
                    died = True
            if died:
                go_on(spool, wanted) if is_new_coordinator else accept(spool, wanted)
            names = sorted(path.name for path in (spool.outbox / PROFILE).iterdir())
            assert names == ["notes", "notes.repeated"], number
            assert list(spool.jobs.iterdir()) == list(spool.claims.iterdir()) == []
            if not died:
                break
    assert number > 20


def go_on(spool: Layout, wanted: AcceptOrder) -> None:
    """Do what the next coordinator does with what the crash left."""
    found = recovery.recover(spool)
    assert not found.jobs
    assert not found.damaged
    for job in found.unpublished:
        publication.publish(spool, job, {})
    for claim in found.claims:
        drop: Drop = claim.drop
        accept_claimed(spool, replace(wanted, drop=drop, job=claim.job))
    if (spool.inbox / PROFILE / NAME).exists():
        accept(spool, replace(wanted, drop=drop_of(spool.inbox / PROFILE / NAME, PROFILE), job="job3"))


def test_what_retention_deleted_is_computed_anew(spool: Layout) -> None:
    folder = answer_first(spool)
    later = folder.stat().st_mtime + 60

    sweep(spool, later)

    assert list(spool.answered.iterdir()) == []
    assert isinstance(accept(spool, order(spool, "job2", since=later)), Accepted)


def test_stranger_in_the_place_of_the_records_stops_the_publishing_and_loses_nothing(
    spool: Layout, tmp_path: Path
) -> None:
    spool.answered.symlink_to(tmp_path)
    header = accepted(spool, order(spool, "job1"))

    with pytest.raises(InputError, match=wording("is-not-a-folder")):
        finish(spool, header)

    spool.answered.unlink()
    assert (finish(spool, header) / "responses.jsonl").exists()
    assert list(tmp_path.iterdir()) == []
