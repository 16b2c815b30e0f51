"""What is left behind, by hand and by a crash just before each state-changing call."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.spool import disk, ledger, outbox
from obcd.spool.intake import Accepted, accept, accept_claimed
from obcd.spool.layout import Layout
from obcd.spool.recovery import Recovery, load_job, recover
from tests.unit.spool.spools import (
    THREE,
    Crashed,
    accept_bytes,
    answer,
    crash_at,
    drop_of,
    failure,
    finish,
    lines_of,
    make_layout,
    order_of,
    put,
    put_marker,
    record,
)

NOTHING = Recovery((), (), (), ())


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path / "root", "clinical")


def claim_by_hand(layout: Layout, folder: str, content: bytes = THREE, name: str = "notes.jsonl") -> Path:
    claim = layout.claims / folder
    claim.mkdir()
    (claim / name).write_bytes(content)
    return claim


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_empty_spool_has_nothing_to_recover(layout: Layout) -> None:
    assert recover(layout) == NOTHING


def test_unfinished_jobs_come_oldest_first(layout: Layout) -> None:
    headers = {job: accept_bytes(layout, THREE, job) for job in ("job2", "job1", "job3")}

    found = recover(layout)

    assert found.jobs == (headers["job1"], headers["job2"], headers["job3"])
    assert found.claims == ()


def test_half_accepted_job_is_cleared_and_its_claim_taken_up(layout: Layout) -> None:
    (layout.jobs / "job1.tmp").mkdir()
    (layout.jobs / "job1.tmp" / "input.jsonl").write_bytes(b'{"pro')
    claim_by_hand(layout, "job1@clinical")

    (claim,) = recover(layout).claims

    assert list(layout.jobs.iterdir()) == []
    assert (claim.job, claim.drop.key) == ("job1", ("clinical", "notes.jsonl"))
    assert isinstance(accept_claimed(layout, order_of(claim.drop, claim.job)), Accepted)


def test_empty_claim_is_removed(layout: Layout) -> None:
    (layout.claims / "job1").mkdir()

    assert recover(layout) == NOTHING
    assert list(layout.claims.iterdir()) == []


def test_marker_of_a_claim_is_read(layout: Layout) -> None:
    claim = claim_by_hand(layout, "job1")
    put_marker(claim / "notes.jsonl", drop_id="d1", lines=3)

    (found,) = recover(layout).claims

    assert found.drop.marker is not None
    assert found.drop.marker.drop_id == "d1"


def test_marker_that_stayed_in_the_inbox_is_fetched(layout: Layout) -> None:
    claim = claim_by_hand(layout, "job1@clinical")
    marker = put_marker(layout.inbox / "clinical" / "notes.jsonl", drop_id="d1", bytes=len(THREE))

    (found,) = recover(layout).claims

    assert found.drop.marker is not None
    assert found.drop.marker.drop_id == "d1"
    assert not marker.exists()
    assert (claim / "notes.jsonl.done").exists()


def test_marker_of_another_drop_stays_in_the_inbox(layout: Layout) -> None:
    claim_by_hand(layout, "job1")
    marker = put_marker(layout.inbox / "notes.jsonl", drop_id="d2", bytes=4711)

    (found,) = recover(layout).claims

    assert found.drop.marker is None
    assert marker.exists()


@pytest.mark.parametrize("where", ["claim", "inbox"])
def test_marker_that_is_nonsense_does_not_stop_the_recovery(layout: Layout, where: str) -> None:
    claim = claim_by_hand(layout, "job1")
    folder = claim if where == "claim" else layout.inbox
    (folder / "notes.jsonl.done").write_text("[" * 4000, "utf-8")

    (found,) = recover(layout).claims

    assert found.drop.marker is None


def test_damaged_job_whose_original_is_there_is_taken_in_again(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    (layout.jobs / "job1" / "job.json").write_bytes(b"")

    found = recover(layout)

    assert (found.jobs, found.damaged) == ((), ())
    assert [claim.job for claim in found.claims] == ["job1"]


def test_damaged_job_without_its_original_is_kept_and_told(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    (layout.jobs / "job1" / "job.json").unlink()
    disk.remove_tree(layout.claim("job1", ""))

    assert recover(layout).damaged == ("job1",)
    assert (layout.jobs / "job1" / "input.jsonl").read_bytes() == THREE


@pytest.mark.parametrize("content", ["[]", "7", "null", '{"settings": [], "signatures": [3]}', "[" * 90000])
def test_header_that_is_no_object_is_damage(layout: Layout, content: str) -> None:
    accept_bytes(layout, THREE)
    (layout.jobs / "job1" / "job.json").write_text(content, "utf-8")
    disk.remove_tree(layout.claim("job1", ""))

    assert recover(layout).damaged == ("job1",)


def test_strangers_entries_are_passed_over_and_kept(layout: Layout, tmp_path: Path) -> None:
    strays = [layout.jobs / "x.tmp", layout.jobs / "y", layout.claims / "z"]
    links = [layout.jobs / "link.tmp", layout.claims / "link"]
    for path in strays:
        path.write_text("whose?", "utf-8")
    for path in links:
        path.symlink_to(tmp_path)

    assert recover(layout) == NOTHING
    assert all(path.read_text("utf-8") == "whose?" for path in strays)
    assert all(path.is_symlink() for path in links)


def test_job_of_a_newer_version_is_refused_and_kept(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    document = disk.read_json(layout.jobs / "job1" / "job.json")
    disk.write_json(layout.jobs / "job1" / "job.json", {**document, "format": 99})

    with pytest.raises(InputError, match="written by a newer obcd"):
        recover(layout)
    assert (layout.jobs / "job1" / "input.jsonl").exists()


def test_loaded_job_knows_what_is_done(layout: Layout) -> None:
    header = accept_bytes(layout, THREE + b"bad\n")
    record(layout, "job1", [answer(1)])

    loaded = load_job(layout, "job1")

    assert (loaded.header, loaded.column) == (header, b"")
    assert (loaded.replay.done, loaded.replay.counts.responses, loaded.replay.counts.failures) == (
        bytes([0, 1, 0, 1]),
        1,
        1,
    )


def test_loaded_job_of_several_models_has_a_column_of_signatures(layout: Layout) -> None:
    accept_bytes(layout, b'{"prompt": "a"}\n{"prompt": "b", "model": "phi4"}\n')

    assert load_job(layout, "job1").column == bytes([0, 1])


def test_job_whose_ledger_is_gone_is_asked_anew(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    record(layout, "job1", [answer(0)])
    (layout.jobs / "job1" / ledger.NAME).unlink()

    assert load_job(layout, "job1").replay.done == bytes(3)
    assert len(lines_of(finish_after_loss(layout, header.id) / "responses.jsonl")) == 3


def finish_after_loss(layout: Layout, job: str) -> Path:
    writer = ledger.LedgerWriter(layout.jobs / job, 0)
    writer.append([answer(number) for number in range(3)])
    writer.close()
    return outbox.publish(layout, job, {})


# --- a crash before each call ----------------------------------------------------------------------------------------

GOOD = b'{"prompt": "one"}\nbad line\n{"prompt": "two"}\n{"prompt": "three"}\n'
BAD = b"\n \n"


def drop_by_submit(layout: Layout, content: bytes) -> None:
    path = put(layout, content, profile="clinical")
    put_marker(path, bytes=len(content), drop_id="d1")


def live(layout: Layout, job: str) -> None:
    """Do what clerks and recorder do with one drop, from the inbox to the outbox."""
    path = layout.inbox / "clinical" / "notes.jsonl"
    verdict = accept(layout, order_of(drop_of(path, "clinical"), job))
    if isinstance(verdict, Accepted):
        record(layout, job, [answer(2, line=3)])
        record(layout, job, [answer(0), failure(3, line=4)])
        outbox.publish(layout, job, {})


def go_on(layout: Layout, job: str) -> None:
    """Do what a coordinator does that starts after a crash."""
    layout.create(["clinical"])
    found = recover(layout)
    assert found.damaged == ()
    for name in found.unpublished:
        outbox.publish(layout, name, {})
    for header in found.jobs:
        finish(layout, load_job(layout, header.id).header)
    for claim in found.claims:
        verdict = accept_claimed(layout, order_of(claim.drop, claim.job))
        if isinstance(verdict, Accepted):
            finish(layout, load_job(layout, claim.job).header)
    if (layout.inbox / "clinical" / "notes.jsonl").exists():
        live(layout, job)


def assert_published_once(layout: Layout) -> None:
    (folder,) = (layout.outbox / "clinical").iterdir()
    assert folder.name == "notes"
    assert (folder / "input.jsonl").read_bytes() == GOOD
    manifest = disk.read_json(folder / "manifest.json")
    responses, errors = lines_of(folder / "responses.jsonl"), lines_of(folder / "errors.jsonl")
    assert sorted(item["line"] for item in responses + errors) == [1, 2, 3, 4]
    assert [item["line"] for item in responses] in ([1, 3], [1, 3, 4])
    assert manifest["counts"]["responses"] == len(responses)
    assert manifest["counts"]["failures"] == len(errors) == len(lines_raw(folder / "retry.jsonl"))
    assert manifest["drop_id"] == "d1"
    assert {path.name for path in folder.iterdir()} == {
        "input.jsonl", "responses.jsonl", "errors.jsonl", "retry.jsonl", "manifest.json",
    }  # fmt: skip


def assert_rejected_once(layout: Layout) -> None:
    (folder,) = (layout.outbox / "clinical").iterdir()
    assert folder.name == "notes.rejected"
    assert (folder / "input.jsonl").read_bytes() == BAD
    assert disk.read_json(folder / "manifest.json")["drop_id"] == "d1"


def assert_no_leftovers(layout: Layout) -> None:
    assert list(layout.jobs.iterdir()) == []
    assert list(layout.claims.iterdir()) == []
    assert [path.name for path in layout.inbox.glob("**/notes*")] == []
    assert list(layout.root.glob("**/.*.tmp")) == []


def lines_raw(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def calls_of(layout: Layout, content: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    drop_by_submit(layout, content)
    with crash_at(0, monkeypatch) as calls:
        live(layout, "job0")
    return len(calls)


CASES = pytest.mark.parametrize(
    ("content", "check"), [(GOOD, assert_published_once), (BAD, assert_rejected_once)], ids=["good", "bad"]
)


@CASES
def test_crash_before_each_call_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, check: Callable[[Layout], None]
) -> None:
    count = calls_of(make_layout(tmp_path / "whole", "clinical"), content, monkeypatch)
    assert count > 12
    for number in range(1, count + 1):
        layout = make_layout(tmp_path / str(number), "clinical")
        drop_by_submit(layout, content)
        with crash_at(number, monkeypatch), pytest.raises(Crashed):
            live(layout, "job1")

        go_on(layout, "job2")

        check(layout)
        assert_no_leftovers(layout)


@CASES
def test_second_crash_while_the_first_is_mended_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, check: Callable[[Layout], None]
) -> None:
    count = calls_of(make_layout(tmp_path / "whole", "clinical"), content, monkeypatch)
    for first in range(1, count + 1, 3):
        for second in itertools.count(1 + first % 2, 2):
            layout = make_layout(tmp_path / f"{first}-{second}", "clinical")
            drop_by_submit(layout, content)
            with crash_at(first, monkeypatch), pytest.raises(Crashed):
                live(layout, "job1")
            try:
                with crash_at(second, monkeypatch):
                    go_on(layout, "job2")
                is_over = True
            except Crashed:
                is_over = False
                go_on(layout, "job3")

            check(layout)
            assert_no_leftovers(layout)
            if is_over:
                break


@CASES
def test_clerk_that_dies_before_each_call_is_asked_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, check: Callable[[Layout], None]
) -> None:
    """The coordinator lives on: the same order goes to the next clerk, without a recovery between."""
    count = calls_of(make_layout(tmp_path / "whole", "clinical"), content, monkeypatch)
    for number in range(1, count - 3):  # the ledger's calls are fewer here
        layout = make_layout(tmp_path / str(number), "clinical")
        drop_by_submit(layout, content)
        order = order_of(drop_of(layout.inbox / "clinical" / "notes.jsonl", "clinical"))
        crash = crash_at(number, monkeypatch)
        with crash as calls:
            verdict = None
            for _ in range(2):
                try:
                    verdict = accept(layout, order)
                    break
                except Crashed:
                    continue
            if isinstance(verdict, Accepted):
                record_or_again(layout)
                try:
                    outbox.publish(layout, "job1", {})
                except Crashed:
                    outbox.publish(layout, "job1", {})
        assert len(calls) >= number

        check(layout)
        assert list(layout.jobs.iterdir()) == list(layout.claims.iterdir()) == []


def record_or_again(layout: Layout) -> None:
    """Record as the recorder does: a failed append is given to a new writer of the same size."""
    folder = layout.jobs / "job1"
    size = ledger.replay(folder / ledger.NAME, 4).size
    is_recorded = False
    while not is_recorded:
        with contextlib.suppress(Crashed), contextlib.closing(ledger.LedgerWriter(folder, size)) as writer:
            writer.append([answer(2, line=3), answer(0), failure(3, line=4)])
            is_recorded = True
