"""`obcd submit`: drop files safely, and wait for their answers if asked to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from obcd.cli.common import (
    check_profile,
    config_option,
    find_layout,
    is_running,
    is_terminal,
    plural,
    read_settings,
    root_option,
    say,
)
from obcd.clock import duration, monotonic
from obcd.config.settings import Settings
from obcd.errors import ExitCode, InputError, TimedOutError
from obcd.logs import printable
from obcd.spool import outbox
from obcd.spool.drop import Submitted
from obcd.spool.drop import submit as drop
from obcd.spool.layout import Layout

#: Seconds between looks at the outbox while waiting.
LOOK_SECONDS = 0.5

EPILOG = """\b
Examples:
  obcd submit notes.jsonl
  obcd submit --profile clinical --wait notes.jsonl
  obcd submit --wait --timeout 3600 nightly/*.jsonl || echo "see errors.jsonl"

\b
With --wait the exit code is 0 when every line was answered, 3 when some failed,
5 when a file was rejected, 8 when the time was over (the jobs go on).
"""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--profile", default="", help="the profile to ask with: a folder of the inbox")
@click.option("--name", default="", help="what to call it in the inbox (one file only)  [default: its own name]")
@click.option("--wait", is_flag=True, help="wait for the answers")
@click.option("--timeout", type=click.FloatRange(0), help="most seconds to wait  [default: for ever]")
@click.option("-q", "--quiet", is_flag=True, help="say nothing but errors")
@config_option
@root_option
def submit(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    files: tuple[Path, ...], profile: str, name: str, wait: bool, timeout: float | None, quiet: bool,
    config: str | None, root: str | None,
) -> int:  # fmt: skip
    """drop prompt files into the inbox.

    They appear there whole or not at all, with a checksum, so that they are taken at once.
    """
    settings = read_settings(config)
    layout = find_layout(root, settings)
    if not (profile and (layout.inbox / profile).is_dir()):  # the daemon's profiles are the inbox's folders
        check_profile(settings, profile)
    if name and len(files) > 1:
        raise click.UsageError("--name is for one file")
    if not layout.inbox.is_dir():
        raise InputError(f"there is no inbox at {layout.inbox}: start a coordinator first, or give its --root")
    _check_files(files)
    drops = [_drop(file, profile, name, layout, settings, quiet=quiet) for file in files]
    if not quiet and not is_running(layout):
        say(f"no coordinator runs on {layout.root}: what was dropped waits for one (obcd up)")
    if not wait:
        return ExitCode.DONE
    try:
        return _wait_for_all(drops, layout, timeout, quiet=quiet)
    except KeyboardInterrupt:
        say("no longer waiting; the jobs go on: see obcd status")
        return ExitCode.INTERRUPTED


def _check_files(files: tuple[Path, ...]) -> None:
    """Refuse before anything is dropped what could not be dropped anyway."""
    for number, file in enumerate(files):
        if not file.is_file():
            raise InputError(f"cannot drop {file}: it is no file; nothing was dropped")
        if any(other.name == file.name for other in files[:number]):
            raise InputError(
                f"two of the files are called {file.name}: drop them one by one, with --name; nothing was dropped"
            )


def _drop(file: Path, profile: str, name: str, layout: Layout, settings: Settings, *, quiet: bool) -> Submitted:
    submitted = drop(layout.inbox, file, profile, name, settings.spool.max_line_bytes)
    for line, why in submitted.bad_lines:
        say(f"{file}, line {line}: {why}")
    if submitted.bad:
        say(f"{file}: {plural(submitted.bad, 'line')} will be in errors.jsonl")
    if not quiet:
        where = layout.outbox / profile / submitted.name.removesuffix(".jsonl")
        place = f"{where}.<job>/ (that name is taken)" if where.exists() else f"{where}/"
        say(f"{printable(submitted.name)}: {plural(submitted.prompts, 'prompt')} dropped; the answers come to {place}")
    return submitted


def _wait_for_all(drops: list[Submitted], layout: Layout, timeout: float | None, *, quiet: bool) -> int:
    deadline = monotonic() + timeout if timeout is not None else None
    codes = [_wait_for(item, layout, deadline, quiet=quiet) for item in drops]
    worst = [code for code in (ExitCode.INPUT, ExitCode.PARTIAL) if code in codes]
    return worst[0] if worst else ExitCode.DONE


def _wait_for(item: Submitted, layout: Layout, deadline: float | None, *, quiet: bool) -> ExitCode:
    with _Progress(item, quiet=quiet) as progress:
        while True:
            found = outbox.find_published(layout.outbox, item.drop_id, item.name, item.profile)
            if found is not None:
                break
            if deadline is not None and monotonic() >= deadline:
                goes_on = "it goes on: see obcd status" if is_running(layout) else "no coordinator runs: obcd up"
                raise TimedOutError(f"{printable(item.name)} is not answered yet; {goes_on}")
            progress.show(outbox.find_progress(layout.outbox, item.drop_id, item.name, item.profile))
            time.sleep(LOOK_SECONDS)
    return _conclude(item, *found, quiet=quiet)


def _conclude(item: Submitted, folder: Path, manifest: dict[str, Any], *, quiet: bool) -> ExitCode:
    if "rejected" in manifest:
        say(f"{printable(item.name)} was rejected: {manifest['rejected']}; see {folder}")
        return ExitCode.INPUT
    counts, times = manifest["counts"], manifest["times"]
    if not quiet:
        say(
            f"{folder}: {counts['responses']} answered, {counts['failures']} failed, "
            f"{times['work_seconds']:.0f} s of server work in {times['span_seconds']:.0f} s"
            + (f" = {times['speedup']:.1f} ×" if times["speedup"] else "")
        )
    return ExitCode.PARTIAL if counts["failures"] else ExitCode.DONE


class _Progress:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, item: Submitted, *, quiet: bool) -> None:
        self._item = item
        self._bar: Any = None
        self._is_shown = not quiet and is_terminal()

    def __enter__(self) -> _Progress:
        if self._is_shown:
            from obcd.cli.bars import JobBar  # noqa: PLC0415 - rich costs 0.1 s that cron need not pay

            self._bar = JobBar(printable(self._item.name), self._item.prompts + self._item.bad)
            self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: dict[str, Any] | None) -> None:
        """Show how far the job is."""
        if self._bar is None:
            return
        if progress is None:
            self._bar.note("waiting for the coordinator")
            return
        eta = progress.get("eta_seconds")
        self._bar.update(progress["done"], progress["failed"], progress["tokens_per_second"], duration(eta))
