"""Verify that a published job is complete: the files against the manifest, and every input line against its result.

The manifest's times, versions and settings are not checked, because there is nothing to compare them with.
Only reads; every user who may read the folder may verify it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BufferedReader
from pathlib import Path

from obcd.clock import seconds_of
from obcd.core.answer.counts import Counts
from obcd.core.request.rows import ID_FIELD, PLAIN, Reading
from obcd.core.request.templates import pieces_of
from obcd.core.tables.file_format import kept_name
from obcd.errors import InputError
from obcd.results.reading.answers import Answer
from obcd.results.reading.line_matching import Index, Pairing, Problems, Sums, index_input
from obcd.results.reading.seed_files import STAMP
from obcd.results.reading.sources import PublishedFolder
from obcd.results.reading.with_retries import Retries, read_whole
from obcd.spool.folders import disk
from obcd.spool.job.job_folder import FORMAT
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.text import printable

INPUT, RESPONSES, ERRORS, RETRY = "input.jsonl", "responses.jsonl", "errors.jsonl", "retry.jsonl"
MODIFIED = "input.modified.jsonl"
#: Maximum size of a manifest.
MAX_MANIFEST_BYTES = 64 * 2**20
#: {suffix of a folder without answers: its meaning}
UNFINISHED = {
    ".partial": "a job that is still being answered",
    ".waiting": "a file that is not accepted yet, see why.txt in it",
}
#: Folders below an outbox: `outbox/<user>/<profile>/<job>/`.
DEPTH = 3


class Verdict(StrEnum):
    """The verdict on a folder."""

    COMPLETE = "complete"  # every line has its result, and all files agree
    REJECTED = "rejected"  # a file that could not become a job; the file and the reason are present
    REPEATED = "repeated"  # a file that an earlier job had answered; the job is named
    WRONG = "wrong"  # a job's folder in which something is missing or does not agree
    NOT_A_JOB = "not_a_job"  # not a folder that can be verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result for one folder.

    Attributes:
        name: The folder's name for people, ready to print.
        requests, responses, failures, cut_short: Counted from the files of this folder, not read from the manifest.
        by_retries: `{folder of a retry, ready to print: number of failed lines that it answered}`.
        problems: The sentences of the first problems, ready to print; `problem_count` is the number of all.
        reason: Why it was rejected, which job answered it before, or why it is not a job.
    """

    name: str
    verdict: Verdict
    requests: int = 0
    responses: int = 0
    failures: int = 0
    cut_short: int = 0
    by_retries: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    problem_count: int = 0
    reason: str = ""


def find_folders(folder: Path) -> list[tuple[str, Path]]:
    """Return `[(name, folder)]` of the job folders below; only the folder itself if it is one, or if there are none.

    A name is for people, ready to print: `notes`, or `clinical/notes` below the given folder.
    """
    own = Path(os.path.abspath(folder)).name
    below = [] if _looks_like_job(folder) or own.endswith(tuple(UNFINISHED)) else _jobs_below(folder, DEPTH)
    return [(printable(str(path.relative_to(folder))), path) for path in below] or [(printable(own), folder)]


def verify(name: str, folder: Path, retries: Retries | None = None) -> Verification:
    """Verify one folder, called `name`; problems are part of the result and never raised.

    A job with retries is complete only if its retries are complete.

    Args:
        retries: The cache of retries in folders beside each other.
    """
    try:
        manifest = _read_manifest(folder)
    except InputError as error:
        if _looks_like_job(folder):
            return Verification(name=name, verdict=Verdict.WRONG, problems=(str(error),), problem_count=1)
        return Verification(name=name, verdict=Verdict.NOT_A_JOB, reason=_why_no_job(folder, error))
    written = manifest.get("format")
    if type(written) is int and written > FORMAT:
        reason = f"a newer obcd wrote it (format {str(written)[:20]}, this one reads {FORMAT}): verify it with that one"
        return Verification(name=name, verdict=Verdict.NOT_A_JOB, reason=reason)
    if "rejected" in manifest:
        return _verify_rejected(folder, name, manifest)
    if "repeats" in manifest:
        return _verify_repeated(folder, name, manifest)
    return _follow(_verify_published(folder, name, manifest), folder, retries or Retries())


def _looks_like_job(folder: Path) -> bool:
    # It must be a file, not a job's folder: a drop may be called manifest.json.jsonl.
    paths = [folder / name for name in (MANIFEST, RESPONSES, ERRORS, INPUT)]
    return any(os.path.lexists(path) and not os.path.isdir(path) for path in paths)


def _jobs_below(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in map(Path, entries):
        if path.name.startswith(".") or path.name.endswith(tuple(UNFINISHED)):
            continue
        if _looks_like_job(path):
            yield path
        elif depth > 1:
            yield from _jobs_below(path, depth - 1)


def _why_no_job(folder: Path, error: InputError) -> str:
    if not folder.is_dir():
        return "it is not a folder" if os.path.lexists(folder) else "there is no such folder"
    for suffix, what in UNFINISHED.items():
        if folder.name.endswith(suffix):
            return f"it stands for {what}: verify the folder of its answers when that exists"
    if not os.access(folder, os.R_OK | os.X_OK):
        return "you may not read it"
    return f"it holds no published job: {error}"


def _read_manifest(folder: Path) -> dict[str, object]:
    with _open_regular(folder, MANIFEST) as stream:
        raw = stream.read(MAX_MANIFEST_BYTES + 1)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or len(raw) > MAX_MANIFEST_BYTES:
        raise InputError(f"{MANIFEST} is not a JSON object")
    return document


def _verify_rejected(folder: Path, name: str, manifest: dict[str, object]) -> Verification:
    problems = Problems()
    reason = manifest["rejected"]
    if not isinstance(reason, str) or not reason:
        problems.add(f"{MANIFEST}: it does not say why the file was rejected")
    kept = kept_name(str(manifest.get("name")))
    if os.path.lexists(folder / INPUT):  # an older obcd used this name for every kind of file
        kept = INPUT
    _check_names(folder, {kept, MANIFEST}, {"why.txt"}, problems)  # older folders have no why.txt
    stream = _open(folder, kept, problems)
    if stream is not None:
        stream.close()
    verdict = Verdict.WRONG if problems.count else Verdict.REJECTED
    return Verification(
        name=name,
        verdict=verdict,
        problems=tuple(problems.sentences),
        problem_count=problems.count,
        reason=printable(str(reason)[:500]),
    )


def _verify_repeated(folder: Path, name: str, manifest: dict[str, object]) -> Verification:
    problems = Problems()
    job, place = _value(manifest, "repeats.job"), _value(manifest, "repeats.folder")
    if not isinstance(job, str) or not isinstance(place, str):
        problems.add(f"{MANIFEST}: it does not say which job answered the file before")
    _check_names(folder, {MANIFEST}, set(), problems)
    return Verification(
        name=name,
        verdict=Verdict.WRONG if problems.count else Verdict.REPEATED,
        problems=tuple(problems.sentences),
        problem_count=problems.count,
        reason=f"job {_shown(job)}, in {_shown(place)} of the outbox",
    )


def _verify_published(folder: Path, name: str, manifest: dict[str, object]) -> Verification:
    problems = Problems()
    is_kept = _value(manifest, "input.modified_kept") is not False
    modified = {MODIFIED} if _value(manifest, "input.modified_after_accept") is True and is_kept else set()
    failed = {ERRORS, RETRY} if _value(manifest, "counts.failures") else set()
    files = _response_files(folder, manifest)
    _check_names(folder, {INPUT, RESPONSES, MANIFEST} | modified | failed, {STAMP, *files}, problems)
    try:
        sums, requests = _pair(folder, manifest, files, problems)
        _check_digests(folder, manifest, problems)
    except OSError as error:
        problems.add(f"a file cannot be read to its end: {error.strerror}")
        sums, requests = Sums(), 0
    return Verification(
        name=name,
        verdict=Verdict.WRONG if problems.count else Verdict.COMPLETE,
        requests=requests,
        responses=sums.counts.responses,
        failures=sums.counts.failures,
        cut_short=sums.counts.cut_short,
        problems=tuple(problems.sentences),
        problem_count=problems.count,
    )


def _verify_alone(retry: PublishedFolder) -> Verification:
    try:
        return _verify_published(retry.path, retry.name, _read_manifest(retry.path))
    except InputError as error:  # the manifest was there when the retries were searched
        return Verification(name=retry.name, verdict=Verdict.WRONG, problems=(str(error),), problem_count=1)


def _follow(result: Verification, folder: Path, retries: Retries) -> Verification:
    """Add the results of a complete job's failed lines in its retries."""
    parent = PublishedFolder(folder, result.name)
    below = retries.below(parent) if result.verdict is Verdict.COMPLETE and result.failures else []
    again = [retry for retry in below if not retries.is_void(retry)]
    if not again:
        return result
    problems = Problems()
    for retry in again:
        found = _verify_alone(retry)
        if found.verdict is not Verdict.COMPLETE:
            problems.add(f"its retry {retry.name} is not complete: {found.problems[0]}")
    answers = (item for item in read_whole(parent, retries) if isinstance(item, Answer) and item.by_retry)
    answered = Counter(item.file.rpartition("/")[0] for item in answers)
    return replace(
        result,
        verdict=Verdict.WRONG if problems.count else result.verdict,
        by_retries=dict(answered),
        problems=tuple(problems.sentences),
        problem_count=problems.count,
    )


def _check_names(folder: Path, needed: set[str], allowed: set[str], problems: Problems) -> None:
    """Add a problem for each file that does not belong in the folder; missing files are noted when they are opened."""
    try:
        found = set(os.listdir(folder))
    except OSError as error:
        problems.add(f"the folder cannot be listed: {error.strerror}")
        return
    for name in sorted(found - needed - allowed):
        problems.add(f"{printable(name)}: no such file belongs here")
    if MODIFIED in needed - found:
        problems.add(f"{MODIFIED} is missing")


def _response_files(folder: Path, manifest: dict[str, object]) -> dict[str, int]:
    """Return `{name: input line}` of the files that `files = true` wrote, one for each answer."""
    if _value(manifest, "settings.files") is not True:
        return {}
    try:
        epoch = int(seconds_of(str(_value(manifest, "times.accepted_at"))))
        names = os.listdir(folder)
    except (OSError, ValueError):
        return {}
    form = re.compile(rf"{epoch}-([1-9][0-9]{{0,15}})(?:-[0-9]{{1,15}})?\.json")
    return {name: int(found[1]) for name in names if (found := form.fullmatch(name))}


def _check_response_files(files: dict[str, int], pairing: Pairing, problems: Problems) -> None:
    """Compare the number of response files of each line with the number of its answers."""
    written = Counter(files.values())
    for line, answers in enumerate(pairing.answers):
        found = written.pop(line, 0)
        if found != answers:
            problems.add(f"the number of response files of line {line} is {found}, but of its answers {answers}")
    for name in sorted(name for name, line in files.items() if line in written):
        problems.add(f"{name}: no such file belongs here")


def _open_regular(folder: Path, name: str) -> BufferedReader:
    """Open a file of a folder for reading; refuse a link or a FIFO.

    Raises:
        InputError: With one sentence, if it cannot be read or is not a regular file.
    """
    try:
        return disk.open_regular(folder / name, os.O_NOFOLLOW, 2**18)
    except FileNotFoundError:
        raise InputError(f"{printable(name)} is missing") from None
    except OSError as error:
        raise InputError(f"{printable(name)} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{printable(name)} is not a regular file") from None


def _open(folder: Path, name: str, problems: Problems) -> BufferedReader | None:
    try:
        return _open_regular(folder, name)
    except InputError as error:
        problems.add(str(error))
        return None


def _pair(folder: Path, manifest: dict[str, object], files: dict[str, int], problems: Problems) -> tuple[Sums, int]:
    """Check all lines; return the sums over the outputs and the number of input lines that need a result."""
    with ExitStack() as stack:

        def opened(name: str) -> BufferedReader | None:
            stream = _open(folder, name, problems)
            return None if stream is None else stack.enter_context(stream)

        lines = opened(INPUT)
        if lines is None:
            return Sums(), 0
        index = index_input(lines)
        pairing = Pairing(lines, index, problems, _reading(manifest))
        responses = opened(RESPONSES)
        if responses is not None:
            pairing.take_responses(responses)
        if _value(manifest, "counts.failures") or os.path.lexists(folder / ERRORS):
            errors, retry = opened(ERRORS), opened(RETRY)
            if errors is not None:
                pairing.take_failures(errors, retry)
        pairing.report_missing()
        if _value(manifest, "settings.files") is True:
            _check_response_files(files, pairing, problems)
        _check_manifest(manifest, index, pairing, problems)
        return pairing.sums, pairing.requests


def _check_manifest(manifest: dict[str, object], index: Index, pairing: Pairing, problems: Problems) -> None:
    counts = pairing.sums.counts
    where = "input.converted" if _value(manifest, "input.converted") is not None else "input"
    found = {
        f"{where}.sha256": index.sha256,
        f"{where}.bytes": index.size,
        "counts.lines": index.lines,
        "counts.requests": pairing.requests,
        "counts.responses": counts.responses,
        "counts.failures": counts.failures,
        "counts.cut_short": counts.cut_short,
        # an obcd without repairs, cache or `dedupe` wrote no counts of them
        **{
            f"counts.{key}": count
            for key, count in (("repairs", counts.repairs), ("cached", counts.cached), ("same", counts.same))
            if count or _value(manifest, f"counts.{key}")
        },
        "tokens.prompt": counts.prompt_tokens,
        "tokens.eval": counts.eval_tokens,
        **{
            f"tokens.{key}": count
            for key, count in (
                ("prompt_evaluated", counts.evaluated_tokens),
                ("prompt_cached", counts.cached_tokens),
            )
            if counts.knows_cache or _value(manifest, f"tokens.{key}") is not None
        },
        **_later_figures(manifest, counts),
    }
    for key, value in found.items():
        said = _value(manifest, key)
        if not _agrees(said, value):
            problems.add(f"{MANIFEST}: {key} is {_shown(said)}, but the files say {_shown(value)}")
    shares = _value(manifest, "endpoints")
    shares = shares if isinstance(shares, dict) else {}
    for name in sorted(shares.keys() | pairing.sums.endpoints.keys()):
        share = shares.get(name)
        said = [share.get("responses"), share.get("eval_tokens")] if isinstance(share, dict) else None
        found_share = pairing.sums.endpoints.get(name)
        if said != found_share:
            problems.add(f"{MANIFEST}: the share of endpoint {printable(name)[:100]} is not what the responses say")


def _later_figures(manifest: dict[str, object], counts: Counts) -> dict[str, object]:
    """Return the figures that an obcd of this version writes; older ones counted the wait for a slot as work."""
    found: dict[str, object] = {}
    if _value(manifest, "counts.empty") is not None:
        found["counts.empty"] = counts.empty
    if _value(manifest, "times.prompt_eval_seconds") is not None:
        found["times.prompt_eval_seconds"] = round(counts.prompt_eval_seconds, 3)
    if _value(manifest, "times.wait_seconds") is None:
        return {**found, "times.work_seconds": round(counts.seconds, 3)}
    return {
        **found,
        "times.work_seconds": round(counts.work_seconds, 3),
        "times.wait_seconds": round(counts.wait_seconds, 3),
    }


def _reading(manifest: dict[str, object]) -> Reading:
    """Return the settings with which the lines were read; PLAIN if the manifest has no template or an invalid one."""
    template, id_field = _value(manifest, "settings.template"), _value(manifest, "settings.id_field")
    if not isinstance(template, str):
        ignore = _value(manifest, "settings.ignore")
        return Reading(
            ignore=frozenset(name for name in ignore if isinstance(name, str)) if isinstance(ignore, list) else (),
            drop_last_assistant=_value(manifest, "settings.drop_last_assistant") is True,
        )
    try:
        pieces_of(template)
    except ValueError:
        return PLAIN
    return Reading(template, id_field if isinstance(id_field, str) else ID_FIELD)


def _check_digests(folder: Path, manifest: dict[str, object], problems: Problems) -> None:
    """Compare the outputs with their published digests; an older obcd wrote no digests."""
    digests = manifest.get("outputs")
    if digests is None:
        return
    present = {name for name in (RESPONSES, ERRORS, RETRY) if os.path.lexists(folder / name)}
    if not isinstance(digests, dict) or digests.keys() != present:
        problems.add(f"{MANIFEST}: `outputs` does not name the files that are in the folder")
        return
    for name in sorted(present):
        try:
            stream = _open_regular(folder, name)
        except InputError:  # added already, where its lines were read
            continue
        with stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if _value(digests[name], "sha256") != digest:
            problems.add(f"{name}: it was changed after it was published (its SHA-256 differs from {MANIFEST})")


def _value(document: object, key: str) -> object:
    """Return the value of a dotted key; None if there is none."""
    for part in key.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return document


def _agrees(said: object, found: object) -> bool:
    """Return whether two figures agree; sums of seconds may differ by the rounding of another order of addition."""
    if isinstance(found, float):
        return isinstance(said, int | float) and not isinstance(said, bool) and abs(said - found) < 0.002
    return type(said) is type(found) and bool(said == found)


def _shown(value: object) -> str:
    return "missing" if value is None else printable(str(value)[:80])
