"""Is a published job whole? The files against the manifest, and every line of the input against its result.

What the manifest says of itself (times, versions, settings) is taken as it is: there is nothing to hold it against.
Only reads; whoever may read the folder may verify it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import Any

from obcd.core.request.rows import ID_FIELD, PLAIN, Reading, parse_template
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
#: A manifest is a page; what is larger is none.
MAX_MANIFEST_BYTES = 64 * 2**20
#: {ending of a folder: what it is}, where it holds no answers.
UNFINISHED = {
    ".partial": "a job that is still being answered",
    ".waiting": "a file that is not taken yet, see why.txt in it",
}
#: Folders below an outbox: `outbox/<user>/<profile>/<job>/`.
DEPTH = 3


class Verdict(StrEnum):
    """What a folder turned out to be."""

    COMPLETE = "complete"  # every line has its result, and all files agree
    REJECTED = "rejected"  # a file that could not become a job; it and the reason are there
    REPEATED = "repeated"  # a file that an earlier job had answered; which one is there
    WRONG = "wrong"  # a job's folder in which something is missing or does not agree
    NOT_A_JOB = "not_a_job"  # nothing that could be verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What became of one folder.

    Attributes:
        name: The folder as people call it, ready to print.
        requests, responses, failures, cut_short: Counted from the files of this folder, not taken from the manifest.
        by_retries: `{folder of a retry, ready to print: how many of the failed lines it answered}`.
        problems: The first sentences of what is wrong, ready to print; `problem_count` is how many there are.
        reason: Why it was rejected, which job answered it before, or why it is no job.
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
    """Return `[(name, folder)]`: the folder itself if it looks like a job's, or if none below it does; else those.

    A name is as people call it, ready to print: `notes`, or `clinical/notes` below what was given.
    """
    own = Path(os.path.abspath(folder)).name
    below = [] if _looks_like_job(folder) or own.endswith(tuple(UNFINISHED)) else _jobs_below(folder, DEPTH)
    return [(printable(str(path.relative_to(folder))), path) for path in below] or [(printable(own), folder)]


def verify(name: str, folder: Path, retries: Retries | None = None) -> Verification:
    """Verify one folder, called `name`; what is wrong with it is the result and never raised.

    A job that was tried again is right only if its retries are too.

    Args:
        retries: What is known so far of folders beside each other.
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
    # A file of a job's, not a job's folder: a drop may be called manifest.json.jsonl.
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
        return "it is no folder" if os.path.lexists(folder) else "there is no such folder"
    for suffix, what in UNFINISHED.items():
        if folder.name.endswith(suffix):
            return f"it stands for {what}: verify the folder of its answers when that is there"
    if not os.access(folder, os.R_OK | os.X_OK):
        return "you may not read it"
    return f"it holds no published job: {error}"


def _read_manifest(folder: Path) -> dict[str, Any]:
    with _open_regular(folder, MANIFEST) as stream:
        raw = stream.read(MAX_MANIFEST_BYTES + 1)
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or len(raw) > MAX_MANIFEST_BYTES:
        raise InputError(f"{MANIFEST} is no JSON object")
    return document


def _verify_rejected(folder: Path, name: str, manifest: dict[str, Any]) -> Verification:
    problems = Problems()
    reason = manifest["rejected"]
    if not isinstance(reason, str) or not reason:
        problems.add(f"{MANIFEST}: it does not say why the file was rejected")
    kept = kept_name(str(manifest.get("name")))
    if os.path.lexists(folder / INPUT):  # of an obcd that called it so whatever it was
        kept = INPUT
    _check_names(folder, {kept, MANIFEST}, {"why.txt"}, problems)  # older ones have none
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


def _verify_repeated(folder: Path, name: str, manifest: dict[str, Any]) -> Verification:
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


def _verify_published(folder: Path, name: str, manifest: dict[str, Any]) -> Verification:
    problems = Problems()
    is_kept = _value(manifest, "input.modified_kept") is not False
    modified = {MODIFIED} if _value(manifest, "input.modified_after_accept") is True and is_kept else set()
    failed = {ERRORS, RETRY} if _value(manifest, "counts.failures") else set()
    _check_names(folder, {INPUT, RESPONSES, MANIFEST} | modified | failed, {STAMP}, problems)
    try:
        sums, requests = _pair(folder, manifest, problems)
        _check_digests(folder, manifest, problems)
    except OSError as error:
        problems.add(f"reading broke off: {error.strerror}")
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
    except InputError as error:  # it was there when the retries were looked for
        return Verification(name=retry.name, verdict=Verdict.WRONG, problems=(str(error),), problem_count=1)


def _follow(result: Verification, folder: Path, retries: Retries) -> Verification:
    """Add what became of a right job's failed lines in its retries."""
    parent = PublishedFolder(folder, result.name)
    below = retries.below(parent) if result.verdict is Verdict.COMPLETE and result.failures else []
    again = [retry for retry in below if not retries.is_void(retry)]
    if not again:
        return result
    problems = Problems()
    for retry in again:
        found = _verify_alone(retry)
        if found.verdict is not Verdict.COMPLETE:
            problems.add(f"its retry {retry.name} is not right: {found.problems[0]}")
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
    """Note what lies in the folder and does not belong there; what is missing is noted when it is opened."""
    try:
        found = set(os.listdir(folder))
    except OSError as error:
        problems.add(f"the folder cannot be listed: {error.strerror}")
        return
    for name in sorted(found - needed - allowed):
        problems.add(f"{printable(name)}: no such file belongs here")
    if MODIFIED in needed - found:
        problems.add(f"{MODIFIED} is missing")


def _open_regular(folder: Path, name: str) -> BufferedReader:
    """Open a file of a folder to read it through; neither a link nor a FIFO leads us on.

    Raises:
        InputError: With one sentence, if it cannot be read or is no regular file.
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


def _pair(folder: Path, manifest: dict[str, Any], problems: Problems) -> tuple[Sums, int]:
    """Check all lines; return what the outputs add up to and how many lines of the input want a result."""
    with ExitStack() as files:

        def opened(name: str) -> BufferedReader | None:
            stream = _open(folder, name, problems)
            return None if stream is None else files.enter_context(stream)

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
        pairing.tell_missing()
        _check_manifest(manifest, index, pairing, problems)
        return pairing.sums, pairing.requests


def _check_manifest(manifest: dict[str, Any], index: Index, pairing: Pairing, problems: Problems) -> None:
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
        # a folder of before there were repairs, a cache, or `dedupe`, does not tell of them
        **{
            f"counts.{key}": count
            for key, count in (("repairs", counts.repairs), ("cached", counts.cached), ("same", counts.same))
            if count or _value(manifest, f"counts.{key}")
        },
        "tokens.prompt": counts.prompt_tokens,
        "tokens.eval": counts.eval_tokens,
        "times.work_seconds": round(counts.work_seconds, 3),
    }
    for key, value in found.items():
        said = _value(manifest, key)
        if not _agrees(said, value):
            problems.add(f"{MANIFEST}: {key} is {_shown(said)}, the files say {_shown(value)}")
    shares = _value(manifest, "endpoints")
    shares = shares if isinstance(shares, dict) else {}
    for name in sorted(shares.keys() | pairing.sums.endpoints.keys()):
        share = shares.get(name)
        said = [share.get("responses"), share.get("eval_tokens")] if isinstance(share, dict) else None
        found_share = pairing.sums.endpoints.get(name)
        if said != found_share:
            problems.add(f"{MANIFEST}: the share of endpoint {printable(name)[:100]} is not what the responses say")


def _reading(manifest: dict[str, Any]) -> Reading:
    """Return what the lines were read with; a manifest without a template, or with nonsense for one, says nothing."""
    template, id_field = _value(manifest, "settings.template"), _value(manifest, "settings.id_field")
    if not isinstance(template, str):
        return PLAIN
    try:
        parse_template(template)
    except ValueError:
        return PLAIN
    return Reading(template, id_field if isinstance(id_field, str) else ID_FIELD)


def _check_digests(folder: Path, manifest: dict[str, Any], problems: Problems) -> None:
    """Compare the outputs with their digests as published; an obcd before those had none to compare with."""
    digests = manifest.get("outputs")
    if digests is None:
        return
    present = {name for name in (RESPONSES, ERRORS, RETRY) if os.path.lexists(folder / name)}
    if not isinstance(digests, dict) or digests.keys() != present:
        problems.add(f"{MANIFEST}: outputs does not name the files that are here")
        return
    for name in sorted(present):
        try:
            stream = _open_regular(folder, name)
        except InputError:  # said already, where its lines were to be read
            continue
        with stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if _value(digests[name], "sha256") != digest:
            problems.add(f"{name}: it is not as it was published (its SHA-256 differs from {MANIFEST})")


def _value(document: Any, key: str) -> Any:
    """Return what stands under a dotted key; None where there is nothing."""
    for part in key.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(part)
    return document


def _agrees(said: Any, found: Any) -> bool:
    """Compare a figure; sums of seconds may differ by what adding in another order changes."""
    if isinstance(found, float):
        return type(said) in (int, float) and abs(said - found) < 0.002
    return type(said) is type(found) and bool(said == found)


def _shown(value: Any) -> str:
    return "missing" if value is None else printable(str(value)[:80])
