"""Code made wrong on purpose: each mutant must be found by the check that is there against it, or the check is none."""

from __future__ import annotations

import fcntl
import json
import shutil
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.jobs.recorder import Recorder
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import read_header
from obcd.spool.outbox import publication, publish_rename
from tests.faults import checks
from tests.faults.story import STORIES
from tests.faults.test_power import FEW

Check = Callable[[Path, pytest.MonkeyPatch], Any]
Mutant = Callable[[pytest.MonkeyPatch], None]


def crashes(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    return checks.check_crashes(folder, STORIES["marked"], patch)


def power_cuts(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    return checks.check_power_cuts(folder, STORIES["marked"], patch, FEW)


def no_fsync_of_files(patch: pytest.MonkeyPatch) -> None:
    def sync(self: ledger.LedgerWriter) -> None:
        self.size, self._written = self.size + self._written, 0

    patch.setattr(disk, "sync_file", lambda descriptor, path: None)
    patch.setattr(ledger.LedgerWriter, "sync", sync)


def no_fsync_of_ledgers(patch: pytest.MonkeyPatch) -> None:
    def sync(self: ledger.LedgerWriter) -> None:
        self.size, self._written = self.size + self._written, 0

    patch.setattr(ledger.LedgerWriter, "sync", sync)


def no_fsync_of_folders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(disk, "sync_folder", lambda path: None)


def no_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fcntl, "flock", lambda descriptor, operation: None)


def no_checksum(patch: pytest.MonkeyPatch) -> None:
    def read_valid(path: Path) -> Iterator[tuple[int, bytes]]:
        offset = 0
        for line in path.read_bytes().splitlines(keepends=True):
            offset += len(line)
            yield offset, line[9:-1]

    patch.setattr(ledger, "read_valid", read_valid)


def last_record_wins(patch: pytest.MonkeyPatch) -> None:
    def index_results(path: Path, requests: int) -> array[int]:
        places, start = array("Q", bytes(8 * requests)), 0
        for end, record in ledger.read_valid(path):
            places[json.loads(record)["ordinal"]] = start + 1
            start = end
        return places

    patch.setattr(ledger, "index_results", index_results)


def claim_by_copy_and_delete(patch: pytest.MonkeyPatch) -> None:
    real = disk.rename

    def rename(source: Path, target: Path) -> None:
        if target.parent.parent.name != "claim":
            real(source, target)
            return
        disk.before("write", str(target))
        shutil.copy(source, target)
        disk.sync_folder(target.parent)
        disk.remove(source)
        disk.sync_folder(source.parent)

    patch.setattr(disk, "rename", rename)


def counted_before_it_is_synced(patch: pytest.MonkeyPatch) -> None:
    def record(self: Recorder) -> bool:
        groups = self._write_news({}) or {}
        for job, group in groups.items():
            self._finish(group)
            self._writers[job].sync()
        return True

    patch.setattr(Recorder, "_record", record)


def published_before_its_manifest(patch: pytest.MonkeyPatch) -> None:
    def publish(layout: Layout, job: str, facts: Any) -> Path:
        folder = layout.jobs / job
        if (folder / "manifest.json").exists():
            return publish_rename.show(layout, job)
        header = read_header(folder)
        manifest = publication._manifest(
            header, publication._write_outputs(folder, header), facts, {"modified_after_accept": False}
        )
        target = publish_rename.free_name(layout, header.profile, header.stem, "", job)
        disk.rename(folder, target)
        disk.write_json(target / "manifest.json", manifest)
        for name in publish_rename.WORKING_FILES:
            disk.remove(target / name)
        disk.remove_tree(layout.claim(job, header.profile))
        return target

    patch.setattr(publication, "publish", publish)


def claim_removed_after_publishing(patch: pytest.MonkeyPatch) -> None:
    """Leave the claim until the job is shown: a cut between them takes the file in a second time."""
    real, kept = disk.remove_tree, list[Path]()

    def remove_tree(path: Path) -> None:
        kept.append(path) if path.parent.name == "claim" else real(path)

    def show(layout: Layout, job: str) -> Path:
        with pytest.MonkeyPatch.context() as own:
            own.setattr(disk, "remove_tree", remove_tree)
            target = publish_rename.show(layout, job)
        while kept:
            real(kept.pop())
        return target

    patch.setattr(publication, "show", show)


#: {what is wrong: (how, the check that must find it, what the check says)}
MUTANTS: dict[str, tuple[Mutant, Check, str]] = {
    "no fsync of files": (no_fsync_of_files, power_cuts, ""),
    "no fsync of ledgers": (no_fsync_of_ledgers, power_cuts, "were recorded and are gone"),
    "no fsync of folders": (no_fsync_of_folders, power_cuts, ""),
    "no lock": (no_lock, lambda folder, patch: checks.check_lock(folder), "two coordinators hold"),
    "no checksum": (no_checksum, lambda folder, patch: checks.check_damaged_record(folder / "job"), "counts"),
    "last record wins": (
        last_record_wins,
        lambda folder, patch: checks.check_first_record_wins(folder),
        "the last record won",
    ),
    "claim by copy and delete": (claim_by_copy_and_delete, crashes, ""),
    "counted before it is synced": (
        counted_before_it_is_synced,
        lambda folder, patch: checks.check_recorded_is_durable(folder / "jobs"),
        "a result was counted that a power cut takes",
    ),
    "published before its manifest": (published_before_its_manifest, crashes, "is shown and not finished"),
    "claim removed after publishing": (claim_removed_after_publishing, crashes, ""),
}


@pytest.mark.case("B5")
@pytest.mark.parametrize(("mutant", "check", "finding"), MUTANTS.values(), ids=MUTANTS)
def test_mutant_is_found(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, mutant: Mutant, check: Check, finding: str
) -> None:
    with monkeypatch.context() as patch:
        mutant(patch)
        with pytest.raises(AssertionError) as found:
            check(scratch, patch)

    assert finding in str(found.value)


@pytest.mark.case("B18", "B20", "B22")
@pytest.mark.parametrize("check", {check: name for name, (_, check, _) in MUTANTS.items()})  # each once
def test_code_as_it_is_passes_the_same_check(scratch: Path, monkeypatch: pytest.MonkeyPatch, check: Check) -> None:
    assert check(scratch, monkeypatch)
