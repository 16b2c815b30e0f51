"""The event of a publication: written before the folder is shown, and without a word of a prompt."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from obcd.core.events import EventKind, NotableEvent
from obcd.core.tables.file_format import stem_of
from obcd.spool.folders import disk
from obcd.spool.folders.event_files import find_events, folder_of, open_folder, read_event
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox.publication import publish
from obcd.spool.outbox.publication_event import note_publication
from obcd.spool.outbox.rejected import publish_rejected
from tests.unit.spool.spools import (
    THREE,
    Crashed,
    accept_bytes,
    answer,
    crash_at,
    drop_of,
    failure,
    finish,
    put,
    record,
)


@pytest.fixture
def noted(layout: Layout) -> Layout:
    open_folder(layout.root)
    return layout


def the_event(layout: Layout) -> NotableEvent:
    (name,) = find_events(layout.root)
    found = read_event(layout.root, name)
    assert found is not None
    return found.event


def test_a_job_without_failures_is_published(noted: Layout) -> None:
    folder = finish(noted, accept_bytes(noted, THREE))

    event = the_event(noted)
    assert (event.id, event.kind, event.job) == ("evt_published_job1", EventKind.PUBLISHED, "job1")
    assert event.text == "notes.jsonl is published: 3 responses, 0 failures"
    assert event.facts["folder"] == str(folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert all(event.facts[key] == manifest[key] for key in ("counts", "tokens", "times", "submitter", "name"))
    assert event.uid == manifest["submitter"]["uid"]
    assert "failures_by_class" not in event.facts


def test_trial_makes_no_event(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, THREE))
    open_folder(layout.root)
    manifest = json.loads((folder / "manifest.json").read_bytes())

    note_publication(layout, manifest | {"trial": "keep"}, folder, folder)
    assert list(find_events(layout.root)) == []

    note_publication(layout, manifest, folder, folder)
    assert the_event(layout).job == "job1"


def test_failures_are_counted_by_class_and_not_quoted(noted: Layout) -> None:
    accept_bytes(noted, THREE)
    record(noted, "job1", [failure(0, "SECRET"), answer(1, "SECRET"), failure(2, "SECRET")])
    publish(noted, "job1", {})

    event = the_event(noted)
    assert event.kind == EventKind.FAILURES
    assert event.facts["failures_by_class"] == {"server_error": 2}
    assert "SECRET" not in (folder_of(noted.root) / f"{event.id}.json").read_text()
    assert b"one" not in event.body()  # a prompt


def test_classes_of_openais_lines_are_found_and_long_lines_cost_nothing(noted: Layout) -> None:
    line = {"method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}
    for number in range(3):
        message = {"role": "user", "content": "x" * (2**21 if number == 1 else 1)}
        line["body"]["messages"] = [message]  # type: ignore[index]
        line["custom_id"] = f"c{number}"
        with (noted.root / "lines").open("a") as file:
            file.write(json.dumps(line) + "\n")
    accept_bytes(noted, (noted.root / "lines").read_bytes())
    record(noted, "job1", [failure(number) for number in range(3)])
    publish(noted, "job1", {})

    event = the_event(noted)
    assert sum(event.facts["failures_by_class"].values()) == 3  # type: ignore[attr-defined]
    assert event.message()["type"] == "batch.completed"


def test_without_the_folder_no_event_is_written(layout: Layout) -> None:
    finish(layout, accept_bytes(layout, THREE))

    assert not folder_of(layout.root).exists()


def test_a_rejected_drop_makes_no_event(noted: Layout) -> None:
    drop = drop_of(put(noted, b"x"))
    publish_rejected(noted, "job1", drop, noted.inbox / drop.key.name, "why")

    assert find_events(noted.root) == []


def test_no_crash_shows_a_folder_without_its_event(noted: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crash before every state-changing call; what is shown then has its event, and in the end there is exactly one."""
    number = 0
    while True:
        number += 1
        job, name = f"job{number}", f"notes{number}.jsonl"
        header = accept_bytes(noted, THREE, job, name)
        record(noted, job, [answer(ordinal) for ordinal in range(3)])
        try:
            with crash_at(number, monkeypatch):
                publish(noted, job, {})
        except Crashed:
            is_shown = (noted.outbox / stem_of(name)).exists()
            assert not is_shown or f"evt_published_{job}" in find_events(noted.root)
            publish(noted, header.id, {})
        else:
            break
        assert find_events(noted.root).count(f"evt_published_{job}") == 1
    assert number > 10


def test_a_full_disk_delays_the_publication_and_another_fault_does_not(
    noted: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    header = accept_bytes(noted, THREE)
    record(noted, "job1", [answer(ordinal) for ordinal in range(3)])
    write = disk.write_json

    def refuse(number: int) -> None:
        def write_json(path: Path, document: object, mode: int = 0o640) -> None:
            if path.parent == folder_of(noted.root):
                raise OSError(number, "refused", str(path))
            write(path, document, mode)

        monkeypatch.setattr(disk, "write_json", write_json)

    refuse(errno.ENOSPC)
    with pytest.raises(OSError, match="refused"):
        publish(noted, header.id, {})
    assert not (noted.outbox / "notes").exists()
    refuse(errno.EIO)
    assert publish(noted, header.id, {}) == noted.outbox / "notes"
    assert [item.levelname for item in caplog.records if getattr(item, "action", "") == "event_lost"] == ["ERROR"]
