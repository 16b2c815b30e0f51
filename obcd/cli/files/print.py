"""`obcd print`: print prompts and answers."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import click

from obcd.cli.common import (
    START,
    config_option,
    ending_cleanly,
    find_layout_anyway,
    find_view,
    is_running,
    root_option,
    say,
    write_text,
)
from obcd.cli.files.common import say_left_out
from obcd.clock import monotonic
from obcd.coordinator.view import View
from obcd.errors import InputError, PartialError, UsageError
from obcd.results.printing import json_line, text_block
from obcd.results.reading.answers import Answer, FailedLine, read_tally
from obcd.results.reading.sources import PromptFile, PublishedFolder, Source, find_sources
from obcd.results.reading.with_retries import Retries, find_wholes, read_whole
from obcd.results.running.finding import NamedJob, Stage, find_job, published_jobs, read_progress
from obcd.results.running.watching import JobWatch, watch
from obcd.spool.folders.layout import Layout
from obcd.text import plural, printable
from obcd.text_files import LeftOut

PRINT_EPILOG = """\b
Examples:
  obcd print outbox/notes | less
  obcd print --json outbox | jq -r .response
  obcd print notes                 the answers that the job notes.jsonl has so far
  obcd print --follow notes        the same, and each further one as it is recorded

The answers of a running job come in the order in which they were recorded. The daemon's
user and root read its ledger. For its submitter, this command puts notes.jsonl.show into
the inbox and removes it at its end: while that file is there, obcd adds what is recorded to
outbox/notes.partial/responses.jsonl and errors.jsonl, which go when the job is published.

Exit codes: 0 done (failed requests are reported and do not count here), 3 a file or line
could not be read, 5 there is no such folder or job, or it belongs to another user.
"""
#: Seconds between two looks at a running job, and after a drop for which it may not show yet.
LOOK_SECONDS, COMING_SECONDS = 0.25, 3.0
#: Seconds without a new answer after which a preview is complete, and most seconds that it is waited for.
QUIET_SECONDS, MOST_SECONDS = 2.0, 30.0


@click.command(name="print", epilog=PRINT_EPILOG)
@click.argument("folders", metavar="DIR|JOB...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object for each answer, for machines")
@click.option("--follow", is_flag=True, help="print the further answers of a running JOB as they come, to its end")
@config_option
@root_option
def print_answers(folders: tuple[Path, ...], as_json: bool, follow: bool, config: str | None, root: str | None) -> None:
    """print prompts and answers.

    DIR is a published folder (outbox/notes), a folder that holds several, or a folder with one file for each prompt.
    JOB is the name or the id of a job, as for obcd cancel.
    """
    if follow and len(folders) > 1:
        raise UsageError("--follow is for one job: obcd print --follow notes.jsonl")
    given: list[Path] = []
    for folder in folders:
        if not follow and (folder.is_dir() or str(folder).startswith(("/", ".", "~"))):
            given.append(folder)
            continue
        layout, _ = find_layout_anyway(config, root)
        found = _find(layout, str(folder), follow=follow)
        if found is None:
            given.append(folder)  # says that there is no such folder
        elif found.folder is not None:
            given.append(found.folder)
        else:
            with ending_cleanly():
                _print_running(layout, found, as_json=as_json, follow=follow)
    if given:
        _print_folders(tuple(given), as_json=as_json)


def _find(layout: Layout, word: str, *, follow: bool) -> NamedJob | None:
    """Return the job of a word.

    Args:
        follow: Whether to wait until its file is accepted, and to raise an error if there is no such job.

    Raises:
        InputError: If its file was rejected.
    """
    found, deadline = find_job(layout, _view(layout), word), monotonic() + COMING_SECONDS
    if follow and found is not None and found.stage is Stage.COMING:
        found = _wait_for(layout, found, word)
    while found is None and follow and monotonic() < deadline:  # on its way from the inbox to a job
        time.sleep(LOOK_SECONDS)
        found = find_job(layout, _view(layout), word)
    if found is not None and found.stage is Stage.REJECTED:
        raise InputError(f"{found.label} was rejected: {found.why}; see {found.folder}")
    if found is None and follow:
        raise InputError(f"there is no job '{printable(word)}': obcd status lists those that are not published")
    return found


def _wait_for(layout: Layout, coming: NamedJob, word: str) -> NamedJob:
    """Return the job of a file that is in the inbox, when it is accepted."""
    say(f"{coming.label} is not accepted yet: obcd status says why it waits")
    before = published_jobs(layout, coming.key)
    left_at = None
    while True:
        found = find_job(layout, _view(layout), word)
        if found is not None and found.stage is not Stage.COMING and found.job not in before:
            return found
        left_at = left_at or monotonic() if found is None or found.stage is not Stage.COMING else None
        if left_at is not None and monotonic() > left_at + MOST_SECONDS:
            raise InputError(
                f"{coming.label} is not in the inbox any more, and this user sees no job of it: join the daemon's "
                "group (usermod -aG obcd NAME), or use sudo"
            )
        time.sleep(LOOK_SECONDS)


def _view(layout: Layout) -> View | None:
    return find_view(layout) if is_running(layout) else None


def _print_running(layout: Layout, found: NamedJob, *, as_json: bool, follow: bool) -> None:
    """Print the answers of a job that is not published; with `follow`, until it is."""
    if found.stage is Stage.COMING:
        say(f"{found.label} is not accepted yet: obcd status says why; obcd print --follow waits for its answers")
        return
    if not is_running(layout) and read_progress(layout, found) is None:
        say(f"no coordinator runs on {layout.root}: no answers come until one does ({START})")
    faults = 0
    with watch(layout, found) as running:
        ending = _Ending(layout, found, running)
        while True:
            for item in running.read(_view(layout)):
                faults += isinstance(item, LeftOut)
                if isinstance(item, LeftOut):
                    say_left_out(item)
                else:
                    write_text(json_line(item) if as_json else text_block(item))
            sys.stdout.flush()
            if running.is_over or not (follow or ending.comes_more()):
                break
            time.sleep(LOOK_SECONDS)
    failed = f", {running.failed} failed" if running.failed else ""
    if not running.is_over:
        say(f"{found.label} is not finished: {running.answered} answered{failed} so far")
    elif failed:
        say(f"{found.label}: {running.answered} answered{failed}: see errors.jsonl")
    if faults:
        raise PartialError(f"{plural(faults, 'file or line', 'files or lines')} could not be read")


class _Ending:
    """Decides when a job's answers so far are all printed, for a command that does not follow it."""

    def __init__(self, layout: Layout, found: NamedJob, running: JobWatch) -> None:
        self._running = running
        progress = read_progress(layout, found)
        self._wanted = int(progress[1]["done"]) if progress is not None else 0
        self._began = self._grown_at = monotonic()
        self._lines = 0

    def comes_more(self) -> bool:
        """Return whether results are missing that were recorded when the command began."""
        now, lines = monotonic(), self._running.answered + self._running.failed
        if lines > self._lines:
            self._lines, self._grown_at = lines, now
        if self._running.is_immediate or lines >= self._wanted:
            return False
        limit = self._grown_at + QUIET_SECONDS if lines else self._began + MOST_SECONDS
        return now < limit


def _print_folders(folders: tuple[Path, ...], *, as_json: bool) -> None:
    """Print what is in folders."""
    faults = 0
    retries, by_retries = Retries(), Counter[Source]()
    found = _sources_of(folders, retries)
    for source in found:
        for item in read_whole(source, retries):
            if isinstance(item, Answer):
                by_retries[source] += item.by_retry
                write_text(json_line(item) if as_json else text_block(item))
                continue
            if isinstance(item, FailedLine):  # counted at the end
                continue
            faults += 1
            if isinstance(source, PromptFile) and not as_json:
                write_text(f"Error: {item.place}: {item.reason}\n")
            else:
                say_left_out(item)
    sys.stdout.flush()
    for source in found:
        if isinstance(source, PublishedFolder):
            _say_failures(source, by_retries[source])
    if faults:
        raise PartialError(f"{plural(faults, 'file or line', 'files or lines')} could not be read")


def _sources_of(folders: tuple[Path, ...], retries: Retries) -> list[Source]:
    for folder in folders:
        if not find_sources(folder):
            shown = printable(str(folder))
            raise InputError(f"nothing to print in {shown}: no per-prompt files and no published folder")
    return find_wholes(folders, retries)


def _say_failures(folder: PublishedFolder, by_retries: int) -> None:
    tally = read_tally(folder)
    failures = tally.failures - by_retries
    if failures > 0:
        again = f", and its retries answered {by_retries}" if by_retries else ""
        say(f"{folder.name}: {failures} of {tally.requests} failed{again}: see errors.jsonl")
