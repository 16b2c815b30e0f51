"""Disks that are full, read-only, elsewhere or broken: nothing recorded is lost, nothing is done twice, it goes on."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from obcd.coordinator.disk_watch import BALLAST, DiskWatch
from obcd.coordinator.jobs import recorder as module
from obcd.coordinator.jobs.recorder import Entry, Recorder
from obcd.coordinator.loop_waits import Waker
from obcd.core.answer.counts import Counts
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Drop
from obcd.spool.intake.acceptance import Accepted, NotYet, accept, accept_claimed
from obcd.spool.job import ledger
from obcd.spool.outbox import publication
from tests.faults.conftest import Mount
from tests.golden.wording import wording
from tests.support import wait_until
from tests.unit.spool.spools import THREE, accept_bytes, answer, drop_of, finish, lines_of, order_of, put, record

#: Four results of this size do not fit into 64 KiB.
LONG = "x" * 20_000


@pytest.fixture
def room(layout: Layout) -> DiskWatch:
    """Return a room that nobody looks at: it knows what the recorder says."""
    return DiskWatch(layout.root)


def trouble(room: DiskWatch) -> str:
    room.tick(0.0)
    return room.trouble


@pytest.fixture
def recorder(layout: Layout, room: DiskWatch, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    made = Recorder(layout.jobs, Waker(), room)
    yield made
    made.stop(10)


def fill(folder: Path) -> Path:
    """Fill a filesystem to its last byte."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return path


def record_four(recorder: Recorder, layout: Layout) -> None:
    """Hand four long results to the recorder, whose disk takes less."""
    job = accept_bytes(layout, THREE + b'{"prompt": "four"}\n').id
    recorder.open(job, 0)
    for ordinal in range(4):
        recorder.add(Entry(job, answer(ordinal, LONG), Counts(responses=1)))


def await_four(recorder: Recorder) -> None:
    found: list[Entry] = []

    def all_there() -> bool:
        found.extend(recorder.recorded())
        return len(found) == 4

    wait_until(all_there)


def assert_recorded_once(recorder: Recorder, room: DiskWatch, layout: Layout) -> None:
    await_four(recorder)
    wait_until(lambda: trouble(room) == "")
    records = [raw for _, raw in ledger.read_valid(layout.jobs / "job1" / ledger.NAME)]
    assert records == [answer(ordinal, LONG) for ordinal in range(4)]
    assert lines_of(publication.publish(layout, "job1", {}) / "responses.jsonl")[3]["response"] == LONG


@pytest.mark.case("D1")
def test_full_disk_holds_results_until_there_is_room(
    layout: Layout, recorder: Recorder, room: DiskWatch, mount: Mount
) -> None:
    mount(layout.jobs, "size=512k")
    job = accept_bytes(layout, THREE + b'{"prompt": "four"}\n').id
    filler = fill(layout.jobs)
    os.truncate(filler, filler.stat().st_size - 32768)
    recorder.open(job, 0)
    for ordinal in range(4):
        recorder.add(Entry(job, answer(ordinal, LONG), Counts(responses=1)))
    wait_until(lambda: "No space left on device" in trouble(room))

    filler.unlink()

    await_four(recorder)
    recorder.stop(10)
    records = [raw for _, raw in ledger.read_valid(layout.jobs / job / ledger.NAME)]
    assert records == [answer(ordinal, LONG) for ordinal in range(4)]


@pytest.mark.case("D1", "D5")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_results_are_recorded_in_the_place_of_the_ballast_on_a_disk_that_stays_full(
    layout: Layout, recorder: Recorder, room: DiskWatch, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The disk here is full as long as the ballast lies on it."""
    room.look()
    assert trouble(room) == ""
    ballast, real = layout.root / BALLAST, os.write

    def refuse(descriptor: int, data: bytes) -> int:
        if ballast.exists() and os.readlink(f"/proc/self/fd/{descriptor}").endswith(ledger.NAME):
            raise OSError(number, os.strerror(number))
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    record_four(recorder, layout)

    await_four(recorder)
    recorder.stop(10)
    assert not ballast.exists()
    assert "was full" in trouble(room)
    records = [raw for _, raw in ledger.read_valid(layout.jobs / "job1" / ledger.NAME)]
    assert records == [answer(ordinal, LONG) for ordinal in range(4)]
    room.look()
    assert (trouble(room), ballast.exists()) == ("", True)


@pytest.mark.case("D2")
def test_limit_on_file_sizes_holds_results_until_it_is_lifted(
    layout: Layout, recorder: Recorder, room: DiskWatch
) -> None:
    with file_size_limit(50_000):
        record_four(recorder, layout)
        wait_until(lambda: "File too large" in trouble(room))

    assert_recorded_once(recorder, room, layout)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.case("D5", "D6")
@pytest.mark.parametrize(("call", "number"), [("write", errno.EDQUOT), ("fdatasync", errno.EIO), ("write", errno.EIO)])
def test_what_the_disk_refuses_is_given_to_a_new_descriptor(
    layout: Layout, recorder: Recorder, room: DiskWatch, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """After a failed sync the kernel drops the pages and says so once: the same descriptor would report success."""
    real, refused = getattr(os, call), list[int]()

    def refuse(descriptor: int, *arguments: object) -> object:
        if len(refused) < 3 and os.readlink(f"/proc/self/fd/{descriptor}").endswith(ledger.NAME):
            refused.append(os.fstat(descriptor).st_size)
            raise OSError(number, os.strerror(number))
        return real(descriptor, *arguments)

    monkeypatch.setattr(os, call, refuse)
    record_four(recorder, layout)

    assert_recorded_once(recorder, room, layout)
    assert len(refused) == 3


#: 41 KB, with an index as large again: the copy alone fits into 64 KiB.
SMALL = THREE * 750


@pytest.mark.case("D3", "D5")
@pytest.mark.parametrize("options", ["size=64k", "nr_inodes=5"])
def test_full_disk_at_acceptance_leaves_the_claim_to_be_taken_later(layout: Layout, mount: Mount, options: str) -> None:
    drop = drop_of(put(layout, SMALL))
    mount(layout.jobs, options)
    order = order_of(drop)
    with pytest.raises(OSError, match="No space left on device"):
        accept(layout, order)
    assert (layout.claim("job1", "") / "notes.jsonl").read_bytes() == SMALL
    assert not (layout.jobs / "job1").exists()

    subprocess.run(["umount", str(layout.jobs)], check=True, timeout=30)

    verdict = accept_claimed(layout, order)
    assert isinstance(verdict, Accepted)
    assert verdict.header.requests == 2250


@pytest.mark.case("D3")
def test_file_whose_copy_would_fill_the_disk_is_left_in_the_inbox(layout: Layout, mount: Mount) -> None:
    path = put(layout, THREE * 3000)
    mount(layout.jobs, "size=64k")
    order = order_of(drop_of(path))

    assert accept(layout, order) == NotYet(wording("there-is-no-room-for-a"))
    assert path.exists()
    assert list(layout.jobs.iterdir()) == list(layout.claims.iterdir()) == []
    subprocess.run(["umount", str(layout.jobs)], check=True, timeout=30)

    assert isinstance(accept(layout, order), Accepted)


@pytest.mark.case("D4")
def test_full_disk_at_publishing_leaves_the_job_to_be_published_later(layout: Layout, mount: Mount) -> None:
    mount(layout.jobs, "size=256k")
    mount_outbox_beside(layout)
    header = accept_bytes(layout, THREE)
    record(layout, header.id, [answer(ordinal, LONG) for ordinal in range(3)])
    written = (layout.jobs / header.id / ledger.NAME).read_bytes()
    filler = fill(layout.jobs)
    with pytest.raises(OSError, match="No space left on device"):
        publication.publish(layout, header.id, {})
    assert (layout.jobs / header.id / ledger.NAME).read_bytes() == written
    assert list(layout.outbox.iterdir()) == []

    filler.unlink()

    assert len(lines_of(publication.publish(layout, header.id, {}) / "responses.jsonl")) == 3


def mount_outbox_beside(layout: Layout) -> None:
    """Let the outbox lie on the small filesystem too, as both do in one spool."""
    layout.outbox.rmdir()
    (layout.jobs / "outbox").mkdir()
    layout.outbox.symlink_to(layout.jobs / "outbox")


@pytest.mark.case("D7")
def test_outbox_that_is_read_only_is_published_into_when_it_is_not(layout: Layout, mount: Mount) -> None:
    header = accept_bytes(layout, THREE)
    mount(layout.outbox, source=layout.outbox)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(layout.outbox)], check=True, timeout=30)
    with pytest.raises(OSError, check=lambda error: error.errno in (errno.EROFS, errno.EXDEV)):
        finish(layout, header)
    subprocess.run(["umount", str(layout.outbox)], check=True, timeout=30)

    assert len(lines_of(finish(layout, header) / "responses.jsonl")) == 3


@pytest.mark.case("D7")
def test_outbox_that_was_removed_is_made_again(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    shutil.rmtree(layout.outbox)

    assert finish(layout, header) == layout.outbox / "notes"


@pytest.mark.case("D8")
def test_outbox_on_another_filesystem_is_refused_and_nothing_is_lost(layout: Layout, mount: Mount) -> None:
    """One root, one filesystem (design): what cannot be renamed stays a job until it can."""
    header = accept_bytes(layout, THREE)
    mount(layout.outbox)
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EXDEV):
        finish(layout, header)
    assert list(layout.outbox.iterdir()) == []
    subprocess.run(["umount", str(layout.outbox)], check=True, timeout=30)

    assert len(lines_of(finish(layout, header) / "responses.jsonl")) == 3


@pytest.mark.case("D9")
def test_inbox_on_another_filesystem_is_claimed_there_and_copied(scratch: Path, mount: Mount) -> None:
    layout = Layout.at(scratch / "root", str(mount(scratch / "share")))
    layout.create([])
    assert layout.inbox.stat().st_dev != scratch.stat().st_dev

    header = accept_bytes(layout, THREE)

    assert (layout.inbox / ".obcd" / "claim" / header.id / "notes.jsonl").exists()
    assert (finish(layout, header) / "input.jsonl").read_bytes() == THREE
    assert list(layout.claims.iterdir()) == []


@pytest.mark.case("D11")
def test_folder_of_claims_may_be_removed_while_jobs_run(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    shutil.rmtree(layout.claims.parent)

    assert (finish(layout, header) / "input.jsonl").read_bytes() == THREE
    drop: Drop = drop_of(put(layout, THREE, "next.jsonl"))
    assert isinstance(accept(layout, order_of(drop, "job2")), Accepted)
