"""Read a drop: one pass over untrusted input that unpacks, copies, hashes and parses it line by line.

This module does not claim, move or commit; `acceptance` does.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from obcd.core.answer.record_codec import encode
from obcd.core.endpoint.faults import bad_line
from obcd.core.request.context import ContextPlan, Gauge, check_text
from obcd.core.request.json_objects import is_blank_line, may_go_on, parse_object
from obcd.core.request.keys.ignored_keys import note_nameless, note_schema, note_unobeyed
from obcd.core.request.lines import parse_line
from obcd.core.request.openai.custom_ids import CustomIds
from obcd.core.request.openai.openai_request import endpoint_of
from obcd.core.request.prefixes.lane_choice import choose_lanes
from obcd.core.request.prefixes.prefix_finder import PrefixFinder
from obcd.core.request.records import JobSettings, Kind, Request, Signature, answers_of, nth_request, signature_of
from obcd.core.request.request_key import DuplicateFinder, digest_of
from obcd.core.request.structure import MOSTLY_STRUCTURE, is_mostly_structure
from obcd.core.tables.csv_cells import sheet_of
from obcd.core.tables.csv_reader import Row
from obcd.core.tables.file_format import JSON, PARQUET, Form, form_of
from obcd.core.tables.foreign_files import HEAD_BYTES, foreign_format
from obcd.core.tables.json_shape import JsonShape, open_json, why_not_lines
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.core.tables.unpacking import unfold
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import CutOffError, FormError, LineError, ObcdError
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import find_shortage, read_space
from obcd.spool.inbox.drops import Drop
from obcd.spool.inbox.markers import Marker
from obcd.spool.intake.first_lines import first_lines
from obcd.spool.job import lane_index, ledger
from obcd.spool.job.job_folder import (
    FIRSTS,
    MAX_SIGNATURES,
    Converted,
    JobHeader,
    Place,
    pack_place,
    renumber_signatures,
    signature_column,
)

#: Bytes between two checks of the free space while a packed file or CSV is written as lines.
ROOM_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class AcceptOrder:
    """A drop that the clerk shall accept, and the settings for it."""

    drop: Drop
    job: str
    settings: JobSettings
    max_line_bytes: int
    reject_torn: bool  # whether it has looked truncated for long enough
    unfinished: tuple[JobHeader, ...] = ()
    #: Maximum size of a packed file or CSV as JSON lines.
    max_expanded_bytes: int = 2**34
    #: Bytes that must stay free, see `spool.folders.disk_space`.
    min_free_bytes: int | None = None
    #: Maximum size of a file; 0: no limit.
    max_file_bytes: int = 0
    #: Unix seconds: a drop that was published after this is not computed again (0: at any time); None: always computed.
    answered_since: float | None = None
    #: How many of its requests are taken, the first ones; 0: all.
    most_requests: int = 0
    #: The kinds of files that are accepted beside JSONL; None: all.
    accepts: frozenset[str] | None = None
    #: The API's user, who may drop for others (see `submitters`); None: nobody may.
    api: int | None = None

    @property
    def form(self) -> Form:
        """The format of the drop, by its name."""
        return form_of(self.drop.key.name) or Form()

    @property
    def is_data(self) -> bool:
        """Whether its lines are rows for a template, whose keys have no meaning."""
        return self.settings.reading.template is not None


class RejectedError(ObcdError):
    """The file can never become a job as it is; has the reason."""


class InputChangedError(ObcdError):
    """The file changed while it was copied."""


def why_not_accepted(descriptor: int, order: AcceptOrder) -> str:
    """Return why a file is not accepted although its name is: it is no JSON lines, by its beginning. "" if it is."""
    if order.accepts is None or JSON in order.accepts or not order.form.is_json:
        return ""
    shape = _find_shape(descriptor, order)
    return "" if shape is JsonShape.LINES else why_not_lines(shape, order.accepts)


def _find_shape(descriptor: int, order: AcceptOrder) -> JsonShape:
    with _reopened(descriptor) as file, contextlib.suppress(FormError):  # its acceptance reports that
        blocks = _blocks(file, order.drop.identity.size)
        return open_json(blocks, order.form, order.max_expanded_bytes).shape
    return JsonShape.LINES


@contextlib.contextmanager
def _reopened(descriptor: int) -> Iterator[IO[bytes]]:
    """Yield an open file from its beginning, and leave it there."""
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        file.seek(0)
        try:
            yield file
        finally:
            file.seek(0)  # the offset is shared with the descriptor, which others read from


def find_cut(descriptor: int, order: AcceptOrder) -> str:
    """Return why the end of a file seems to be missing, "" if it seems complete."""
    if order.form.is_plain and _find_shape(descriptor, order) is JsonShape.LINES:
        is_ours = foreign_format(os.pread(descriptor, HEAD_BYTES, 0)) is None
        torn = is_ours and _looks_torn(descriptor, order.drop.identity.size, order.max_line_bytes)
        return "its last line is cut off" if torn else ""
    # The end of a packed file shows nothing, and only the whole file shows whether a quote is open: read all of it.
    with _reopened(descriptor) as file:
        try:
            return _read_to_the_end(file, order)
        except CutOffError as error:
            return str(error)
        except FormError:  # it can never become a job; its acceptance reports that
            return ""


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes of a file: one that grows meanwhile has no end."""
    while size and (block := file.read(min(disk.BLOCK, size))):
        size -= len(block)
        yield block


def _read_to_the_end(file: IO[bytes], order: AcceptOrder) -> str:
    form, blocks = order.form, _blocks(file, order.drop.identity.size)
    if form.kind == PARQUET:
        ParquetSheet(order.settings.reading).check(file)
        return ""
    if not form.is_json:
        sheet = sheet_of(form, order.settings.reading, order.max_line_bytes)
        for _ in sheet.rows(unfold(blocks, form, order.max_expanded_bytes)):
            pass
        return sheet.cut
    last = b""
    for block in open_json(blocks, form, order.max_expanded_bytes, is_data=order.is_data).blocks:
        _, line_feed, tail = block.rpartition(b"\n")
        last = tail if line_feed else (last + tail)[: order.max_line_bytes + 1]
    return "its last line is cut off" if _is_cut_off(last) else ""


def _looks_torn(descriptor: int, size: int, max_line_bytes: int) -> bool:
    """Return whether the last line has no LF and is not JSON; a cut exactly at an LF cannot be detected."""
    tail = os.pread(descriptor, min(size, max_line_bytes + 1), max(0, size - max_line_bytes - 1))
    return _is_cut_off(tail.rpartition(b"\n")[2])


#: A line of more bytes may have a text that no context holds.
LONG_LINE_BYTES = 2**20
#: Maximum growth of a table as JSON lines, as a factor, after the first `FREE_BYTES`: each row repeats the names of all
#: columns.
MAX_GROWTH, FREE_BYTES = 1000, 2**26
#: Models under all their names whose number is remembered; a file can write one model in many ways.
MOST_USUAL = 1000
#: Maximum number of requests in one job if lines have several answers (`n`): 25 bytes of input would be 2 KB of index.
MAX_REQUESTS = 2**24


class Reader:
    """Makes one pass over the input: copies, hashes, checks each line, writes the index and failures of bad lines.

    Memory: one block and one line; a line longer than the limit is counted, not kept.
    """

    def __init__(self, order: AcceptOrder, folder: Path) -> None:
        self._order = order
        self._settings, self._reading = order.settings, order.settings.reading
        self._form = order.form
        self._is_array = False
        #: Whether the lines are not the drop itself, byte for byte.
        self._is_converted = not self._form.is_plain or order.most_requests > 0
        self._limit = order.max_line_bytes
        self._files: dict[str, IO[bytes]] = {
            name: open(folder / name, "w+b", buffering=2**18)  # noqa: SIM115 - closed together in `close`
            for name in ("input.jsonl", "index", ledger.NAME, *((FIRSTS,) if order.settings.dedupe else ()))
        }
        self._sames = DuplicateFinder() if order.settings.dedupe else None
        self._prefixes = PrefixFinder(order.settings.system) if order.settings.prefix_affinity == "auto" else None
        self._folder = folder
        self.digest = hashlib.sha256()
        self._gauge = Gauge(order.settings) if order.settings.num_ctx_max else None
        self._needs: Counter[int] = Counter()  # {context length: how many requests need it}
        #: {(signature, needed context length, 0 if it is not planned): number}
        self._numbers: dict[tuple[Signature, int], int] = {}
        #: {(model and kind of a request without options, needed context length): number}, as most requests are
        self._usual: dict[tuple[str | None, Kind, int], int] = {}
        #: By number, that of its signature without the context length.
        self._bases: list[int] = []
        self.size = self.lines = self.requests = self.bad_lines = 0
        self._offset = 0  # of the next line
        #: The endpoint of OpenAI's API in the first object, "" if that is an obcd line; None before the first object.
        self.asks: str | None = "" if order.is_data or not self._form.is_json else None
        #: The digest and size of `input.jsonl` if that is not the drop itself.
        self._written_digest, self._written = hashlib.sha256(), 0
        self._cut = ""  # why the end of a table seems to be missing
        self._custom_ids = CustomIds()
        #: {key that looks like an option but is only echoed, or a remark: the first line that has it}
        self.unobeyed: dict[str, int] = {}
        note_schema(self.unobeyed, order.settings)
        self._is_torn = False  # whether the last line has no LF and is not a JSON object

    def read(self, source: IO[bytes], size: int) -> None:
        """Read the whole input.

        Args:
            size: Its size at the beginning, in bytes.

        Raises:
            FormError: If it does not have the format of its name, or is a bomb.
            OSError: If a disk operation fails, or the lines do not fit on the disk.
            InputChangedError: If it has grown: the user who makes it grow must not decide how long the clerk reads and
                how much space that takes.
        """
        original, most = self._original(source, size), self._order.max_expanded_bytes
        if self._form.is_json:
            content = open_json(original, self._form, most, is_data=self._order.is_data)
            self._is_array = content.shape is JsonShape.ARRAY
            self._is_converted |= content.shape is not JsonShape.LINES
            first = self._order.most_requests
            self._read_lines(first_lines(content.blocks, first) if first else content.blocks)
        elif self._form.kind == PARQUET:
            for _ in original:
                pass
            self._read_rows(ParquetSheet(self._reading).rows(source))
        else:
            sheet = sheet_of(self._form, self._reading, self._limit)
            self._read_rows(sheet.rows(unfold(original, self._form, most)))
            self._cut = sheet.cut
            note_nameless(self.unobeyed, sheet.nameless)
        for _ in original:  # the digest is that of the whole file
            pass

    @property
    def converted(self) -> Converted | None:
        """The facts about the lines if they are not the drop itself, byte for byte."""
        return Converted(self._written_digest.hexdigest(), self._written) if self._is_converted else None

    def _original(self, source: IO[bytes], size: int) -> Iterator[bytes]:
        while block := source.read(disk.BLOCK):
            if self.size + len(block) > size:
                raise InputChangedError
            self.digest.update(block)
            self.size += len(block)
            yield block

    def _read_rows(self, rows: Iterable[Row]) -> None:
        for row in islice(rows, self._order.most_requests or None):
            self._write(row.line + b"\n")
            self._line(row.line, fault=row.fault)

    def _write(self, block: bytes) -> None:
        self._files["input.jsonl"].write(block)
        if not self._is_converted:
            return
        self._written_digest.update(block)
        before, self._written = self._written, self._written + len(block)
        if self._written > max(FREE_BYTES, MAX_GROWTH * self.size):
            raise FormError(f"as JSON lines it is more than {MAX_GROWTH} times as long: send it as JSON lines")
        if self._written > self._order.max_expanded_bytes:
            most = self._order.max_expanded_bytes
            raise FormError(f"it is longer than {most} bytes as JSON lines ([spool] max_expanded_bytes)")
        if before // ROOM_BYTES != self._written // ROOM_BYTES:
            self._check_room()

    def _check_room(self) -> None:
        """Stop before the disk is full: the final size was not known before.

        Raises:
            OSError: As from a full disk.
        """
        self._files["input.jsonl"].flush()
        if find_shortage(
            self._folder, read_space(self._folder), self._order.min_free_bytes, is_short=False, owed=ROOM_BYTES
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def _read_lines(self, blocks: Iterable[bytes]) -> None:
        rest, skipped = b"", 0  # `skipped`: bytes of an over-long line that were dropped
        for block in blocks:
            self._write(block)
            *lines, tail = block.split(b"\n")
            if lines:
                lines[0] = rest + lines[0]
                self._line(lines[0], skipped)
                for line in lines[1:]:
                    self._line(line)
                rest, skipped = tail, 0
            else:
                rest += tail
            if len(rest) > self._limit:
                rest, skipped = b"", skipped + len(rest)
        if rest or skipped:
            self._is_torn = bool(skipped) or _is_cut_off(rest)
            self._line(rest, skipped, end=0)

    def check(self, marker: Marker | None) -> None:
        """Compare the file with its marker.

        Raises:
            RejectedError: If they differ, or if there is no prompt.
        """
        if marker is not None:
            found = {"sha256": self.digest.hexdigest(), "bytes": self.size, "lines": self.lines}
            promised = {"sha256": marker.sha256, "bytes": marker.size, "lines": marker.lines}
            if self._is_converted:  # the submitter counted the lines of the file
                promised["lines"] = None
            for what, value in promised.items():
                if value not in ("", None) and value != found[what]:
                    raise RejectedError(f"its marker says {what} {value}, the file has {found[what]}: send it again")
        if self.size == 0:
            raise RejectedError("it is empty: an interrupted upload? send it again")
        if self._cut and (marker is None or not marker.sha256):
            raise RejectedError(f"{self._cut}, so more may be missing: send it again")
        if self._is_torn and (marker is None or not marker.sha256):
            raise RejectedError(f"its last line ({self.lines}) is cut off, so more may be missing: send it again")
        if self.requests == 0:
            raise RejectedError(f"there is no prompt in it, only {self._what_there_is()}")

    def _what_there_is(self) -> str:
        if self._is_array:
            return "an empty array"
        return "blank lines" if self._form.is_json else "the names of its columns"

    def settle(self) -> tuple[tuple[Signature, ...], ContextPlan | None]:
        """Choose the context lengths by the needs of all requests, and return the signatures by number."""
        most = self._settings.num_ctx_max
        plan = ContextPlan.of(self._needs, most) if most else None
        if plan is None:
            return tuple(key for key, _ in self._numbers), None
        meant = [key.with_num_ctx(plan.length(step)) if step else key for key, step in self._numbers]
        larger = [key.with_num_ctx(plan.larger) for key, step in self._numbers if step]
        signatures = tuple(dict.fromkeys(meant + larger))
        index = self._files["index"]
        index.flush()
        renumber_signatures(index, bytes(map(signatures.index, meant)).ljust(256, b"\0"))
        return signatures, plan

    def write_lanes(self) -> None:
        """Write which requests share a long beginning, if any do; called after `settle`."""
        if self._prefixes is None:
            return
        tree, self._prefixes = self._prefixes.finish(), None
        self._files["index"].flush()
        column = signature_column(self._folder) if self._gauge is not None else b""
        lanes = choose_lanes(tree, self.requests, column)
        if lanes is not None:
            self._files[lane_index.NAME] = file = open(self._folder / lane_index.NAME, "w+b")  # noqa: SIM115 - as above
            lane_index.write_lanes(file, lanes)

    def close(self) -> None:
        """Make all files durable and close them; they are closed even if a disk operation fails."""
        with contextlib.ExitStack() as closing:
            for file in self._files.values():
                closing.callback(file.close)
            for name, file in self._files.items():
                file.flush()
                disk.sync_file(file.fileno(), self._folder / name)

    def _line(self, raw: bytes, skipped: int = 0, end: int = 1, fault: str = "") -> None:
        self.lines += 1
        length, offset = skipped + len(raw), self._offset
        self._offset += length + end
        if offset == 0 and raw.startswith(b"\xef\xbb\xbf"):
            raw, offset, length = raw[3:], 3, length - 3
        if not skipped and is_blank_line(raw):
            return
        try:
            if fault:
                raise LineError(fault)
            if length > self._limit:
                raise LineError(f"longer than {self._limit} bytes ([spool] max_line_bytes)")
            if self._limit == LINE_BYTES and is_mostly_structure(raw):
                raise LineError(MOSTLY_STRUCTURE)
            request = self._parse(raw)
            if length > LONG_LINE_BYTES:
                check_text(request, self._settings)
            answers = answers_of(request, self._settings)
            if answers > 1 and self.requests + answers > MAX_REQUESTS:
                raise LineError(f"the file requests more than {MAX_REQUESTS} answers (`n`): split it")
            number = self._number(request, length)
        except LineError as error:
            request, number, answers = None, 0, 1
            self._bad_line(error)
        for answer in range(answers):
            self._files["index"].write(pack_place(Place(offset, min(length, 2**32 - 1), self.lines, number, answer)))
        self._compare(request, number, answers)
        self.requests += answers

    def _parse(self, raw: bytes) -> Request:
        """Parse one line, and record its facts that count for the whole file.

        Raises:
            LineError: If it is not a valid request.
        """
        if self.asks is None:
            self.asks = _asked_endpoint(raw)
        request = parse_line(raw, self.lines, self._reading)
        if self.asks:
            self._custom_ids.take(request.id)
        if self._reading.template is None:  # otherwise all its keys are data
            note_unobeyed(self.unobeyed, request)
        return request

    def _compare(self, request: Request | None, number: int, answers: int) -> None:
        """Compare a request with the earlier ones: whether it is equal to one (`dedupe`), and whether it begins alike.

        A bad line is equal to no other.
        """
        if self._sames is not None:
            firsts = [self._sames.take(self._digest(request, answer, answers)) for answer in range(answers)]
            self._files[FIRSTS].write(array("I", firsts).tobytes())
            if firsts[0] != self.requests:  # it is not sent
                return
        if self._prefixes is not None and request is not None and request.kind is not Kind.EMBED:
            self._prefixes.take(request, self._bases[number], self.requests, answers)

    @property
    def same(self) -> int:
        """The number of requests that are equal to an earlier one; 0 if they are not compared."""
        return self._sames.repeated if self._sames is not None else 0

    def _digest(self, request: Request | None, answer: int, answers: int) -> bytes | None:
        """Return a digest that is equal for equal requests. One of several answers has its seed in it: it differs."""
        if request is None:
            return None
        if answers == 1:
            return digest_of(request, self._settings)
        return digest_of(nth_request(request, self._settings, answer), self._settings, "one of several")

    def _number(self, request: Request, size: int) -> int:
        """Return the number of a request's signature; the needed context length is part of it for now."""
        step = self._gauge.step(request, size) if self._gauge is not None else 0
        usual = request.model, request.kind, step
        number = None if request.options else self._usual.get(usual)
        if number is None:
            number = self._find_number(signature_of(request, self._settings), step)
            if not request.options and len(self._usual) < MOST_USUAL:
                self._usual[usual] = number
        if step:
            self._needs[step] += 1
        return number

    def _find_number(self, signature: Signature, step: int) -> int:
        number = self._numbers.get((signature, step))
        if number is None:
            number = len(self._numbers)
            limit = MAX_SIGNATURES // 2 if self._gauge is not None else MAX_SIGNATURES  # each may get a larger one
            if number >= limit:
                raise LineError(f"more than {limit} different models and context lengths in one file")
            bases = (base for (known, _), base in zip(self._numbers, self._bases, strict=True) if known == signature)
            self._bases.append(next(bases, number))
            self._numbers[signature, step] = number
        return number

    def _bad_line(self, error: LineError) -> None:
        record = encode(bad_line(error).failure(self.requests, self.lines))
        self._files[ledger.NAME].write(ledger.frame(record))
        self.bad_lines += 1


def _asked_endpoint(raw: bytes) -> str | None:
    """Return the endpoint of OpenAI's API in a line, "" for a line of another shape, None if it is not an object."""
    try:
        return endpoint_of(parse_object(raw))
    except LineError:
        return None


def _is_cut_off(last: bytes) -> bool:
    """Return whether a last line without its LF looks truncated: it is neither blank nor JSON, but begins as JSON."""
    if is_blank_line(last):
        return False
    try:
        parse_object(last)
    except LineError:
        return may_go_on(last)
    return False
