"""The preview of a running job: what was recorded, whole lines in the end, whatever is killed, and never in the way."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.results.reading.sources import find_sources
from obcd.results.verify import Verdict, verify
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import preview
from obcd.spool.outbox.preview import ERRORS, RESPONSES, extend, forget
from obcd.spool.outbox.status_folders import StatusFolders
from tests.unit.spool.spools import THREE, accept_bytes, answer, failure, finish, lines_of, record

ME = os.geteuid()


@pytest.fixture
def header(layout: Layout) -> JobHeader:
    return accept_bytes(layout, THREE)


@pytest.fixture
def folders(layout: Layout, header: JobHeader) -> StatusFolders:
    made = StatusFolders(layout)
    made.show_progress(header, {"done": 0})
    return made


@pytest.fixture
def partial(folders: StatusFolders, header: JobHeader) -> Path:
    found = folders.find_partial(header.id)
    assert found is not None
    return found


def show(layout: Layout, partial: Path, done: int = 3, job: str = "job1") -> bool:
    return extend(layout, job, ME, partial, done)


def restart() -> None:
    """Forget what a clerk knows that was killed."""
    preview._open.clear()


def texts(partial: Path) -> list[str]:
    return [line["response"] for line in lines_of(partial / RESPONSES)]


def test_recorded_results_are_added_once(layout: Layout, partial: Path) -> None:
    record(layout, "job1", [answer(1, "II"), failure(0, "no answer")])
    assert show(layout, partial, 2)
    record(layout, "job1", [answer(2, "III")])
    assert show(layout, partial, 2)
    assert texts(partial) == ["II"]

    assert show(layout, partial, 3)

    assert texts(partial) == ["II", "III"]
    assert [(item["line"], item["message"]) for item in lines_of(partial / ERRORS)] == [(1, "no answer")]


@pytest.mark.parametrize("left", [0, 1, 100, 10**6])
def test_killed_clerk_goes_on_in_the_middle_of_a_line(layout: Layout, partial: Path, left: int) -> None:
    record(layout, "job1", [answer(1, "II"), answer(0, "I")])
    show(layout, partial, 2)
    whole = (partial / RESPONSES).read_bytes()
    os.truncate(partial / RESPONSES, min(left, len(whole)))
    restart()
    record(layout, "job1", [answer(2, "III")])

    show(layout, partial)

    assert (partial / RESPONSES).read_bytes().startswith(whole)
    assert texts(partial) == ["II", "I", "III"]


def test_preview_that_was_removed_is_made_again_from_the_beginning(layout: Layout, partial: Path) -> None:
    record(layout, "job1", [answer(1, "II"), answer(0, "I")])
    show(layout, partial, 2)
    forget(layout, "job1", partial)
    assert sorted(path.name for path in partial.iterdir()) == ["progress.json"]
    show(layout, partial, 2)
    (partial / RESPONSES).unlink()  # by somebody else

    show(layout, partial, 2)

    assert texts(partial) == ["II", "I"]


def test_preview_grows_in_pieces_and_ends_at_its_limit(
    layout: Layout, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(layout, "job1", [answer(number) for number in range(3)])
    monkeypatch.setattr(preview, "CALL_BYTES", 1)
    assert [show(layout, partial) for _ in range(3)] == [False, False, False]
    assert show(layout, partial)
    assert texts(partial) == ["fine"] * 3

    forget(layout, "job1", partial)
    monkeypatch.setattr(preview, "MOST_BYTES", 1)
    assert show(layout, partial)
    assert show(layout, partial)

    assert texts(partial) == ["fine"]


def test_disk_that_refuses_a_write_costs_no_line(
    layout: Layout, partial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(layout, "job1", [answer(0, "I"), answer(1, "II")])
    write, calls = os.write, []

    def short(descriptor: int, block: bytes) -> int:
        calls.append(len(block))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, block[:10])

    with monkeypatch.context() as patch:
        patch.setattr("obcd.spool.outbox.preview.os.write", short)
        with pytest.raises(OSError, match="No space"):
            show(layout, partial, 2)

    show(layout, partial, 2)

    assert texts(partial) == ["I", "II"]


def test_group_may_read_a_preview_and_nobody_else(layout: Layout, partial: Path) -> None:
    record(layout, "job1", [answer(0)])
    before = os.umask(0o077)
    try:
        show(layout, partial, 1)
    finally:
        os.umask(before)

    assert {stat.S_IMODE((partial / name).stat().st_mode) for name in (RESPONSES, ERRORS)} == {0o640}


@pytest.mark.skipif(not acl.is_supported(Path("/dev/shm")), reason="no ACLs here")
def test_with_homes_only_the_submitter_may_read_a_preview(layout: Layout) -> None:
    layout, ann = replace(layout, per_user=True), ME + 1
    header = replace(accept_bytes(layout, THREE), uid=ann)
    record(layout, "job1", [answer(0)])
    folders = StatusFolders(layout)
    folders.show_progress(header, {"done": 0})
    partial = folders.find_partial("job1")
    assert partial is not None

    extend(layout, "job1", ann, partial, 1)

    raw = os.getxattr(partial / RESPONSES, acl.ACCESS)
    assert raw == acl.encode(ann, 6, 4)
    assert acl.readers(partial.parent) == (ann,)


def test_links_in_the_place_of_a_preview_are_not_followed(layout: Layout, partial: Path, tmp_path: Path) -> None:
    record(layout, "job1", [answer(0)])
    target = tmp_path / "target"
    target.write_text("mine")
    (partial / RESPONSES).symlink_to(target)

    with pytest.raises(OSError, match="symbolic links"):
        show(layout, partial, 1)

    assert target.read_text() == "mine"


def test_preview_goes_with_its_job_and_counts_nowhere(
    layout: Layout, header: JobHeader, folders: StatusFolders, partial: Path
) -> None:
    record(layout, "job1", [answer(0)])
    show(layout, partial, 1)
    assert find_sources(layout.outbox) == []
    with pytest.raises(InputError):
        find_sources(partial)

    folder = finish(layout, header)
    assert verify("notes", folder).verdict is Verdict.COMPLETE
    restart()
    with pytest.raises(FileNotFoundError):
        show(layout, partial)
    folders.end_progress("job1")

    assert [path.name for path in layout.outbox.iterdir()] == ["notes"]


def test_next_coordinator_removes_the_preview_that_a_killed_one_left(layout: Layout, partial: Path) -> None:
    record(layout, "job1", [answer(0)])
    show(layout, partial, 1)

    StatusFolders(layout).clear()

    assert list(layout.outbox.iterdir()) == []
    with pytest.raises(FileNotFoundError):  # the clerk of the killed one
        show(layout, partial, 1)
