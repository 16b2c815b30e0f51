"""From a settled drop to an accepted job. Runs in the clerk: it reads strangers' bytes.

    inbox/notes.jsonl ─rename─► inbox/.obcd/claim/<id>/ ─copy, hash, index─► jobs/<id>.tmp/ ─rename─► jobs/<id>/

The last rename is the commit point: nothing is asked before it. Every step can be cut short and done again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from obcd.core.context import ContextPlan, Gauge
from obcd.core.faults import bad_line
from obcd.core.forms import DELIMITERS, JSONL, Form, form_of
from obcd.core.lines import parse_line, parse_object
from obcd.core.openai.asked import endpoint_of
from obcd.core.openai.repeated import CustomIds
from obcd.core.packed import unpack
from obcd.core.records import JobSettings, Outcome, Request, Signature, answers_of, nth_request, signature_of
from obcd.core.sameness import Sames, digest_of
from obcd.core.sheets import Sheet
from obcd.errors import CutOffError, FormError, LineError
from obcd.spool import answered, disk, ledger
from obcd.spool.inbox import MARKER_SUFFIX, Drop, Identity, Marker, read_marker
from obcd.spool.job import (
    FIRSTS,
    MAX_SIGNATURES,
    Converted,
    JobHeader,
    Place,
    pack_place,
    read_header,
    renumber_signatures,
)
from obcd.spool.layout import Layout
from obcd.spool.returned import publish_rejected, publish_repeated
from obcd.spool.room import find_shortage, read_space, shown_size
from obcd.spool.showing import MANIFEST, show

BLOCK = 2**20
#: How often the room is looked at while a packed file or CSV is written out as lines, in bytes.
ROOM_BYTES = 2**26
#: How often a file that changes while it is copied is copied before the clerk turns to others.
COPIES = 3
#: {first bytes: what such a file is}; none of them is JSONL.
MAGIC = {
    b"\x1f\x8b": "a gzip file: unpack it first",
    b"PK\x03\x04": "a zip file: unpack it first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    b"\x7fELF": "a program, not JSONL",
    b"\x89PNG": "a picture, not JSONL",
    b"%PDF": "a PDF, not JSONL",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What the clerk is asked to accept."""

    drop: Drop
    job: str
    settings: JobSettings
    max_line_bytes: int
    reject_torn: bool  # it has looked truncated for long enough
    unfinished: tuple[JobHeader, ...] = ()
    #: What a packed file or CSV may become as JSON lines.
    max_expanded_bytes: int = 2**34
    #: What has to stay free, as `spool.room` has it.
    min_free_bytes: int | None = None
    #: The largest file that may be taken; 0: any.
    max_file_bytes: int = 0
    #: Unix seconds: what was published since then is not computed again (0: ever); None: it is.
    answered_since: float | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The drop is a job now."""

    header: JobHeader


@dataclass(frozen=True, slots=True)
class NotYet:
    """The drop stays where it is, for this reason; look again when it changed, or after a while."""

    why: str
    until_published: bool = False
    until_rejected: bool = False  # it looks cut off: rejected if it stays so


@dataclass(frozen=True, slots=True)
class Rejected:
    """The drop can never become a job; it lies in the outbox with the reason."""

    job: str
    why: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same drop was answered before, by another job; so it says in the outbox."""

    job: str
    earlier: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Gone:
    """The drop was taken away before we took it."""


Verdict = Accepted | NotYet | Rejected | Repeated | Gone


class RejectedError(Exception):
    """The file can never become a job as it is; carries the reason."""


class _ChangedError(Exception):
    """The file changed while it was copied."""


def accept(layout: Layout, order: Order) -> Verdict:
    """Claim a settled drop and make it a job.

    Raises:
        OSError: On a full or failing disk: the file is then in the inbox or in its claim, and is taken up again.
    """
    key = order.drop.key
    source = layout.inbox / key.profile / key.name if key.profile else layout.inbox / key.name
    if _is_begun(layout, order):
        claim_marker(
            source, _claimed(layout, order).parent, order.drop.marker, order.drop.identity.uid
        )  # it may have died between both
        return accept_claimed(layout, order)
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Gone()
    try:
        if Identity.of(os.fstat(descriptor)) != order.drop.identity:
            return NotYet("it changed while it was about to be taken")
        reason = _why_not_yet(descriptor, order) or _why_no_room(layout, order)
        if reason is not None:
            return reason
    finally:
        os.close(descriptor)
    # What is claimed is opened anew and judged as it is then: a file swapped in meanwhile is simply the drop.
    return accept_claimed(layout, order) if _claim(layout, order, source) else Gone()


def accept_claimed(layout: Layout, order: Order) -> Verdict:
    """Make a claimed file a job; also how a claim is taken up after a crash.

    Raises:
        OSError: On a full or failing disk, or (EBUSY) while somebody still writes into the file: ask again later.
    """
    claim, folder = _claimed(layout, order), layout.jobs / order.job
    if (folder / MANIFEST).exists():
        return _conclude(layout, order.job)
    if (folder / "job.json").exists():
        return Accepted(read_header(folder))
    if os.path.lexists(claim) and not stat.S_ISREG(claim.lstat().st_mode):  # swapped in before a clerk that died
        _drop_claim(claim)
    if not os.path.lexists(claim):  # it was rejected and shown, by a clerk that died before it could say so
        return Gone()
    try:
        header = _take_copy(layout, order, claim)
    except RejectedError as error:
        return reject_claimed(layout, order, str(error))
    earlier = answered.find(layout, header, order.answered_since)
    if earlier is not None:
        return Repeated(order.job, earlier.job, publish_repeated(layout, header, earlier))
    return Accepted(_commit(layout, header))


def reject_claimed(layout: Layout, order: Order, why: str) -> Rejected:
    """Give a claimed file back through the outbox, unread."""
    claim = _claimed(layout, order)
    return Rejected(order.job, why, publish_rejected(layout, order.job, order.drop, claim, why))


def accept_copy(layout: Layout, order: Order, source: Path) -> Accepted:
    """Make a file that stays where it is a job (`obcd batch`).

    Raises:
        RejectedError: If it can never become a job.
        OSError: As `accept_claimed`.
    """
    return Accepted(_commit(layout, _take_copy(layout, order, source).evolve(source=str(source))))


def _conclude(layout: Layout, job: str) -> Rejected | Repeated:
    """Show what a clerk that died had finished but for that."""
    document = disk.read_json(layout.jobs / job / MANIFEST)
    folder = show(layout, job)
    if "repeats" in document:
        return Repeated(job, document["repeats"]["job"], folder)
    return Rejected(job, str(document.get("rejected")), folder)


def _claimed(layout: Layout, order: Order) -> Path:
    return layout.claim(order.job, order.drop.key.profile) / order.drop.key.name


def _is_begun(layout: Layout, order: Order) -> bool:
    """Tell whether a clerk that died had claimed the drop already: the order is then carried on, not begun anew."""
    return (layout.jobs / order.job).exists() or os.path.lexists(_claimed(layout, order))


def _why_not_yet(descriptor: int, order: Order) -> NotYet | None:
    size = order.drop.identity.size
    if not order.reject_torn and order.drop.marker is None:
        if size == 0:
            return NotYet("it is empty: an upload that broke off? send it again, or take it away", until_rejected=True)
        cut = _find_cut(descriptor, order)
        if cut:
            is_array = os.pread(descriptor, 256, 0).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
            other = " Or is it one JSON array? Write one object a line" if is_array else ""
            why = f"{cut}: an upload that broke off? send it again.{other}".removesuffix(".")
            return NotYet(why, until_rejected=True)
    key, twins = order.drop.key, order.unfinished
    uid = os.fstat(descriptor).st_uid
    twins = tuple(
        job for job in twins if (job.profile, job.name, job.size, job.uid) == (key.profile, key.name, size, uid)
    )
    if twins:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        for job in twins:
            if job.sha256 == digest:
                return NotYet(f"the same file is being answered already, as job {job.id}", until_published=True)
    return None


def _why_no_room(layout: Layout, order: Order) -> NotYet | None:
    """Leave a file where it is whose copy would fill the disk; the sentence stays the same while room changes."""
    size = order.drop.identity.size
    if not find_shortage(layout.root, read_space(layout.jobs), order.min_free_bytes, is_short=False, owed=size):
        return None
    return NotYet(f"there is no room for a file of {shown_size(size)}: it is taken when there is")


def _find_cut(descriptor: int, order: Order) -> str:
    """Return why the end of a file seems to be missing, "" if it does not."""
    form = form_of(order.drop.key.name) or Form()
    if form.is_plain:
        is_ours = _foreign_format(os.pread(descriptor, 16, 0)) is None
        torn = is_ours and _looks_torn(descriptor, order.drop.identity.size, order.max_line_bytes)
        return "its last line is cut off" if torn else ""
    # A packed end tells nothing, and whether quotes are open only the whole file does: it is read to its end.
    with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        file.seek(0)
        try:
            return _read_to_the_end(file, form, order)
        except CutOffError as error:
            return str(error)
        except FormError:  # it can never become a job, which its acceptance says
            return ""
        finally:
            file.seek(0)  # the place is one with that of the descriptor, which others read from


def _unfolded(blocks: Iterable[bytes], form: Form, order: Order) -> Iterator[bytes]:
    """Yield what a file holds, unpacked where it is packed.

    Raises:
        FormError: If it is something else than its name says, or a bomb.
    """
    if form.is_packed:
        blocks = unpack(blocks, order.max_expanded_bytes)
    is_first = True
    for block in blocks:
        what = _foreign_format(block) if is_first else None
        if what is not None:
            raise FormError(f"it is {what}")
        is_first = False
        yield block


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield so many bytes of a file: one that grows meanwhile has no end."""
    while size and (block := file.read(min(BLOCK, size))):
        size -= len(block)
        yield block


def _read_to_the_end(file: IO[bytes], form: Form, order: Order) -> str:
    blocks = _unfolded(_blocks(file, order.drop.identity.size), form, order)
    if form.kind != JSONL:
        sheet = Sheet(DELIMITERS[form.kind], order.max_line_bytes)
        for _ in sheet.rows(blocks):
            pass
        return sheet.cut
    last = b""
    for block in blocks:
        _, line_feed, tail = block.rpartition(b"\n")
        last = tail if line_feed else (last + tail)[: order.max_line_bytes + 1]
    return "its last line is cut off" if _is_cut_off(last) else ""


def _looks_torn(descriptor: int, size: int, max_line_bytes: int) -> bool:
    """Tell whether the last line has no LF and is no JSON either; a cut exactly at a LF cannot be seen."""
    tail = os.pread(descriptor, min(size, max_line_bytes + 1), max(0, size - max_line_bytes - 1))
    return _is_cut_off(tail.rpartition(b"\n")[2])


def _claim(layout: Layout, order: Order, source: Path) -> bool:
    """Move the file out of the inbox; False when it was gone, or was swapped for something else."""
    folder = layout.claim(order.job, order.drop.key.profile)
    layout.create_claims()  # the inbox may have been made anew meanwhile
    disk.make_folder(folder)
    target = folder / source.name
    try:
        disk.rename(source, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        if isinstance(error, FileNotFoundError):
            return False
        raise
    if not stat.S_ISREG(target.lstat().st_mode):  # swapped in: it moved as what it is, and is never followed
        _drop_claim(target)
        return False
    claim_marker(source, folder, order.drop.marker, order.drop.identity.uid)
    return True


def _drop_claim(claim: Path) -> None:
    """Remove what is no file, with all that is in it: no drop ever looks like that, so that nobody put it there."""
    if stat.S_ISDIR(claim.lstat().st_mode):
        disk.remove_tree(claim)
    else:
        disk.remove(claim)
    with contextlib.suppress(OSError):
        claim.parent.rmdir()


def claim_marker(source: Path, folder: Path, expected: Marker | None, owner: int) -> None:
    """Move a file's marker beside its claim, unless it speaks of a newer drop of the same name by now."""
    path = source.with_name(source.name + MARKER_SUFFIX)
    try:
        found = read_marker(path, owner)
    except (OSError, ValueError):  # gone, or no marker any more
        return
    if found == expected:
        with contextlib.suppress(FileNotFoundError):
            disk.rename(path, folder / path.name)


def _take_copy(layout: Layout, order: Order, source: Path) -> JobHeader:
    temporary = layout.jobs / f"{order.job}.tmp"
    for _ in range(COPIES):
        disk.remove_tree(temporary)
        disk.make_folder(temporary)
        try:
            return _copy(layout, order, source, temporary)
        except _ChangedError:  # somebody still writes through an open descriptor: take all of it
            continue
        except OSError:  # the disk is full: what of it is half there must not keep it so
            with contextlib.suppress(OSError):
                disk.remove_tree(temporary)
            raise
    disk.remove_tree(temporary)
    raise OSError(errno.EBUSY, "it is still being written", str(source))


def _commit(layout: Layout, header: JobHeader) -> JobHeader:
    """Make the copy a job: the last rename."""
    temporary = layout.jobs / f"{header.id}.tmp"
    disk.write_json(temporary / "job.json", header.to_json(), 0o600)
    disk.rename(temporary, layout.jobs / header.id)
    return header


def _check_growth(layout: Layout, order: Order, size: int) -> None:
    """See whether a file that grew since it settled may still be taken.

    Raises:
        RejectedError: If it is larger than any may be.
        OSError: If its copy would take the room that is to stay free.
    """
    if size <= order.drop.identity.size:
        return
    if 0 < order.max_file_bytes < size:
        most = shown_size(order.max_file_bytes)
        raise RejectedError(f"it grew to {shown_size(size)} after it was taken, [spool] max_file_bytes allows {most}")
    if find_shortage(layout.root, read_space(layout.jobs), order.min_free_bytes, is_short=False, owed=size):
        raise OSError(errno.ENOSPC, f"it grew, and there is no room for {shown_size(size)}", order.drop.key.name)


def _copy(layout: Layout, order: Order, source: Path, temporary: Path) -> JobHeader:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        _check_growth(layout, order, status.st_size)
        reader = _Reader(order, temporary)
        try:
            try:
                reader.read(file, status.st_size)
            except FormError as error:
                raise RejectedError(str(error)) from None
            signatures, context = reader.settle()
        finally:
            reader.close()
        after = os.fstat(descriptor)
        # Not ctime: whoever owns the file can change that for ever (chmod), and it says nothing of the content.
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise _ChangedError
    reader.check(order.drop.marker)
    marker = order.drop.marker or Marker()
    return JobHeader(
        id=order.job,
        name=order.drop.key.name,
        profile=order.drop.key.profile,
        uid=status.st_uid,
        drop_id=marker.drop_id,
        parent=marker.parent,
        accepted_at=time.time(),
        sha256=reader.digest.hexdigest(),
        size=reader.size,
        lines=reader.lines,
        requests=reader.requests,
        bad_lines=reader.bad_lines,
        same=reader.same,
        settings=order.settings,
        signatures=signatures,
        context=context,
        repeat="run" if order.answered_since is None else "skip",
        asks=reader.asks or "",
        converted=reader.converted,
    )


#: Requests in one job, where lines that want several answers make them: 25 bytes of input would be 2 KB of index.
MAX_REQUESTS = 2**24


class _Reader:
    """One pass over the input: copies, hashes, validates each line, writes the index and the bad lines' failures.

    Memory: one block and one line; a line longer than the limit is counted, not kept.
    """

    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._settings, self._reading = order.settings, order.settings.reading
        self._form = form_of(order.drop.key.name) or Form()
        self._limit = order.max_line_bytes
        self._files: dict[str, IO[bytes]] = {
            name: open(folder / name, "w+b", buffering=2**18)  # noqa: SIM115 - closed together in `close`
            for name in ("input.jsonl", "index", ledger.NAME, *((FIRSTS,) if order.settings.dedupe else ()))
        }
        self._sames = Sames() if order.settings.dedupe else None
        self._folder = folder
        self.digest = hashlib.sha256()
        self._gauge = Gauge(order.settings) if order.settings.num_ctx_max else None
        self._needs: Counter[int] = Counter()  # {context length: how many requests need it}
        #: {(signature, context length that is needed, 0 where that is not planned): number}
        self._numbers: dict[tuple[Signature, int], int] = {}
        self.size = self.lines = self.requests = self.bad_lines = 0
        self._offset = 0  # of the line that comes next
        #: Which endpoint of OpenAI's the first object asks, "" where it is a line of ours; None before there is one.
        self.asks: str | None = "" if self._reading.template is not None or self._form.kind != JSONL else None
        #: Of what `input.jsonl` holds where that is not the drop itself.
        self._written_digest, self._written = hashlib.sha256(), 0
        self._cut = ""  # why the end of a table seems to be missing
        self._custom_ids = CustomIds()
        self._is_torn = False  # the last line has no LF and is no JSON object

    def read(self, source: IO[bytes], size: int) -> None:
        """Take in the whole input.

        Args:
            size: What it had at the beginning, in bytes.

        Raises:
            FormError: If it is not of the form that its name promises, or a bomb.
            OSError: If the disk refuses, or what it becomes does not fit.
            _ChangedError: If there is more by now: whoever makes it grow decides neither how long we read nor what room
                that takes.
        """
        blocks = _unfolded(self._original(source, size), self._form, self._order)
        if self._form.kind == JSONL:
            self._read_lines(blocks)
        else:
            self._read_rows(blocks)

    @property
    def converted(self) -> Converted | None:
        """What the lines are where they are not the drop itself, byte for byte."""
        return None if self._form.is_plain else Converted(self._written_digest.hexdigest(), self._written)

    def _original(self, source: IO[bytes], size: int) -> Iterator[bytes]:
        while block := source.read(BLOCK):
            if self.size + len(block) > size:
                raise _ChangedError
            self.digest.update(block)
            self.size += len(block)
            yield block

    def _read_rows(self, blocks: Iterable[bytes]) -> None:
        sheet = Sheet(DELIMITERS[self._form.kind], self._limit)
        for row in sheet.rows(blocks):
            self._write(row.line + b"\n")
            self._line(row.line, fault=row.fault)
        self._cut = sheet.cut

    def _write(self, block: bytes) -> None:
        self._files["input.jsonl"].write(block)
        if self._form.is_plain:
            return
        self._written_digest.update(block)
        before, self._written = self._written, self._written + len(block)
        if self._written > self._order.max_expanded_bytes:
            most = self._order.max_expanded_bytes
            raise FormError(f"it is longer than {most} bytes as JSON lines ([spool] max_expanded_bytes)")
        if before // ROOM_BYTES != self._written // ROOM_BYTES:
            self._check_room()

    def _check_room(self) -> None:
        """Break off before the disk is full: nobody knew before how long it becomes.

        Raises:
            OSError: As from a full disk.
        """
        self._files["input.jsonl"].flush()
        if find_shortage(
            self._folder, read_space(self._folder), self._order.min_free_bytes, is_short=False, owed=ROOM_BYTES
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def _read_lines(self, blocks: Iterable[bytes]) -> None:
        rest, skipped = b"", 0  # `skipped`: bytes of an over-long line that were let go
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
        """Compare with what the marker promised.

        Raises:
            RejectedError: If it differs, or if there is not one prompt.
        """
        if marker is not None:
            found = {"sha256": self.digest.hexdigest(), "bytes": self.size, "lines": self.lines}
            promised = {"sha256": marker.sha256, "bytes": marker.size, "lines": marker.lines}
            if not self._form.is_plain:  # whoever counted lines counted those of the file
                promised["lines"] = None
            for what, value in promised.items():
                if value not in ("", None) and value != found[what]:
                    raise RejectedError(f"its marker says {what} {value}, the file has {found[what]}: send it again")
        if self.size == 0:
            raise RejectedError("it is empty: an upload that broke off? send it again")
        if self._cut and (marker is None or not marker.sha256):
            raise RejectedError(f"{self._cut}, so more may be missing: send it again")
        if self._is_torn and (marker is None or not marker.sha256):
            raise RejectedError(f"its last line ({self.lines}) is cut off, so more may be missing: send it again")
        if self.requests == 0:
            raise RejectedError("there is no prompt in it, only blank lines")

    def settle(self) -> tuple[tuple[Signature, ...], ContextPlan | None]:
        """Choose the context lengths now that all needs are known, and return the signatures by number."""
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

    def close(self) -> None:
        """Make all files durable and close them; they are closed even when the disk refuses."""
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
        if not skipped and not raw.strip():
            return
        try:
            if fault:
                raise LineError(fault)
            if length > self._limit:
                raise LineError(f"longer than {self._limit} bytes ([spool] max_line_bytes)")
            if self.asks is None:
                self.asks = _asked_endpoint(raw)
            request = parse_line(raw, self.lines, self._reading)
            if self.asks:
                self._custom_ids.take(request.id)
            answers = answers_of(request, self._settings)
            if answers > 1 and self.requests + answers > MAX_REQUESTS:
                raise LineError(f"more than {MAX_REQUESTS} answers are wanted of one file (`n`): split it")
            number = self._number(request, length)
        except LineError as error:
            request, number, answers = None, 0, 1
            self._bad_line(error)
        for answer in range(answers):
            self._files["index"].write(pack_place(Place(offset, min(length, 2**32 - 1), self.lines, number, answer)))
        self._compare(request, answers)
        self.requests += answers

    def _compare(self, request: Request | None, answers: int) -> None:
        """Write which request is the first that is like each of these, if that is wanted; a bad line is like none."""
        if self._sames is not None:
            firsts = [self._sames.take(self._digest(request, answer, answers)) for answer in range(answers)]
            self._files[FIRSTS].write(array("I", firsts).tobytes())

    @property
    def same(self) -> int:
        """Requests that are the same as one before them; 0 where they are not compared."""
        return self._sames.repeated if self._sames is not None else 0

    def _digest(self, request: Request | None, answer: int, answers: int) -> bytes | None:
        """Return what is equal for equal requests. One of several answers tells its seed, and so is no single one."""
        if request is None:
            return None
        if answers == 1:
            return digest_of(request, self._settings)
        return digest_of(nth_request(request, self._settings, answer), self._settings, "one of several")

    def _number(self, request: Request, size: int) -> int:
        """Return the number of what a request needs loaded; the context length it needs is part of that for now."""
        step = self._gauge.step(request, size) if self._gauge is not None else 0
        key = signature_of(request, self._settings), step
        number = self._numbers.get(key)
        if number is None:
            number = len(self._numbers)
            limit = MAX_SIGNATURES // 2 if self._gauge is not None else MAX_SIGNATURES  # each may get a larger one
            if number >= limit:
                raise LineError(f"more than {limit} different models and context lengths in one file")
            self._numbers[key] = number
        if step:
            self._needs[step] += 1
        return number

    def _bad_line(self, error: LineError) -> None:
        fault = bad_line(error)
        record = failure_record(self.requests, self.lines, fault.kind, fault.message, 0)
        self._files[ledger.NAME].write(ledger.frame(record))
        self.bad_lines += 1


def _foreign_format(block: bytes) -> str | None:
    """Return what a file is that begins like this, where it is known to be no JSONL."""
    return next((what for magic, what in MAGIC.items() if block.startswith(magic)), None)


def _asked_endpoint(raw: bytes) -> str | None:
    """Return the endpoint of OpenAI's that a line asks, "" for a line of another shape, None for no object."""
    try:
        return endpoint_of(parse_object(raw))
    except LineError:
        return None


def _is_cut_off(last: bytes) -> bool:
    """Tell whether a last line without its LF looks like half a line: it is not blank and no JSON object."""
    if not last.strip(b" \t\r"):
        return False
    try:
        parse_object(last)
    except LineError:
        return True
    return False


def failure_record(
    ordinal: int,
    line: int,
    kind: str,
    message: str,
    attempts: int,
    endpoint: str = "",
    kept: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the ledger's record of a failure, as JSON; `kept` is `Fault.kept`."""
    return ledger.encode(
        {
            **(kept or {}),
            "ordinal": ordinal,
            "line": line,
            "outcome": Outcome.FAILURE,
            "class": kind,
            "message": message,
            "attempts": attempts,
            "endpoint": endpoint,
        }
    )
