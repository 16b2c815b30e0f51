"""The folder of a job: its header (`job.json`), its input, and the index that finds a line without reading the others.

jobs/<id>/input.jsonl   the dropped file, byte for byte
          job.json      the header: written last, so a folder with it is complete
          index         one record per request: offset of its line, its number, its signature
          firsts        with `dedupe`: four bytes per request, the ordinal of the first equal one
          lanes         requests that share a beginning, if there are any (see `lane_index`)
          ledger.log    results (see `ledger`)
"""

from __future__ import annotations

import os
import secrets
import struct
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, NamedTuple

from obcd.core.request.context import ContextPlan
from obcd.core.request.records import JobSettings, Signature
from obcd.core.tables.file_format import stem_of
from obcd.errors import InputError
from obcd.spool.folders import disk

#: Format of job folders. A newer one is refused, an older one is read.
FORMAT = 1
#: Byte offset, length without LF, line number from 1, signature number (0 to 255), number of the answer (0 to 99).
_RECORD = struct.Struct("<QIIBB2x")
RECORD_BYTES = _RECORD.size
FIRSTS = "firsts"
#: Offset of the signature's number in a record, and the bytes of the index per read.
_SIGNATURE_AT, _BLOCK_BYTES = 16, 4096 * RECORD_BYTES
#: Maximum number of answers to one line; their numbers are 0 to 99.
MOST_ANSWERS = 100
#: Maximum number of different signatures in one job; the index holds their number in a byte.
MAX_SIGNATURES = 250


#: {key of job.json: types of its value}
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "name", "profile", "drop_id", "parent", "sha256", "source", "repeat", "asks"), (str,)),
    **dict.fromkeys(("trial", "remark"), (str,)),
    **dict.fromkeys(("format", "uid", "size", "lines", "requests", "bad_lines", "same"), (int,)),
    "accepted_at": (float, int),
    "by": (float, int),
    "unobeyed": (dict,),
    "dropped_by": (int, type(None)),
}


class Place(NamedTuple):
    """The place of one request in `input.jsonl`.

    Attributes:
        answer: The index of its answer if its line has several (`n`), from 0; those of a line follow each other.
    """

    offset: int
    length: int
    line: int
    signature: int
    answer: int = 0


class Converted(NamedTuple):
    """The lines that were made from a drop: the lines of a packed file, or one for each row of CSV."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHeader:
    """The facts that are fixed when a job is accepted.

    Attributes:
        id: E.g. `20261122T180105-3f9a1c`.
        name: The name of the dropped file, e.g. `notes.jsonl`.
        profile: Its folder in the inbox; "" for the inbox itself.
        uid: The submitter.
        dropped_by: The user who dropped it for the submitter (`[api] user`), and may read its results and control it;
            None: the submitter.
        drop_id: The id that `obcd submit` wrote into its marker; "" otherwise.
        parent: The id that `obcd retry` wrote there: of the job whose failed lines these are; "" otherwise.
        accepted_at: Unix seconds.
        by: When it should be done, in Unix seconds; 0: at any time.
        sha256, size: Of the dropped file.
        lines: Of `input.jsonl`, including blank ones.
        requests: The number of results that it must have: the answers of each non-blank line, one for most lines.
        bad_lines: The number of those that could not become requests.
        same: The number of requests that are equal to an earlier one, and have its result (`dedupe`).
        settings: The settings of its requests.
        signatures: The signatures of its requests.
        context: The context lengths that were chosen for it (`num_ctx = "auto"`); None: they are as configured.
        source: For `obcd batch`: the absolute path of the file; "" otherwise.
        asks: For a file of OpenAI Batch lines: the endpoint in its first line, e.g. `/v1/chat/completions`: its outputs
            are in OpenAI's format as well. "" for a file of obcd lines.
        converted: The facts about `input.jsonl` if the drop was packed or not JSONL; None: it is the drop itself.
        unobeyed: `{key that looks like an option but is only echoed: number of the first line that has it}`; remarks
            about schemas too, under "`format` …", those about the job's own schema with line 0.
        remark: A sentence for its submitter on what was not obeyed, e.g. a deadline; "" for none.
        trial: `keep` or `remove` for a few lines that are tried: what becomes of its published folder. "" for others.
        repeat: `skip` if the same drop is answered by a pointer from now on, otherwise `run`.
        format: `FORMAT` of the version that wrote it.
    """

    id: str
    name: str
    profile: str = ""
    uid: int = 0
    dropped_by: int | None = None
    drop_id: str = ""
    parent: str = ""
    accepted_at: float = 0.0
    by: float = 0.0
    sha256: str = ""
    size: int = 0
    lines: int = 0
    requests: int = 0
    bad_lines: int = 0
    same: int = 0
    settings: JobSettings
    signatures: tuple[Signature, ...] = ()
    context: ContextPlan | None = None
    source: str = ""
    repeat: str = "run"
    asks: str = ""
    converted: Converted | None = None
    unobeyed: Mapping[str, int] = field(default_factory=dict)
    trial: str = ""
    remark: str = ""
    format: int = FORMAT

    @property
    def stem(self) -> str:
        """The name of its folder in the outbox, e.g. `notes`."""
        return stem_of(self.name)

    @property
    def label(self) -> str:
        """Its name for people: `notes.jsonl`, or `clinical/notes.jsonl`."""
        return f"{self.profile}/{self.name}" if self.profile else self.name

    def settings_under(self, number: int) -> JobSettings:
        """Return the settings of a request with this signature: they have the context length of the signature.

        `num_ctx_max` is the context length to which it may change.
        """
        most = self.context.larger if self.context is not None else None
        return replace(self.settings, num_ctx=self.signatures[number].num_ctx, num_ctx_max=most)

    def larger_numbers(self) -> dict[int, int]:
        """Return `{number of a signature: number of the same one with the larger context}`."""
        return self.context.larger_numbers(self.signatures) if self.context is not None else {}

    def to_json(self) -> dict[str, Any]:
        """Return the document of `job.json`."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document["settings"] = self.settings.to_json()
        document["signatures"] = [signature.to_json() for signature in self.signatures]
        document["context"] = self.context.to_json() if self.context is not None else None
        if self.dropped_by is None:
            del document["dropped_by"]
        for name in ("by", "trial", "remark"):  # younger than the format: a job without them keeps its bytes
            if not document[name]:
                del document[name]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> JobHeader:
        """Read `job.json`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, IndexError: If it is damaged.
            InputError: If a newer obcd wrote it.
        """
        if document.get("format", 0) > FORMAT:
            raise InputError(
                f"job {document.get('id')} was written by a newer obcd (format {document['format']}, this one reads "
                f"{FORMAT}): install that version again, or let it finish its jobs first"
            )
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in document.items() if key in known}
        for key, kinds in _KINDS.items():
            if not isinstance(values.get(key, kinds[0]()), kinds):
                raise ValueError(f"`{key}` is a {type(values[key]).__name__}")
        values["settings"] = JobSettings.from_json(document["settings"])
        values["converted"] = Converted(*document["converted"]) if document.get("converted") else None
        values["signatures"] = tuple(Signature.from_json(entry) for entry in document["signatures"])
        values["context"] = ContextPlan(**document["context"]) if document.get("context") else None
        return cls(**values)


def new_job_id(now: float) -> str:
    """Return a unique id that sorts by time: UTC time and 48 random bits."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + "-" + secrets.token_hex(6)


def read_header(folder: Path) -> JobHeader:
    """Read a job's header.

    Raises:
        OSError, ValueError, KeyError, TypeError: If it is missing or damaged.
        InputError: If a newer obcd wrote it.
    """
    document = disk.read_json(folder / "job.json")
    try:
        return JobHeader.from_json(document)
    except (AttributeError, IndexError):
        raise ValueError("a part of job.json is not valid") from None


def pack_place(place: Place) -> bytes:
    """Return one record of the index."""
    return _RECORD.pack(*place)


def read_place(folder: Path, ordinal: int) -> Place:
    """Read the place of one request."""
    with open(folder / "index", "rb", buffering=0) as index:
        return Place._make(_RECORD.unpack(os.pread(index.fileno(), RECORD_BYTES, ordinal * RECORD_BYTES)))


def read_places(folder: Path) -> Iterator[Place]:
    """Yield the place of every request, in input order; reads block by block."""
    with open(folder / "index", "rb") as index:
        while block := index.read(_BLOCK_BYTES):
            yield from map(Place._make, _RECORD.iter_unpack(block))


class OpenJob:
    """The open files of one job, for reading one request after another. Any thread may call it.

    Raises:
        OSError: If they cannot be opened.
    """

    def __init__(self, folder: str) -> None:
        self._descriptors: list[int] = []
        for name in ("index", "input.jsonl"):
            self._descriptors.append(os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC))

    def __del__(self) -> None:
        for descriptor in self._descriptors:  # with its last user: another thread may be reading
            os.close(descriptor)

    def read(self, ordinal: int) -> tuple[Place, bytes]:
        """Read the line of one request; the input does not change during the job.

        Raises:
            OSError, struct.error: If the files are damaged.
        """
        index, lines = self._descriptors
        place = Place._make(_RECORD.unpack(os.pread(index, RECORD_BYTES, ordinal * RECORD_BYTES)))
        return place, os.pread(lines, place.length, place.offset)

    def read_line(self, place: Place) -> bytes:
        """Read the line at a place."""
        return os.pread(self._descriptors[1], place.length, place.offset)

    def read_group(self, ordinal: int) -> tuple[int, list[Place]]:
        """Return the first ordinal of a request's line, and the places of all its answers (see `Place`).

        Raises:
            OSError, struct.error: If the index is damaged.
        """
        index = self._descriptors[0]
        own = Place._make(_RECORD.unpack(os.pread(index, RECORD_BYTES, ordinal * RECORD_BYTES)))
        first = ordinal - own.answer
        block = os.pread(index, MOST_ANSWERS * RECORD_BYTES, first * RECORD_BYTES)
        places = map(Place._make, _RECORD.iter_unpack(block))
        return first, [next(places), *takewhile(lambda place: place.answer > 0, places)]


def read_request_line(folder: Path, ordinal: int) -> tuple[Place, bytes]:
    """Read the line of one request from disk; any process may call it, as the input does not change during the job."""
    return OpenJob(str(folder)).read(ordinal)


def signature_column(folder: Path) -> bytes:
    """Return the signature number of every request, one byte each."""
    with open(folder / "index", "rb") as index:
        blocks = iter(partial(index.read, _BLOCK_BYTES), b"")
        return b"".join(block[_SIGNATURE_AT::RECORD_BYTES] for block in blocks)


def read_firsts(folder: Path, header: JobHeader) -> array[int] | None:
    """Return, by ordinal, the first equal request; None if all requests are sent.

    Raises:
        OSError, ValueError: If the file is missing or damaged.
    """
    if not header.same:
        return None
    firsts = array("I", (folder / FIRSTS).read_bytes())
    if len(firsts) != header.requests or any(
        first > ordinal or firsts[first] != first for ordinal, first in enumerate(firsts)
    ):
        raise ValueError(f"{FIRSTS} is damaged")
    return firsts


def length_column(folder: Path) -> list[int]:
    """Return the length of every request's line, in bytes."""
    return [place.length for place in read_places(folder)]


def renumber_signatures(index: IO[bytes], numbers: bytes) -> None:
    """Renumber the signatures of an index in place.

    Args:
        numbers: 256 bytes: the new number for each old one.
    """
    offset = 0
    while block := bytearray(os.pread(index.fileno(), _BLOCK_BYTES, offset)):
        block[_SIGNATURE_AT::RECORD_BYTES] = block[_SIGNATURE_AT::RECORD_BYTES].translate(numbers)
        os.pwrite(index.fileno(), block, offset)
        offset += len(block)
