from __future__ import annotations

import os
from pathlib import Path

import pytest

from obcd.clock import wall
from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.intake.acceptance import Accepted, accept
from obcd.spool.submit import staging
from obcd.spool.submit.dropping import Submitted
from obcd.spool.submit.exactly_once import DropRecord
from obcd.spool.submit.line_check import LineCheck
from obcd.spool.submit.staging import Left, Staging
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, Crashed, crash_at, make_layout, order_of, scan

LATER = 100.0  # seconds: everything has settled by then


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "staging"
    path.mkdir()
    return path


def run(layout: Layout, folder: Path, later: float = LATER, profile: str = "") -> list[Submitted | Left]:
    one = Staging(
        folder=folder, inbox=layout.inbox, profile=profile, settle_seconds=5.0, max_line_bytes=2**20
    )  # fmt: skip
    return list(one.submit(wall() + later))


def put(folder: Path, name: str = "notes.jsonl", content: bytes = THREE) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def take(layout: Layout, tag: str = "a") -> list[str]:
    """Take what lies in the inbox, as the coordinator does; returns the names."""
    drops = scan(Inbox(layout.inbox, ["clinical"], 5.0, require_marker=True), 0.0)
    verdicts = [accept(layout, order_of(drop, f"job-{tag}{index}")) for index, drop in enumerate(drops)]
    return sorted(verdict.header.name for verdict in verdicts if isinstance(verdict, Accepted))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_settled_files_are_dropped_and_moved_aside(layout: Layout, folder: Path) -> None:
    put(folder, "a.jsonl")
    put(folder, "b.jsonl")

    outcomes = run(layout, folder, profile="clinical")

    assert [(type(item), item.name) for item in outcomes] == [(Submitted, "a.jsonl"), (Submitted, "b.jsonl")]
    assert names(folder) == ["submitted"]
    assert names(folder / "submitted") == [".records", "a.jsonl", "b.jsonl"]
    assert names(folder / "submitted" / ".records") == []
    assert take(layout) == ["a.jsonl", "b.jsonl"]


def test_empty_folder_is_nothing_to_do(layout: Layout, folder: Path) -> None:
    assert run(layout, folder) == []


@pytest.mark.parametrize("name", [".hidden.jsonl", "notes.jsonl.tmp", "notes.jsonl.part", "notes.txt", "notes.jsonl~"])
def test_what_is_no_finished_prompt_file_is_passed_over(layout: Layout, folder: Path, name: str) -> None:
    put(folder, name)

    assert run(layout, folder) == []
    assert names(folder) == [name, "submitted"]


def test_file_that_changed_just_now_is_left_for_the_next_time(layout: Layout, folder: Path) -> None:
    path = put(folder)
    os.utime(path, (0, 0))  # as `cp -p` leaves it

    assert run(layout, folder, later=1.0) == [Left("notes.jsonl")]
    assert take(layout) == []
    assert len(run(layout, folder, later=6.0)) == 1
    assert take(layout) == ["notes.jsonl"]


def test_file_that_changes_while_it_is_read_is_left_for_the_next_time(
    layout: Layout, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder)

    def grow(check: LineCheck, raw: bytes) -> None:
        with path.open("ab") as file:
            file.write(b"\n")

    monkeypatch.setattr(LineCheck, "_check_line", grow)

    assert run(layout, folder) == [Left("notes.jsonl")]
    assert names(layout.inbox) == [".obcd", "clinical"]
    assert path.exists()


def test_bad_files_do_not_keep_the_others_back(layout: Layout, folder: Path) -> None:
    put(folder, "a.jsonl", b"no prompt\n")
    put(folder, "b.jsonl", b"")
    (folder / "c.jsonl").symlink_to(put(folder, "elsewhere.txt"))
    os.mkfifo(folder / "d.jsonl")
    (folder / "e.jsonl").symlink_to("nowhere")
    put(folder, "f.jsonl")

    outcomes = run(layout, folder)

    faults = [item.fault for item in outcomes if isinstance(item, Left)]
    for fault, why in zip(
        faults, ("its only line is no", "no prompt in it", "symbolic", "not a regular", "symbolic"), strict=True
    ):
        assert why in fault
        assert "\n" not in fault
    assert take(layout) == ["f.jsonl"]
    assert set(names(folder)) == {"a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", "e.jsonl", "elsewhere.txt", "submitted"}


def test_name_that_is_still_in_the_inbox_waits_for_its_turn(layout: Layout, folder: Path) -> None:
    put(folder)
    run(layout, folder)
    put(folder, content=THREE + THREE)

    (left,) = run(layout, folder)
    assert isinstance(left, Left)
    assert wording("lies-in-the-inbox-already") in left.fault

    assert take(layout) == ["notes.jsonl"]
    (dropped,) = run(layout, folder)
    assert isinstance(dropped, Submitted)
    assert names(folder / "submitted") == [".records", "notes.2.jsonl", "notes.jsonl"]


@pytest.mark.parametrize("is_taken_between", [True, False])
def test_crash_anywhere_drops_every_file_exactly_once(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken_between: bool
) -> None:
    number, is_over = 1, False
    while not is_over:
        layout, folder = make_layout(tmp_path / f"root{number}"), tmp_path / f"staging{number}"
        folder.mkdir()
        put(folder, "a.jsonl")
        put(folder, "b.jsonl", THREE + THREE)
        is_over, taken = True, []
        with crash_at(number, monkeypatch):
            try:
                run(layout, folder)
            except Crashed:
                is_over = False
        if is_taken_between:
            taken = take(layout)

        run(layout, folder)

        assert sorted([*taken, *take(layout, "b")]) == ["a.jsonl", "b.jsonl"], f"crash {number}"
        assert names(folder) == ["submitted"]
        assert names(folder / "submitted") == [".records", "a.jsonl", "b.jsonl"]
        assert names(folder / "submitted" / ".records") == []
        number += 1
    assert number > 30


def test_file_that_cannot_be_moved_is_not_dropped_again(
    layout: Layout, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder)

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "rename", refuse)
        for _ in range(2):
            (left,) = run(layout, folder)
            assert isinstance(left, Left)
            assert wording("was-dropped-but-cannot-be-moved") in left.fault
    assert take(layout) == ["notes.jsonl"]
    path.chmod(0o600)

    assert run(layout, folder) == []
    assert names(folder) == ["submitted"]
    assert take(layout, "b") == []


def test_record_of_a_file_that_was_taken_away_is_removed(
    layout: Layout, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder)
    with crash_at(8, monkeypatch), pytest.raises(Crashed):
        run(layout, folder)
    assert len(names(folder / "submitted" / ".records")) == 1
    path.unlink()

    assert run(layout, folder) == []
    assert names(folder / "submitted" / ".records") == []
    assert take(layout) == []


def test_record_that_cannot_be_opened_keeps_no_other_file_back(layout: Layout, folder: Path) -> None:
    path = put(folder, "a.jsonl")
    put(folder, "b.jsonl")
    (folder / "submitted" / ".records").mkdir(parents=True)
    (folder / "submitted" / ".records" / staging_of(path)).mkdir()  # as one of root's would be to another user

    (left, dropped) = run(layout, folder)

    assert isinstance(left, Left)
    assert left.fault.endswith(wording("let-the-same-user-who-may"))
    assert isinstance(dropped, Submitted)


@pytest.mark.parametrize("which", ["submitted", "submitted/.records"])
def test_folders_that_another_user_made_are_refused(
    layout: Layout, folder: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    path = put(folder)
    (folder / "submitted" / ".records").mkdir(parents=True)
    (folder / "submitted" / ".records" / staging_of(path)).write_text('{"state": "dropped"}\n', "utf-8")
    theirs, lstat = folder / which, Path.lstat

    def status(path: Path) -> os.stat_result:
        found = lstat(path)
        return os.stat_result((*found[:4], 4242, *found[5:10])) if path == theirs else found

    monkeypatch.setattr(Path, "lstat", status)

    with pytest.raises(
        InputError,
        match=wording("nothing-was-dropped-submitted-another-user"),
    ):
        run(layout, folder)
    assert path.exists()
    assert take(layout) == []


@pytest.mark.parametrize("which", ["submitted", "submitted/.records"])
def test_folders_that_others_may_write_into_are_refused(layout: Layout, folder: Path, which: str) -> None:
    path = put(folder)
    (folder / "submitted" / ".records").mkdir(parents=True)
    (folder / which).chmod(0o770)

    with pytest.raises(InputError, match=wording("nothing-was-dropped-others-may-write")):
        run(layout, folder)
    assert path.exists()
    assert take(layout) == []


@pytest.mark.parametrize("which", ["submitted", "submitted/.records"])
def test_link_in_the_place_of_our_folders_is_not_followed(layout: Layout, folder: Path, which: str) -> None:
    path, elsewhere = put(folder), folder.with_name("elsewhere")
    elsewhere.mkdir()
    (folder / which).parent.mkdir(exist_ok=True)
    (folder / which).symlink_to(elsewhere)

    with pytest.raises(InputError, match=wording("is-not-a-folder-take-it-2")):
        run(layout, folder)
    assert path.exists()
    assert names(elsewhere) == []
    assert take(layout) == []


def test_our_folders_are_closed_to_others(layout: Layout, folder: Path) -> None:
    folder.chmod(0o3770)
    run(layout, folder)

    modes = [(folder / which).stat().st_mode & 0o777 for which in ("submitted", "submitted/.records")]
    assert modes == [0o700, 0o700]


def test_record_speaks_of_this_inbox_only_and_of_a_drop_of_ours(layout: Layout, folder: Path, tmp_path: Path) -> None:
    a, b = put(folder, "a.jsonl"), put(folder, "b.jsonl")
    records, victim = folder / "submitted" / ".records", tmp_path / "victim"
    records.mkdir(parents=True)
    victim.mkdir()
    (victim / ".0123456789abcdef.tmp").write_bytes(b"precious")
    text = '{"state": "copying", "drop_id": "%s", "path": "%s/v.jsonl"}\n'
    (records / staging_of(a)).write_text(text % ("0123456789abcdef", victim), "utf-8")
    (records / staging_of(b)).write_text(text % ("a/b", layout.inbox), "utf-8")

    outcomes = run(layout, folder)

    assert [wording("cannot-be-understood") in item.fault for item in outcomes if isinstance(item, Left)] == [
        True,
        True,
    ]
    assert names(victim) == [".0123456789abcdef.tmp"]
    assert take(layout) == []


def test_record_that_somebody_holds_keeps_no_other_file_back(layout: Layout, folder: Path) -> None:
    path = put(folder, "a.jsonl")
    put(folder, "b.jsonl")
    records = folder / "submitted" / ".records"
    records.mkdir(parents=True)
    with DropRecord(records / staging_of(path), layout.inbox):
        (left, dropped) = run(layout, folder)

    assert isinstance(left, Left)
    assert wording("another-submit-of-the-same-name") in left.fault
    assert isinstance(dropped, Submitted)


def staging_of(path: Path) -> str:
    return staging._record_name(path.stat())


def test_second_run_on_a_folder_is_kept_out(layout: Layout, folder: Path) -> None:
    put(folder)
    one = Staging(folder=folder, inbox=layout.inbox, profile="", settle_seconds=0.0, max_line_bytes=2**20)
    first = one.submit(wall() + LATER)
    next(first)

    with pytest.raises(AlreadyRunningError, match=wording("another-submit-from")):
        run(layout, folder)
    first.close()
    assert run(layout, folder) == []


def test_folder_that_is_not_there_is_an_error(layout: Layout, folder: Path) -> None:
    with pytest.raises(InputError, match=wording("no-such-file")):
        run(layout, folder / "missing")
    with pytest.raises(InputError, match="Not a directory"):
        run(layout, put(folder))


def test_kinds_that_the_profile_takes_are_dropped_whatever_the_case_of_their_endings(
    layout: Layout, folder: Path
) -> None:
    for name in ("a.csv", "B.CSV", "c.tsv", "d.csv.gz", "e.JSONL"):
        put(folder, name, b"prompt\nHi\n" if "sv" in name.lower() else THREE)
    one = Staging(
        folder=folder,
        inbox=layout.inbox,
        profile="clinical",
        settle_seconds=5.0,
        max_line_bytes=2**20,
        accepts={"csv"},
    )

    done = list(one.submit(wall() + LATER))

    assert sorted(outcome.name for outcome in done if isinstance(outcome, Submitted)) == ["B.CSV", "a.csv", "e.JSONL"]
    assert names(folder) == ["c.tsv", "d.csv.gz", "submitted"]
