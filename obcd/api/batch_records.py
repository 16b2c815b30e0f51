"""A batch as the API remembers it: root/api/users/<uid>/batches/<id>.json, written whole at each step.

    WAITING ──drop──► DROPPED ──published, rejected or withdrawn──► OVER
       └──────────cancelled, or its file is not what it says────────► OVER

A batch exists from the moment its record is on disk; what a crash interrupted goes on from there. The job itself is the
coordinator's: while it is DROPPED the outbox says how far it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from obcd.api.forms.identifiers import BATCH, FILE, OUTPUTS
from obcd.core.answer.openai.batch import Batch
from obcd.core.documents import Document
from obcd.spool.folders import disk


class BatchStep(StrEnum):
    """How far a batch is; the value stands in its record."""

    WAITING = "waiting"  # its file is not in the inbox yet
    DROPPED = "dropped"  # its file is, or was, in the inbox
    OVER = "over"  # it changes no more


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord(Document):
    """A batch.

    Attributes:
        id: E.g. `batch_0193…`.
        user: The name of the user who made it.
        created_at: Unix seconds.
        name: Its file's name in the inbox; `profile` is the folder there, "" for none.
        request: Digest of what was sent, by which a client's second attempt is known.
        step: A `BatchStep`.
        drop_id: The id in the marker of its drop, "" before that.
        job: The id of its job, "" while that is not known.
        cancelling_at: When its user cancelled it; None if not.
        output_seconds: How long its results are shown; None: as long as they are there.
        folder: Where its results are; "" while they are not published.
        hidden: Ends of the ids of its files that its user deleted.
        ended: OpenAI's batch object of its end, without what the record itself has; empty before that.
    """

    id: str
    user: str
    created_at: float
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None = None
    name: str
    profile: str = ""
    request: str = ""
    step: str = BatchStep.WAITING
    drop_id: str = ""
    job: str = ""
    cancelling_at: float | None = None
    output_seconds: float | None = None
    folder: str = ""
    hidden: tuple[str, ...] = ()
    ended: Mapping[str, object] | None = None

    @property
    def core(self) -> str:
        """The random part of its id, which the ids of its files share."""
        return self.id.removeprefix(BATCH)

    @property
    def is_over(self) -> bool:
        """Whether it changes no more."""
        return self.step == BatchStep.OVER

    def shown(self, progress: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return OpenAI's batch object (openai.types.Batch).

        Args:
            progress: The one that obcd writes for its job; None: the job has not begun.
        """
        known = progress or self.ended or self._begun()
        status = known["status"]
        if self.cancelling_at is not None and not self.is_over:
            status = "cancelling"
        own = {
            "id": self.id,
            "status": status,
            "endpoint": self.endpoint,
            "input_file_id": self.input_file_id,
            "created_at": int(self.created_at),
            "metadata": None if self.metadata is None else dict(self.metadata),
        }
        if self.cancelling_at is not None:
            own["cancelling_at"] = int(self.cancelling_at)
        if not self.is_over:
            own |= {"output_file_id": None, "error_file_id": None}
        return {**known, **own}

    def _begun(self) -> dict[str, object]:
        """Return the object of a batch whose job has not begun."""
        nothing = Batch(
            job=self.core, endpoint=self.endpoint, status="validating", total=0, completed=0, failed=0,
            input_tokens=0, output_tokens=0,
        )  # fmt: skip
        return nothing.to_json()

    def published(self, folder: Path, batch: Mapping[str, object]) -> BatchRecord:
        """Return the record of a batch whose job is published.

        Args:
            batch: The batch object of the job's manifest.
        """
        ended = {**batch, "output_file_id": None, "error_file_id": None}
        for key, end in (("output_file_id", "-output"), ("error_file_id", "-errors")):
            path = folder / OUTPUTS[end]
            if path.is_file() and path.stat().st_size:
                ended[key] = f"{FILE}{self.core}{end}"
        return replace(self, step=BatchStep.OVER, folder=str(folder), ended=ended)

    def failed(self, code: str, message: str, now: float, line: int | None = None) -> BatchRecord:
        """Return the record of a batch whose file cannot become a job: nothing of it ran."""
        fault = {"code": code, "message": message, "line": line, "param": None}
        errors = {"object": "list", "data": [fault]}
        return self._without_job("failed", now, errors)

    def withdrawn(self, now: float) -> BatchRecord:
        """Return the record of a batch that was cancelled before its job began."""
        return self._without_job("cancelled", now, None)

    def _without_job(self, status: str, now: float, errors: object) -> BatchRecord:
        ended = {**self._begun(), "status": status, f"{status}_at": int(now), "errors": errors}
        return replace(self, step=BatchStep.OVER, ended=ended)


def write_record(folder: Path, record: BatchRecord) -> None:
    """Write a record, complete and durable.

    Raises:
        OSError: If the disk does not allow it; the old one is still there then.
    """
    disk.write_json(folder / f"{record.id}.json", record.to_json(), 0o600)


def read_record(folder: Path, batch: str) -> BatchRecord | None:
    """Read a record; None if there is none that can be read."""
    try:
        return BatchRecord.from_json(disk.read_json(folder / f"{batch}.json"))
    except (OSError, ValueError):
        return None
