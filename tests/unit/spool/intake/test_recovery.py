"""What is left behind, laid out by hand; tests/faults has the crashes that leave it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.acceptance import Accepted, accept, accept_claimed
from obcd.spool.intake.recovery import Recovery, load_job, recover
from obcd.spool.job import ledger
from obcd.spool.outbox import publication
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    SETTINGS,
    THREE,
    accept_bytes,
    answer,
    drop_of,
    lines_of,
    order_of,
    put,
    put_marker,
    record,
)

NOTHING = Recovery((), (), (), ())


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

    with pytest.raises(InputError, match=wording("written-by-a-newer-obcd")):
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
    return publication.publish(layout, job, {})


def test_prompts_too_long_for_a_job_whose_ledger_is_gone_are_not_asked(layout: Layout) -> None:
    auto = replace(SETTINGS, num_ctx=4096, num_ctx_max=4096, num_predict=100)
    lines = [{"prompt": "7" * length} for length in (10, 3000, 90_000, 10)]
    content = "".join(json.dumps(line) + "\n" for line in [*lines, {"prompt": "a", "options": {"num_ctx": 99}}])
    accept(layout, order_of(drop_of(put(layout, content.encode())), settings=auto))
    before = (layout.jobs / "job1" / ledger.NAME).read_bytes()
    (layout.jobs / "job1" / ledger.NAME).unlink()

    loaded = load_job(layout, "job1")

    assert loaded.replay.done == bytes([0, 0, 1, 0, 0])
    assert (layout.jobs / "job1" / ledger.NAME).read_bytes() == before


def test_bad_lines_of_a_job_whose_ledger_is_gone_are_not_asked(layout: Layout) -> None:
    """Their failures were written at acceptance and went with the ledger; nothing can be asked by them."""
    header = accept_bytes(layout, b"bad\n" + THREE + b'{"prompt": ""}\n')
    before = (layout.jobs / "job1" / ledger.NAME).read_bytes()
    (layout.jobs / "job1" / ledger.NAME).unlink()

    loaded = load_job(layout, "job1")

    assert (loaded.header, loaded.replay.done) == (header, bytes([1, 0, 0, 0, 1]))
    assert (layout.jobs / "job1" / ledger.NAME).read_bytes() == before
