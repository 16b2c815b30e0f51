"""What is sent of an event."""

from __future__ import annotations

import json

from obcd.core.events import EventKind, NotableEvent, job_event_id

JOB = "20261122T180105-0a1b2c3d4e5f"


def an_event(**changed: object) -> NotableEvent:
    values = {
        "id": job_event_id(EventKind.FAILURES, JOB),
        "kind": EventKind.FAILURES,
        "at": 1795888865.25,
        "text": "notes.jsonl is done: 2 of 10 requests failed",
        "profile": "clinical",
        "job": JOB,
        "uid": 1000,
        "facts": {"name": "notes.jsonl", "failures": 2},
    }
    return NotableEvent(**{**values, **changed})  # type: ignore[arg-type]


def test_a_message_has_openais_form_and_obcds_facts() -> None:
    assert an_event().message() == {
        "id": f"evt_failures_{JOB}",
        "object": "event",
        "created_at": 1795888865,
        "type": "job.failures",
        "data": {
            "id": JOB,
            "event": "job.failures",
            "text": "notes.jsonl is done: 2 of 10 requests failed",
            "job": JOB,
            "profile": "clinical",
            "name": "notes.jsonl",
            "failures": 2,
        },
    }


def test_a_job_of_openais_lines_has_openais_type_and_id() -> None:
    message = an_event(facts={"batch": {"id": f"batch_{JOB}", "status": "completed"}, "failures": 0}).message()

    data = message["data"]
    assert isinstance(data, dict)
    assert (message["type"], data["id"], data["event"]) == ("batch.completed", f"batch_{JOB}", "job.failures")
    assert "batch" not in data


def test_an_event_without_a_job_is_about_itself() -> None:
    message = NotableEvent(id="evt_1", kind=EventKind.DISK, at=1.0, text="full").message()

    assert message["data"] == {"id": "evt_1", "event": "disk.full", "text": "full"}


def test_the_body_is_one_line_of_ascii_and_always_the_same() -> None:
    event = an_event(facts={"name": "Übung\n\u2028.jsonl"})

    assert event.body() == NotableEvent.from_json(json.loads(json.dumps(event.to_json()))).body()
    assert event.body().isascii()
    assert b"\n" not in event.body()
    assert json.loads(event.body()) == event.message()
