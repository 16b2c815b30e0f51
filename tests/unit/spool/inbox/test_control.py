"""Control files: what their names and contents mean, how they bind a job, and that a crash changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from obcd.core.pending.fair_share import Rank
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.control import (
    Control,
    ControlVerb,
    JobControls,
    bind,
    control_name,
    hold,
    put_control,
    read_control,
    read_job_controls,
)
from obcd.spool.inbox.drops import Key
from obcd.spool.intake import recovery
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import publication
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, Crashed, accept_bytes, answer, crash_at, lines_of, make_layout, record, scan

ME = os.getuid()


def lay(layout: Layout, name: str, content: bytes = b"", profile: str = "") -> Key:
    (layout.inbox / profile / name).write_bytes(content)
    return Key(profile, name)


# --- names and contents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "verb", "value"),
    [
        ("notes.jsonl.cancel", ControlVerb.CANCEL, 0),
        ("notes.jsonl.pause", ControlVerb.PAUSE, 0),
        ("notes.jsonl.resume", ControlVerb.RESUME, 0),
        ("notes.jsonl.priority-10", ControlVerb.PRIORITY, 10),
        ("notes.jsonl.priority--100", ControlVerb.PRIORITY, -100),
    ],
)
def test_name_says_what_is_asked_and_of_which_drop(layout: Layout, name: str, verb: ControlVerb, value: int) -> None:
    file = lay(layout, name, profile="clinical")

    control = read_control(layout, file)

    assert (control.key, control.verb, control.value) == (Key("clinical", "notes.jsonl"), verb, value)
    assert (control.uid, control.job, control.file) == (ME, "", file)
    assert control_name("notes.jsonl", verb, value) == name


@pytest.mark.parametrize("number", ["", "-", "-x", "-1e2", "-101", "-0101", "-+5", "-٣", "--101"])
def test_priority_that_is_no_whole_number_of_the_range_is_refused(layout: Layout, number: str) -> None:
    file = lay(layout, f"notes.jsonl.priority{number}")

    with pytest.raises(ValueError, match=wording("a-whole-number-from-100-to")):
        read_control(layout, file)


def test_verb_with_something_behind_it_is_refused(layout: Layout) -> None:
    with pytest.raises(ValueError, match=wording("ends-in-cancel-and-nothing-behind")):
        read_control(layout, lay(layout, "notes.jsonl.cancel-5"))


def test_content_names_the_job(layout: Layout) -> None:
    assert read_control(layout, lay(layout, "notes.jsonl.cancel", b'{"job": "j1"}\n')).job == "j1"


@pytest.mark.parametrize(
    "content",
    [b"x", b"{}", b"[]", b'{"job": 1}', b'{"job": ""}', b"[" * 4000, b"\xff\xfe", b'{"job": "j"' + b" " * 9999],
)
def test_content_that_is_something_else_is_refused(layout: Layout, content: bytes) -> None:
    with pytest.raises(ValueError, match=wording("is-empty-or-says-which-job")):
        read_control(layout, lay(layout, "notes.jsonl.cancel", content))


def test_second_name_of_somebodys_file_does_not_speak_for_him(layout: Layout) -> None:
    mine = layout.root / "mine"
    mine.write_bytes(b"")
    os.link(mine, layout.inbox / "notes.jsonl.cancel")

    with pytest.raises(ValueError, match=wording("a-plain-file-with-one-name")):
        read_control(layout, Key("", "notes.jsonl.cancel"))


def test_neither_link_nor_fifo_is_opened(layout: Layout) -> None:
    (layout.inbox / "a.jsonl.cancel").symlink_to(layout.root)
    os.mkfifo(layout.inbox / "b.jsonl.cancel")

    with pytest.raises(OSError, match="symbolic links"):
        read_control(layout, Key("", "a.jsonl.cancel"))
    with pytest.raises(ValueError, match="plain file"):
        read_control(layout, Key("", "b.jsonl.cancel"))


def test_scan_finds_control_files_and_takes_them_for_no_drops(layout: Layout) -> None:
    names = ["n.jsonl.cancel", "n.jsonl.pause", "n.jsonl.priority-high", "n.jsonl.resume"]
    for name in names:
        lay(layout, name, profile="clinical")
    lay(layout, "n.jsonl.priority-3.jsonl", THREE)  # a drop that is called so
    inbox = Inbox(layout.inbox, ["clinical"], 0.0, require_marker=False)

    drops = [*scan(inbox, 0.0), *scan(inbox, 1.0)]

    assert sorted(inbox.controls) == [Key("clinical", name) for name in sorted(names)]
    assert [drop.key.name for drop in drops] == ["n.jsonl.priority-3.jsonl"]
    assert inbox.waiting == {}


def test_what_is_laid_down_is_read_again(layout: Layout) -> None:
    file = Key("clinical", "notes.jsonl.cancel")

    put_control(layout, file, "j7")

    assert read_control(layout, file).job == "j7"
    assert os.listdir(layout.inbox / "clinical") == ["notes.jsonl.cancel"]


# --- binding ---------------------------------------------------------------------------------------------------------


def cancel_of(layout: Layout, header: JobHeader) -> Control:
    return read_control(layout, lay(layout, f"{header.name}.cancel"))


def test_order_binds_its_job_and_leaves_the_inbox(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)

    controls = bind(layout, cancel_of(layout, header), header.id, by_daemon=False)

    assert controls == JobControls(canceller=ME)
    assert not (layout.inbox / "notes.jsonl.cancel").exists()
    assert recovery.recover(layout).controls == {header.id: controls}


@pytest.mark.parametrize(("by_daemon", "rank"), [(True, Rank(-7, -7)), (False, Rank(0, -7))])
def test_priority_of_the_daemon_counts_among_everybody(layout: Layout, by_daemon: bool, rank: Rank) -> None:
    header = accept_bytes(layout, THREE)
    control = read_control(layout, lay(layout, "notes.jsonl.priority--7"))

    assert bind(layout, control, header.id, by_daemon) == JobControls(rank)


def test_resuming_takes_the_pause_away(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    lay(layout, "notes.jsonl.pause")

    bind(layout, read_control(layout, lay(layout, "notes.jsonl.resume")), header.id, by_daemon=False)

    assert sorted(path.name for path in layout.inbox.iterdir()) == [".obcd", "clinical"]


def test_r24b_resuming_ends_what_obcd_itself_has_paused_and_no_other_order_does(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    hold(layout.jobs / header.id, "too much is refused")
    assert recovery.recover(layout).controls[header.id].held == "too much is refused"

    found = []
    for name in ("notes.jsonl.priority-3", "notes.jsonl.resume"):
        lay(layout, name)
        found.append(bind(layout, read_control(layout, Key("", name)), header.id, by_daemon=False))

    assert [one and one.held for one in found] == ["too much is refused", ""]


def test_order_of_a_finished_job_stays_in_the_inbox(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    control = cancel_of(layout, header)

    assert bind(layout, control, "another", by_daemon=False) is None
    assert (layout.inbox / "notes.jsonl.cancel").exists()


def test_newer_control_file_of_the_name_is_not_taken_out(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    control = cancel_of(layout, header)
    lay(layout, "notes.jsonl.cancel", b'{"job": "other"}')

    bind(layout, control, header.id, by_daemon=False)

    assert (layout.inbox / "notes.jsonl.cancel").exists()


def test_damaged_order_binds_nothing(tmp_path: Path) -> None:
    (tmp_path / "cancel").write_text('{"uid": "x"}')
    (tmp_path / "priority").write_text("{")

    assert read_job_controls(tmp_path) == JobControls()


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_cancelled_job_keeps_its_answers_and_gives_the_rest_back(layout: Layout) -> None:
    header = accept_bytes(layout, THREE + b"bad\n")
    record(layout, header.id, [answer(1)])
    bind(layout, cancel_of(layout, header), header.id, by_daemon=False)

    folder = publication.publish(layout, header.id, {})

    assert [line["line"] for line in lines_of(folder / "responses.jsonl")] == [2]
    errors = lines_of(folder / "errors.jsonl")
    assert [(line["line"], line["class"]) for line in errors] == [(1, "cancelled"), (3, "cancelled"), (4, "bad_line")]
    assert (folder / "retry.jsonl").read_bytes() == b'{"prompt": "one"}\n{"prompt": "three"}\nbad\n'
    assert json.loads((folder / "manifest.json").read_text())["cancelled_by"]["uid"] == ME
    assert sorted(path.name for path in folder.iterdir()) == [
        "errors.jsonl", "input.jsonl", "manifest.json", "responses.jsonl", "retry.jsonl",
    ]  # fmt: skip


def cancel_and_publish(layout: Layout, job: str) -> None:
    """Do what the coordinator does: bind what lies in the inbox, then publish."""
    file = Key("", "notes.jsonl.cancel")
    if (layout.inbox / file.name).exists():
        bind(layout, read_control(layout, file), job, by_daemon=False)
    publication.publish(layout, job, {})


def go_on(layout: Layout, job: str) -> None:
    """Do what the next coordinator does."""
    found = recovery.recover(layout)
    for left in found.unpublished:
        publication.publish(layout, left, {})
    if job in found.controls:  # it is published before anybody looks at the inbox
        publication.publish(layout, job, {})
    elif found.jobs:
        cancel_and_publish(layout, job)


@pytest.mark.case("B1", "B2")
def test_crash_before_each_call_of_a_cancelling_cancels_one_job_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    number, is_over = 0, False
    while not is_over:
        number += 1
        layout = make_layout(tmp_path / f"root{number}")
        header = accept_bytes(layout, THREE)
        record(layout, header.id, [answer(0)])
        lay(layout, "notes.jsonl.cancel")
        try:
            with crash_at(number, monkeypatch):
                cancel_and_publish(layout, header.id)
            is_over = True
        except Crashed:
            try:
                with crash_at(number % 7 + 1, monkeypatch):
                    go_on(layout, header.id)
            except Crashed:
                go_on(layout, header.id)

        folder = layout.outbox / "notes"
        assert [line["line"] for line in lines_of(folder / "responses.jsonl")] == [1], number
        assert [line["line"] for line in lines_of(folder / "errors.jsonl")] == [2, 3], number
        assert list(layout.jobs.iterdir()) == []
        # It would cancel the next job of that name.
        assert not (layout.inbox / "notes.jsonl.cancel").exists(), number
    assert number > 15
