"""Events that people may want a notification of (`[notify]`): a kind, a sentence, and facts. Pure.

An event never holds a prompt or an answer, nor the message of a failure, which may quote one: classes and counts only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from obcd.core.documents import Document


class EventKind(StrEnum):
    """What happened. The values are words of `[notify] events` and the `type` in the message."""

    PUBLISHED = "job.published"  # a job is in the outbox, and every line was answered (or its user cancelled it)
    FAILURES = "job.failures"  # a job is in the outbox, and some lines failed: in place of PUBLISHED
    QUARANTINED = "job.quarantined"  # a job is set aside, because it crashed the coordinator or cannot be run
    DEADLINE = "job.deadline"  # a job is not expected to end before its deadline
    ENDPOINT = "endpoint.lost"  # endpoints, or a host, have not served for `endpoint_minutes`
    DISK = "disk.full"  # no work is started, because the disk is full or does not answer
    TEST = "test"  # `obcd notify test` sends it; no key of the configuration chooses it


#: The kinds that belong to a job, and so to its profile and its submitter.
JOB_KINDS = frozenset((EventKind.PUBLISHED, EventKind.FAILURES, EventKind.QUARANTINED, EventKind.DEADLINE))


@dataclass(frozen=True, slots=True, kw_only=True)
class NotableEvent(Document):
    """One event, as in a file of `root/events/`.

    Attributes:
        id: Unique, and the same however often the event is sent, e.g. `evt_published_20261122T180105-0a1b2c3d4e5f`.
        kind: An `EventKind`.
        at: When it happened, in Unix seconds.
        text: One sentence for people, without a line break.
        profile: The profile whose `[notify]` counts; "" for the top level.
        job: The id of the job; "" if the event is not about a job.
        uid: The user id of the job's submitter; -1 if there is none.
        facts: Further facts by kind, e.g. `{"name": "notes.jsonl", "failures": 2}`: JSON values.
    """

    id: str
    kind: str
    at: float
    text: str
    profile: str = ""
    job: str = ""
    uid: int = -1
    facts: Mapping[str, object] = field(default_factory=dict)

    def message(self) -> dict[str, object]:
        """Return what is sent: an event in OpenAI's form.

        A job of OpenAI's lines has OpenAI's own type and id, so that a program written for OpenAI's batches needs no
        change; `event` is always an `EventKind`.

            {"id": "evt_…", "object": "event", "created_at": 1795888865, "type": "job.published",
             "data": {"id": "20261122T180105-…", "event": "job.published", "text": "…", "name": "notes.jsonl", …}}
        """
        facts = dict(self.facts)
        batch = facts.pop("batch", None)
        kind, about = self.kind, self.job or self.id
        if isinstance(batch, dict):
            kind, about = f"batch.{batch.get('status')}", str(batch.get("id"))
        job = {"job": self.job, "profile": self.profile} if self.job else {}
        data = {"id": about, "event": self.kind, "text": self.text, **job, **facts}
        return {"id": self.id, "object": "event", "created_at": int(self.at), "type": kind, "data": data}

    def body(self) -> bytes:
        """Return the message as one line of JSON, in ASCII: the same bytes whenever it is sent."""
        return json.dumps(self.message(), allow_nan=False).encode("ascii")


def job_event_id(kind: EventKind, job: str) -> str:
    """Return the id of an event that happens once to a job."""
    return f"evt_{kind.rpartition('.')[2]}_{job}"
