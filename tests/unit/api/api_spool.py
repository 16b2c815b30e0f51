"""The API on a spool in a temporary folder without a coordinator: the steps of a batch's life by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obcd.api.batch_drops import BatchDrops
from obcd.api.batches import Batches
from obcd.api.forms.batch_request import BatchRequest
from obcd.api.token_file import ApiUser
from obcd.api.uploads import StoredFile, UploadLimits, Uploads
from obcd.core.request.openai.openai_request import CHAT
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from tests.unit.spool.spools import accepted, drop_of, finish, order_of

ANN, BEN = ApiUser("ann", 61011), ApiUser("ben", 61012)
LIMITS = UploadLimits(file_bytes=2**20, user_bytes=2**21, min_free_bytes=0, keep_seconds=1e6)


def lines(count: int = 2, url: str = CHAT) -> bytes:
    """Return a batch's file."""
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": "Hi"}]}
    rows = [{"custom_id": f"r-{number}", "method": "POST", "url": url, "body": body} for number in range(count)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class ApiSpool:
    """The API's parts on a spool; a new one on the same spool is the next process."""

    layout: Layout
    limits: UploadLimits = LIMITS
    uploads: Uploads = field(init=False)
    batches: Batches = field(init=False)

    def __post_init__(self) -> None:
        folder = self.layout.root / "api"
        disk.make_folder(folder)
        self.uploads = Uploads(folder, self.layout.root, self.limits)
        self.uploads.open()
        self.batches = Batches(BatchDrops(self.layout, folder / "drops"), self.uploads, "", 1e6)
        self.batches.open()

    def upload(self, account: ApiUser = ANN, content: bytes = b"") -> StoredFile:
        coming = self.uploads.begin(account.uid)
        try:
            self.uploads.write(coming, content or lines())
            return self.uploads.commit(coming, "in.jsonl", "batch")
        finally:
            self.uploads.give_up(coming)

    def create(self, account: ApiUser = ANN, content: bytes = b"", endpoint: str = CHAT, **changes: Any) -> str:
        """Make a batch, and return its id."""
        request = BatchRequest(self.upload(account, content).id, endpoint, **changes)
        return str(self.batches.create(account, request, is_repeated=False)["id"])

    def drop_all(self) -> None:
        """Do what the threads do that drop."""
        for uid, name in sorted(self.batches._unfinished):
            self.batches.drop(uid, name)

    def look(self) -> None:
        """Do what the thread does that looks."""
        for uid, name in sorted(self.batches._unfinished):
            self.batches._carry_on(uid, name, set())

    def dropped(self) -> list[Path]:
        return sorted(path for path in self.layout.inbox.glob("*.jsonl") if path.is_file())

    def accept(self) -> JobHeader:
        """Do what the coordinator does with the one drop."""
        (path,) = self.dropped()
        return accepted(self.layout, order_of(drop_of(path)))

    def completed(self, account: ApiUser = ANN) -> str:
        """Make a batch, answer it, and return its id."""
        batch = self.create(account)
        self.drop_all()
        finish(self.layout, self.accept())
        return batch

    def status(self, batch: str, account: ApiUser = ANN) -> str:
        return str(self.batches.retrieve(account, batch)["status"])
