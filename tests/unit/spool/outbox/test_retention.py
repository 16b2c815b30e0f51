from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.clock import timestamp
from obcd.core.answer.outcomes import ModelAnswer
from obcd.spool.folders import acl, disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import make_place
from obcd.spool.job.cache import AnswerCache
from obcd.spool.job.repeat_index import note
from obcd.spool.outbox import retention
from obcd.spool.outbox.retention import HIDDEN, sweep
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, Crashed, accept_bytes, crash_at, finish, make_layout

#: Unix seconds: what was published at OLD is older than LIMIT.
OLD, LIMIT, NEW = 1_700_000_000.0, 1_750_000_000.0, 1_795_000_000.0


@pytest.fixture
def spool(tmp_path: Path) -> Layout:
    return make_layout(tmp_path / "root", "clinical")


def published(folder: Path, job: str, at: float, changes: dict[str, object] | None = None) -> Path:
    """Make a folder that looks as a job does that was published then."""
    folder.mkdir(parents=True)
    manifest = {"obcd": "1", "job": job, "name": "n.jsonl", "times": {"published_at": timestamp(at)}}
    disk.write_json(folder / "manifest.json", manifest | (changes or {}))
    (folder / "input.jsonl").write_bytes(THREE)
    return folder


def test_what_is_older_is_deleted_wherever_it_lies_and_named(spool: Layout) -> None:
    old = [
        published(spool.outbox / place, f"job{number}", OLD)
        for number, place in enumerate(["a", "clinical/b", "ann/c", "ann/clinical/d", "e.rejected", "f.repeated"])
    ]
    new = [published(spool.outbox / place, "job9", NEW) for place in ("n", "clinical/n", "ann/clinical/n")]

    swept = sweep(spool, LIMIT)

    assert sorted(swept.jobs) == sorted((f"job{number}", str(folder)) for number, folder in enumerate(old))
    assert (swept.is_done, swept.trouble) == (True, "")
    assert not any(folder.exists() for folder in old)
    assert all((folder / "input.jsonl").exists() for folder in new)
    assert not list(spool.outbox.glob(f"**/{HIDDEN}*"))


def test_trial_is_deleted_long_before_other_jobs_unless_it_is_kept(spool: Layout) -> None:
    trial = published(spool.outbox / "n.try", "job1", OLD, {"trial": "remove"})
    kept = published(spool.outbox / "k.try", "job2", OLD, {"trial": "keep"})
    other = published(spool.outbox / "n", "job3", OLD)
    assert sweep(spool, 0.0, OLD - 1).trials == []

    swept = sweep(spool, 0.0, OLD + 1)

    assert (swept.jobs, swept.trials) == ([], [("job1", str(trial))])
    assert [path.exists() for path in (trial, kept, other)] == [False, True, True]
    assert sweep(spool, LIMIT).trials == [("job2", str(kept))]


def test_job_that_was_really_published_is_deleted_in_its_time(spool: Layout) -> None:
    folder = finish(spool, accept_bytes(spool, THREE))
    moment = folder.stat().st_mtime

    assert sweep(spool, moment - 60).jobs == []
    assert folder.exists()
    assert sweep(spool, moment + 60).jobs == [("job1", str(folder))]
    assert not folder.exists()


@pytest.mark.case("F20")
@pytest.mark.parametrize("place", ["", "clinical", "old", "ann/old"])
def test_target_of_a_link_that_was_planted_is_untouched(spool: Layout, place: str, tmp_path: Path) -> None:
    target = published(tmp_path / "target", "job8", OLD)
    old = [published(spool.outbox / name, "job1", OLD) for name in ("old", "ann/old", "clinical/old")]
    link = spool.outbox / place / "link"
    link.symlink_to(target)
    (spool.outbox / place / "responses.jsonl").symlink_to(target / "input.jsonl")

    swept = sweep(spool, LIMIT)

    assert len(swept.jobs) == 3
    assert not any(folder.exists() for folder in old)
    assert (target / "input.jsonl").read_bytes() == THREE
    assert os.path.lexists(link) is (place in ("", "clinical"))  # elsewhere it went with the folder, as a link


@pytest.mark.case("F20")
def test_link_in_the_place_of_a_manifest_or_of_a_hidden_folder_is_not_followed(spool: Layout, tmp_path: Path) -> None:
    target = published(tmp_path / "target", "job8", OLD)
    (spool.outbox / "fake").mkdir()
    (spool.outbox / "fake" / "manifest.json").symlink_to(target / "manifest.json")
    (spool.outbox / f"{HIDDEN}job8").symlink_to(target)

    assert sweep(spool, LIMIT).jobs == []
    assert (target / "input.jsonl").exists()
    assert (spool.outbox / "fake").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"obcd": None, "job": "../../etc"},
        {"times": {"published_at": "yesterday"}},
        {"times": {"published_at": timestamp(OLD).removesuffix("Z")}},
        {"times": {}},
        {"times": None},
        {"job": 7, "times": {"published_at": 7}},
    ],
)
def test_manifest_that_does_not_say_when_is_kept(spool: Layout, changes: dict[str, object]) -> None:
    folder = published(spool.outbox / "odd", "job1", OLD, changes)

    assert sweep(spool, LIMIT).jobs == []
    assert folder.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"job": "job1"', b"[" * 100_000, b"\xff"])
def test_folder_without_a_manifest_of_ours_is_kept(spool: Layout, content: bytes) -> None:
    folder = spool.outbox / "theirs"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(content)
    os.mkfifo(spool.outbox / "fifo")
    (spool.outbox / "piped").mkdir()
    os.mkfifo(spool.outbox / "piped" / "manifest.json")

    assert sweep(spool, LIMIT).jobs == []
    assert (folder / "manifest.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
@pytest.mark.parametrize("what", ["", "manifest.json"])
def test_folder_or_manifest_of_another_user_is_kept(spool: Layout, what: str) -> None:
    folder = published(spool.outbox / "theirs", "job1", OLD)
    os.chown(folder / what, 61003, -1)

    assert sweep(spool, LIMIT).jobs == []
    assert folder.exists()


def test_crash_at_any_step_leaves_nothing_that_looks_published_and_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = 0
    for number in itertools.count(1):
        spool = make_layout(tmp_path / f"root{number}")
        folders = [published(spool.outbox / name, f"job-{name}", OLD) for name in ("a", "b")]

        with crash_at(number, monkeypatch) as calls:
            died = died_of(spool)
        counted = len(calls)

        for folder in folders:
            assert not folder.exists() or {"manifest.json", "input.jsonl"} <= set(os.listdir(folder))
        sweep(spool, 0)
        assert not list(spool.outbox.glob(f"{HIDDEN}*"))
        sweep(spool, LIMIT)
        assert list(spool.outbox.iterdir()) == []
        if not died:
            break
    assert counted == 6  # out of sight, synced, deleted: twice


def died_of(spool: Layout) -> bool:
    try:
        sweep(spool, LIMIT)
    except Crashed:
        return True
    return False


def test_deletion_that_breaks_off_inside_a_folder_goes_on_next_time(
    spool: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(spool.outbox / "a", "job1", OLD)
    other = published(spool.outbox / "b", "job2", OLD)
    real = shutil.rmtree

    def broken(name: str, dir_fd: int) -> None:
        if "job1" in name:
            raise PermissionError(13, "Permission denied")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(shutil, "rmtree", broken)
    swept = sweep(spool, LIMIT)

    assert [job for job, _ in swept.jobs] == ["job1", "job2"]
    assert swept.trouble == f"Permission denied ({spool.outbox / 'a'})"
    assert not other.exists()
    monkeypatch.undo()
    assert sweep(spool, 0).jobs == []
    assert list(spool.outbox.iterdir()) == []


def test_thousands_are_deleted_in_portions(spool: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST", 2)
    for number in range(5):
        published(spool.outbox / f"n{number}", f"job{number}", OLD)

    portions = [sweep(spool, LIMIT) for _ in range(3)]

    assert [(len(swept.jobs), swept.is_done) for swept in portions] == [(2, False), (2, False), (1, True)]


def test_nothing_is_deleted_when_answers_are_kept_for_ever(spool: Layout) -> None:
    folder = published(spool.outbox / "a", "job1", OLD)

    assert sweep(spool, 0).jobs == []
    assert folder.exists()


def test_records_of_what_was_answered_go_with_their_time(spool: Layout) -> None:
    for at, name in ((OLD, "old.jsonl"), (NEW, "new.jsonl")):
        manifest = {
            "job": "job1",
            "name": name,
            "profile": "",
            "times": {"published_at": timestamp(at)},
            "counts": {"responses": 3, "failures": 0},
            "submitter": {"uid": 0},
            "input": {"sha256": "ab"},
        }
        note(spool, manifest, spool.outbox / "notes")
    (spool.answered / "damaged.json").write_text("{", "utf-8")
    records = set(spool.answered.iterdir())

    sweep(spool, 0)
    assert set(spool.answered.iterdir()) == records
    sweep(spool, LIMIT)

    (left,) = spool.answered.iterdir()
    assert disk.read_json(left)["published_at"] == timestamp(NEW)


def test_outbox_that_is_gone_holds_nothing_to_delete(spool: Layout) -> None:
    spool.outbox.rmdir()

    assert sweep(spool, LIMIT).jobs == []


def test_home_of_a_submitter_stays(spool: Layout) -> None:
    if not acl.has_acls(spool.jobs):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    private = replace(spool, per_user=True)
    home = make_place(private, os.geteuid(), "clinical")
    published(home / "a", "job1", OLD)

    assert len(sweep(private, LIMIT).jobs) == 1
    assert home.is_dir()


def test_remembered_answers_are_forgotten_in_their_time(spool: Layout) -> None:
    kept = AnswerCache(spool.cache, lambda _: None)
    for key, at in ((b"old", OLD), (b"new", NEW)):
        kept.keep(key, ModelAnswer(text="So.", finished=at))

    swept = sweep(spool, LIMIT)

    assert (kept.find(b"old"), kept.find(b"new")) == (None, ModelAnswer(text="So.", finished=NEW))
    assert (swept.jobs, swept.is_done, swept.trouble) == ([], True, "")


def test_damaged_cache_is_told_and_keeps_nothing_else_from_being_swept(spool: Layout) -> None:
    published(spool.outbox / "a", "job1", OLD)
    spool.cache.write_bytes(b"no database" * 500)

    swept = sweep(spool, LIMIT)

    assert (len(swept.jobs), swept.trouble) == (1, wording("it-is-damaged-2", spool.cache))
