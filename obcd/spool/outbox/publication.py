"""Publish a finished job: write the outputs into its folder, then show the folder in the outbox by one rename.

outbox/notes/           responses.jsonl, errors.jsonl, retry.jsonl, manifest.json, input.jsonl

The folders of `status_folders` are beside it. With `[spool] per_user` it is in the submitter's own folder,
outbox/<user>/ (see `user_folders`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from obcd import __version__
from obcd.clock import timestamp, wall
from obcd.core.answer.counts import Counts
from obcd.core.answer.openai.batch import Batch
from obcd.core.answer.outcomes import Failure, Response, Result
from obcd.core.answer.record_codec import response_line
from obcd.core.request.lines import parse_line
from obcd.core.request.records import plain_model
from obcd.core.tables.file_format import stem_of
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import LineError
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import find_shortage, read_space
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.inbox.control import fail_cancelled, read_job_controls
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, Place, read_firsts, read_header, read_places
from obcd.spool.outbox.output_lines import id_of_failure, published_failure, published_response, result_of_line
from obcd.spool.outbox.publish_rename import FILE_MODE, MANIFEST, show, shown_submitter
from obcd.spool.outbox.response_files import BLOCK_BYTES, remove_files, write_files
from obcd.users import find_user_name

logger = logging.getLogger(__name__)

#: Maximum growth of a file after its acceptance up to which the changed file is kept as well.
MOST_KEPT_BYTES = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFacts:
    """The manifest's facts about an endpoint: `{"version": "0.33.0", "gpu": 0, "digests": {model: sha256}}`."""

    version: str = ""
    gpu: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    """Running sums over a job's results: in total and per endpoint, with the first start and the last end."""

    counts: Counts = field(default_factory=Counts)
    started: float = 0.0
    finished: float = 0.0
    endpoints: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        self.counts.add(Counts.of(result))
        if isinstance(result, Failure):
            return
        seconds, finished = result.answer.cost.seconds, result.answer.finished
        self.finished = max(self.finished, finished)
        self.started = min(self.started or finished, finished - seconds)
        for response in result.responses or (result,):
            cost = response.answer.cost
            share = self.endpoints.setdefault(response.endpoint, {"responses": 0, "eval_tokens": 0, "seconds": 0.0})
            share["responses"] += 1
            share["eval_tokens"] += cost.eval_tokens
            share["seconds"] = round(share["seconds"] + cost.seconds, 3)


def publish(layout: Layout, job: str, facts: Mapping[str, EndpointFacts]) -> Path:
    """Write the outputs of a complete job and show its folder in the outbox; safe to repeat after a crash.

    Without a manifest the outputs are written (again, with the same bytes); with one only the rename is missing.

    Returns:
        The published folder.
    """
    folder = layout.jobs / job
    if folder.exists() and not (folder / MANIFEST).exists():
        header = read_header(folder)
        _check_room(folder, header)
        fail_cancelled(folder, header)
        try:
            sums, outputs = _write_outputs(folder, header)
        except OSError:  # the disk is full: what has to be written again must not keep it full
            with contextlib.suppress(OSError):
                remove_files(folder, _epoch(header))
            raise
        changed = _keep_changed_original(layout, folder, header)
        manifest = _manifest(header, sums, facts, changed) | {"outputs": outputs}
        if header.trial:
            manifest["trial"] = header.trial
        canceller = read_job_controls(folder).canceller
        if header.asks:
            manifest["batch"] = _batch(header, sums, is_cancelled=canceller is not None).to_json()
        if canceller is not None:
            manifest["cancelled_by"] = {"uid": canceller, "name": find_user_name(canceller)}
        disk.write_json(folder / MANIFEST, manifest)
    return show(layout, job)


def _check_room(folder: Path, header: JobHeader) -> None:
    """Refuse to begin outputs that cannot fit: half of them would use the space that results in flight need.

    Raises:
        OSError: If less space is free than the results use already; with the errno of a full disk.
    """
    with contextlib.suppress(FileNotFoundError):
        size, space = (folder / ledger.NAME).stat().st_size, read_space(folder)
        if header.settings.files:
            size = 2 * size + header.requests * BLOCK_BYTES
        if space.size and space.free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _write_outputs(folder: Path, header: JobHeader) -> tuple[_Sums, dict[str, dict[str, object]]]:
    """Write the outputs.

    Returns:
        Their sums, and `{"responses.jsonl": {"sha256": "…", "bytes": 8123}, …}` for those that exist.
    """
    places, sums = ledger.index_results(folder / ledger.NAME, header.requests), _Sums()
    reading = header.settings.reading
    epoch = _epoch(header)
    for name in ("errors.jsonl", "retry.jsonl"):
        disk.remove(folder / name)
    with (
        open(folder / ledger.NAME, "rb", buffering=0) as results,
        open(folder / "input.jsonl", "rb", buffering=2**18) as lines,
        contextlib.ExitStack() as stack,
    ):
        written: dict[str, _HashedFile] = {}

        def begin(name: str) -> _HashedFile:
            written[name] = _HashedFile(stack.enter_context(disk.whole_file(folder / name)))
            return written[name]

        responses, lists_texts = begin("responses.jsonl"), _lists_texts(lines, folder, header)
        failed: _FailedFiles | None = None
        for place, result in _results(read_places(folder), places, results.fileno(), read_firsts(folder, header)):
            sums.add(result)
            if isinstance(result, Response):
                request = parse_line(_read_line(lines, place), result.line, reading)
                if lists_texts and request.inputs:
                    request = replace(request, lists_texts=True)
                if header.settings.files:
                    write_files(folder, epoch, response_line(result, request.id, request.echo), FILE_MODE)
                responses.write(published_response(result, request, header))
                continue
            if failed is None:
                failed = _FailedFiles(header, begin("errors.jsonl"), begin("retry.jsonl"))
            failed.add(lines, place, result)
    if header.settings.files:
        disk.sync_filesystem(folder)
    return sums, {name: file.facts() for name, file in written.items()}


@dataclass(slots=True)
class _HashedFile:
    """A file that is hashed while it is written, so that it need not be read again."""

    file: IO[bytes]
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0

    def write(self, block: bytes) -> None:
        self.file.write(block)
        self.digest.update(block)
        self.size += len(block)

    def facts(self) -> dict[str, object]:
        return {"sha256": self.digest.hexdigest(), "bytes": self.size}


def _results(
    lines: Iterator[Place], places: Sequence[int], results: int, firsts: Sequence[int] | None
) -> Iterator[tuple[Place, Result]]:
    """Yield the place of each line and its one result; the result of a line with several answers holds all of them.

    Args:
        places: By ordinal, the place of its record in the ledger.
        results: The ledger's descriptor.
        firsts: By ordinal, the first equal request, whose record counts for all; None if they are not compared.
    """
    held: list[Result] = []  # the results of the current line
    last = None
    for ordinal, place in enumerate(lines):
        if place.answer == 0 and last is not None:
            yield last, result_of_line(held, last)
            held = []
        first = ordinal if firsts is None else firsts[ordinal]
        result = ledger.read_result(results, places[first])
        held.append(result if first == ordinal else result.repeated(ordinal, place.line))
        last = place
    if last is not None:
        yield last, result_of_line(held, last)


@dataclass(frozen=True, slots=True)
class _FailedFiles:
    """Writes the two files that exist only if some lines failed."""

    header: JobHeader
    errors: _HashedFile
    retry: _HashedFile

    def add(self, lines: IO[bytes], place: Place, failure: Failure) -> None:
        raw = _read_line(lines, place) if place.length <= LINE_BYTES else None
        self.errors.write(published_failure(failure, id_of_failure(raw, place, self.header), self.header))
        lines.seek(place.offset)
        left = place.length
        while left and (block := lines.read(min(left, disk.BLOCK))):
            self.retry.write(block)
            left -= len(block)
        self.retry.write(b"\n")


def _lists_texts(lines: IO[bytes], folder: Path, header: JobHeader) -> bool:
    """Return whether all lines of the job embed, and one has several texts: then `prompt` is a list in each.

    A program that reads all lines as one table needs one type for each key.
    """
    if not header.signatures or not all(signature.embeds for signature in header.signatures):
        return False
    for place in read_places(folder):
        with contextlib.suppress(LineError):
            if len(parse_line(_read_line(lines, place), place.line, header.settings.reading).inputs) > 1:
                return True
    return False


def _read_line(lines: IO[bytes], place: Place) -> bytes:
    lines.seek(place.offset)
    return lines.read(place.length)


def _epoch(header: JobHeader) -> int:
    """Return the second in the names of a job's response files: the same one whenever they are written."""
    return int(header.accepted_at)


def _manifest(
    header: JobHeader, sums: _Sums, facts: Mapping[str, EndpointFacts], changed: Mapping[str, bool]
) -> dict[str, object]:
    counts, span = sums.counts, max(0.0, sums.finished - sums.started)
    used = {name: facts.get(name, EndpointFacts()) for name in sums.endpoints}
    return {
        "format": header.format,
        "obcd": __version__,
        "job": header.id,
        "name": header.name,
        "profile": header.profile,
        "drop_id": header.drop_id,
        "parent": header.parent,
        "repeat": header.repeat,
        "source": header.source,
        **shown_submitter(header.uid, header.dropped_by),
        "counts": {
            "lines": header.lines,
            "requests": counts.done,
            "responses": counts.responses,
            "failures": counts.failures,
            "cut_short": counts.cut_short,
            "empty": counts.empty,
            "repairs": counts.repairs,
            "cached": counts.cached,
            "same": counts.same,
        },
        "tokens": _tokens(counts),
        "times": {
            "accepted_at": timestamp(header.accepted_at),
            "started_at": timestamp(sums.started) if sums.started else None,
            "finished_at": timestamp(sums.finished) if sums.finished else None,
            "published_at": timestamp(wall()),
            "work_seconds": round(counts.work_seconds, 3),
            "wait_seconds": round(counts.wait_seconds, 3),
            "prompt_eval_seconds": round(counts.prompt_eval_seconds, 3),
            "span_seconds": round(span, 3),
            "speedup": round(counts.work_seconds / span, 2) if span else None,
        },
        "endpoints": {
            name: {"gpu": used[name].gpu, "version": used[name].version, **share}
            for name, share in sums.endpoints.items()
        },
        "digests": {
            signature.model: sorted(
                {fact.digests[signature.model] for fact in used.values() if signature.model in fact.digests}
            )
            for signature in header.signatures
        },
        "input": {**_input(header), **changed},
        "settings": header.settings.to_json(),
        "context": header.context.to_json() if header.context is not None else None,
    }


def _tokens(counts: Counts) -> dict[str, int]:
    """Return the manifest's tokens; those of prompts are divided as far as replies say what came from a cache."""
    tokens = {"prompt": counts.prompt_tokens, "eval": counts.eval_tokens}
    if counts.knows_cache:
        tokens |= {"prompt_evaluated": counts.evaluated_tokens, "prompt_cached": counts.cached_tokens}
    return tokens


def _input(header: JobHeader) -> dict[str, object]:
    """Return the manifest's facts about the dropped file, and about the lines that were made from it."""
    document: dict[str, object] = {"sha256": header.sha256, "bytes": header.size}
    if header.converted is not None:
        document["converted"] = {"sha256": header.converted.sha256, "bytes": header.converted.size}
    if header.unobeyed:
        document["unobeyed"] = dict(header.unobeyed)
    if header.remark:
        document["remark"] = header.remark
    return document


def _batch(header: JobHeader, sums: _Sums, *, is_cancelled: bool) -> Batch:
    """Return the batch object of OpenAI's API for the manifest of a job with OpenAI's lines."""
    counts, status = sums.counts, "cancelled" if is_cancelled else "completed"
    models = {signature.model for signature in header.signatures}
    times = {"created_at": header.accepted_at, "in_progress_at": sums.started, "finalizing_at": sums.finished}
    return Batch(
        job=header.id,
        endpoint=header.asks,
        status=status,
        total=counts.done,
        completed=counts.responses,
        failed=counts.failures,
        input_tokens=counts.prompt_tokens,
        output_tokens=counts.eval_tokens,
        times={**times, f"{status}_at": wall()},
        model=plain_model(models.pop()) if len(models) == 1 else None,
    )


def _keep_changed_original(layout: Layout, folder: Path, header: JobHeader) -> dict[str, bool]:
    """Keep the dropped file if somebody wrote to it after it was accepted.

    Only if there is space, and up to a limit: a user who makes it grow must not fill the disk.

    Returns:
        Keys of the manifest: `modified_after_accept`, and `modified_kept` if it was modified but is not kept.
    """
    original, kept = layout.claim(header.id, header.profile) / header.name, folder / "input.modified.jsonl"
    try:
        size = original.lstat().st_size
    except FileNotFoundError:
        size = header.size
    if size == header.size:  # kept before a power cut, which removed unsynced data from the original?
        return {"modified_after_accept": kept.exists()}
    is_short = find_shortage(layout.root, read_space(folder), None, is_short=False, owed=size)
    if is_short or size > header.size + MOST_KEPT_BYTES:
        return {"modified_after_accept": True, "modified_kept": False}
    with disk.whole_file(kept) as target, open(original, "rb") as source:
        while size and (block := source.read(min(size, disk.BLOCK))):
            target.write(block)
            size -= len(block)
    return {"modified_after_accept": True}


def find_published(outbox: Path, drop_id: str, name: str, profile: str) -> tuple[Path, dict[str, object]] | None:
    """Return the folder and manifest of this user's drop in the outbox, or None while there is none."""
    stem = stem_of(name)
    for parent in find_places(outbox, os.geteuid(), profile):
        with contextlib.suppress(OSError):
            for folder in parent.iterdir():
                if not folder.name.startswith(stem):
                    continue
                with contextlib.suppress(OSError, ValueError):
                    manifest = disk.read_json(folder / "manifest.json")
                    if isinstance(manifest, dict) and manifest.get("drop_id") == drop_id:
                        return folder, manifest
    return None
