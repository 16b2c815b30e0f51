"""Records of answered drops: a small durable file for each drop of `repeat = "skip"`, beside the outbox.

    root/answered/<sha256 of submitter, path and content>.json

It is written before the job is shown, because from then on a consumer may remove the answers and the same file may be
dropped again; and it outlives the answers, so that for a mirror that sends all its files every night no file is
computed twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from obcd.clock import seconds_of
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, make_own
from obcd.spool.job.job_folder import JobHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The job that answered the same drop before: its fields are the keys of a record, and of `repeats` of a manifest.

    Attributes:
        folder: The published folder, relative to the outbox, e.g. `clinical/notes`; it may have been removed.
        published_at: As in its manifest, RFC 3339.
        responses, failures: The numbers of lines with a response and with a failure.
    """

    job: str
    folder: str
    published_at: str
    responses: int
    failures: int


def note(layout: Layout, manifest: Mapping[str, Any], folder: Path) -> None:
    """Record that a job is about to be shown as `folder`; safe to repeat, the newer record replaces the older.

    Raises:
        InputError: If the folder of the records belongs to another user.
        OSError: If a disk operation fails.
    """
    earlier = Earlier(
        job=manifest["job"],
        folder=str(folder.relative_to(layout.outbox)),
        published_at=manifest["times"]["published_at"],
        responses=manifest["counts"]["responses"],
        failures=manifest["counts"]["failures"],
    )
    make_own(layout.answered)
    key = _key(manifest["submitter"]["uid"], manifest["profile"], manifest["name"], manifest["input"]["sha256"])
    disk.write_json(layout.answered / f"{key}.json", {"format": 1, **asdict(earlier)}, 0o600)


def find(layout: Layout, header: JobHeader, since: float | None) -> Earlier | None:
    """Find the job that answered the same drop; if its record cannot be read the drop is answered again.

    Args:
        since: Unix seconds: a job that was published earlier does not count. None: no job counts.
    """
    path = layout.answered / f"{_key(header.uid, header.profile, header.name, header.sha256)}.json"
    if since is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        document = disk.read_json(path)
        if seconds_of(document["published_at"]) >= since:
            return Earlier(**{key: value for key, value in document.items() if key != "format"})
    return None


def read_time(path: Path) -> float:
    """Return when the job of a record was published, in Unix seconds; 0 if the record is damaged.

    Raises:
        OSError: If it is missing, among others.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return seconds_of(disk.read_json(path)["published_at"])
    return 0.0


def _key(uid: int, profile: str, name: str, sha256: str) -> str:
    return hashlib.sha256(json.dumps([uid, profile, name, sha256]).encode()).hexdigest()
