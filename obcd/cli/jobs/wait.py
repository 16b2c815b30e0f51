"""Wait for the answers to the files that `obcd submit` dropped; with a bar on a terminal, silent elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obcd.cli.common import START, is_running, is_terminal, is_watched, say
from obcd.client.watching.job_view import find_job
from obcd.clock import monotonic
from obcd.coordinator.view import JobView
from obcd.errors import ExitCode, TimedOutError
from obcd.spool.folders.layout import Layout
from obcd.spool.outbox import publication
from obcd.spool.submit.dropping import Submitted
from obcd.text import one_line, printable

if TYPE_CHECKING:
    from obcd.client.watching.bars import JobBar

#: Seconds between checks of the outbox while waiting.
LOOK_SECONDS = 0.5


def wait_for_all(drops: Sequence[Submitted], layout: Layout, timeout: float | None, *, quiet: bool) -> ExitCode:
    """Wait until all jobs are published, and print how each ended.

    Args:
        timeout: Seconds to wait at most; None means no limit.

    Returns:
        The worst outcome: INPUT if a file was rejected, PARTIAL if a line failed.

    Raises:
        TimedOutError: When the time is over; the jobs continue.
    """
    deadline = monotonic() + timeout if timeout is not None else None
    codes = [_wait_for(item, layout, deadline, quiet=quiet) for item in drops]
    worst = [code for code in (ExitCode.INPUT, ExitCode.PARTIAL) if code in codes]
    return worst[0] if worst else ExitCode.DONE


def _wait_for(item: Submitted, layout: Layout, deadline: float | None, *, quiet: bool) -> ExitCode:
    trouble = ""
    with _Progress(item, quiet=quiet) as progress:
        while True:
            found = publication.find_published(layout.outbox, item.drop_id, item.name, item.profile)
            if found is not None:
                break
            if deadline is not None and monotonic() >= deadline:
                raise TimedOutError(_not_yet(item, layout, trouble))
            job = find_job(layout, item.drop_id, item.name, item.profile)
            trouble = printable(job.trouble) if job is not None else ""
            progress.show(job, trouble)
            time.sleep(LOOK_SECONDS)
    return _conclude(item, *found, quiet=quiet)


def _not_yet(item: Submitted, layout: Layout, trouble: str) -> str:
    """Return why the answers are missing when the time is over."""
    if not is_running(layout):
        return f"{printable(item.name)} is not answered yet; no coordinator runs: {START}"
    why = f": {trouble}" if trouble else ""
    return f"{printable(item.name)} is not answered yet{why}; the job continues: see obcd status"


def _conclude(item: Submitted, folder: Path, manifest: dict[str, Any], *, quiet: bool) -> ExitCode:
    if "rejected" in manifest:
        say(one_line(f"{item.name} was rejected: {manifest['rejected']}; see {folder}"))
        return ExitCode.INPUT
    if "repeats" in manifest:
        earlier = manifest["repeats"]
        if earlier["failures"] or (is_watched() and not quiet):
            text = f"{item.name} was answered before: {earlier['responses']} answered, {earlier['failures']} failed"
            say(one_line(f"{text}, in {folder}, as job {earlier['job']} in {earlier['folder']} of the outbox"))
        return ExitCode.PARTIAL if earlier["failures"] else ExitCode.DONE
    counts, times = manifest["counts"], manifest["times"]
    empty = counts.get("empty", 0)
    if counts["failures"] or (not quiet and (empty or is_watched())):
        say(
            f"{folder}: {counts['responses']} answered{f', {empty} of them empty' if empty else ''}, "
            f"{counts['failures']} failed, "
            f"{times['work_seconds']:.0f} s of server work in {times['span_seconds']:.0f} s"
            + (f" = {times['speedup']:.1f} ×" if times["speedup"] else "")
        )
    return ExitCode.PARTIAL if counts["failures"] else ExitCode.DONE


class _Progress:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, item: Submitted, *, quiet: bool) -> None:
        self._item = item
        self._bar: JobBar | None = None
        self._is_shown = not quiet and is_terminal()

    def __enter__(self) -> _Progress:
        if self._is_shown:
            from obcd.client.watching.bars import JobBar  # noqa: PLC0415 - rich takes 0.1 s to import; only terminals need it

            self._bar = JobBar(printable(self._item.name), self._item.prompts + self._item.bad)
            self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, job: JobView | None, trouble: str) -> None:
        """Show the progress of the job, and the trouble that stops it, if any."""
        if self._bar is None:
            return
        if job is None:
            self._bar.note("waiting for the coordinator")
        else:
            self._bar.show(job, trouble)
