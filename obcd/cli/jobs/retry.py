"""`obcd retry`: drop the failed lines of published jobs again."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import Any

import click

from obcd.cli.common import (
    START,
    config_option,
    find_layout,
    is_running,
    is_watched,
    read_settings,
    root_option,
    say,
    shown_path,
)
from obcd.config.settings import Settings
from obcd.core.request.rows import PLAIN
from obcd.core.tables.file_format import stem_of
from obcd.errors import ExitCode, InputError
from obcd.results.reading.answers import read_tally
from obcd.results.reading.sources import PublishedFolder
from obcd.results.reading.with_retries import Retries
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.outbox.publish_rename import MANIFEST, find_shown
from obcd.spool.submit.dropping import submit
from obcd.text import plural, printable

EPILOG = """\b
JOB is the folder of a published job, its id, or the name it was dropped with. Its
retry.jsonl (the failed lines, byte for byte) is dropped with the same profile, as
notes.retry.jsonl. The answers come to a new folder; the first folder does not
change. obcd print, merge and verify of the first folder combine both. A job whose
retry is published or running is not retried: retry the retry.

\b
Examples:
  obcd retry /var/spool/obcd/outbox/notes
  obcd retry clinical/notes.jsonl && obcd status
  obcd merge --input-dir /var/spool/obcd/outbox/notes --output-file notes.json

\b
Exit codes: 0 dropped, nothing had failed, or retried before; 4 wrong configuration; 5 there is
no such published job, or its lines could not be dropped.
"""


@click.command(epilog=EPILOG)
@click.argument("jobs", nargs=-1, required=True, metavar="JOB…")
@config_option
@root_option
def retry(jobs: tuple[str, ...], config: str | None, root: str | None) -> int:
    """drop the failed lines of published jobs again."""
    settings = read_settings(config)
    layout = find_layout(root, settings)
    code = ExitCode.DONE
    for word in jobs:
        try:
            _retry(layout, word, settings)
        except InputError as error:
            say(f"obcd: {error}")
            code = error.exit_code
    return code


def _retry(layout: Layout, word: str, settings: Settings) -> None:
    folder, manifest = _find(layout, word)
    label = printable(shown_path(folder))
    if "rejected" in manifest:
        raise InputError(f"{label} never became a job: {printable(str(manifest['rejected']))}")
    if "repeats" in manifest:
        raise InputError(f"{label} points to job {printable(str(manifest['repeats']['job']))}: retry that one")
    failed = folder / "retry.jsonl"
    if not failed.exists():
        say(f"{label}: nothing failed, so there is nothing to retry")
        return
    job = str(manifest.get("job", ""))
    if tried := _find_retry(folder) or _find_running(folder, job):
        say(f"{label}: {tried}")
        return
    runs = is_running(layout)
    if not runs and layout.outbox.resolve() not in folder.resolve().parents:
        raise InputError(
            f"{label} is not in the outbox {printable(str(layout.outbox))}, and no coordinator runs: obcd batch "
            f"{printable(shlex.quote(shown_path(failed)))} answers these lines without one"
        )
    name = stem_of(str(manifest["name"])).removesuffix(".retry") + ".retry"
    profile, limit = str(manifest["profile"]), settings.spool.max_line_bytes
    known = not profile or profile in settings.profiles
    reading = settings.job_settings(profile).reading if known else PLAIN
    dropped = submit(layout.inbox, failed, profile, name, limit, reading=reading, parent=job)
    count = plural(dropped.prompts + dropped.bad, "line")
    say(f"{label}: {count} dropped as {printable(dropped.name)}; see obcd status")
    if not runs and is_watched():
        say(f"no coordinator runs on {layout.root}: the dropped files wait for one ({START})")


def _find_retry(folder: Path) -> str:
    """Return the message for a job that has a published retry; "" if it has none."""
    found = Retries().of(PublishedFolder(folder, folder.name))
    if not found:
        return ""
    newest = found[0]
    shown = printable(shown_path(newest.path))
    if not (newest.path / "retry.jsonl").exists():
        return f"its failed lines were answered in {shown}: obcd merge and obcd verify include them"
    tally = read_tally(newest)
    failed = f"{tally.failures} of {plural(tally.requests, 'line')} failed"
    return f"retried in {shown}, where {failed}: retry that one (obcd retry {shlex.quote(shown)})"


def _find_running(folder: Path, job: str) -> str:
    """Return the message for a job whose retry is running; "" if there is none."""
    for path in folder.parent.glob("*.partial/progress.json") if job else ():
        with contextlib.suppress(OSError, ValueError):
            document = disk.read_json(path)
            if isinstance(document, dict) and document.get("parent") == job:
                name = printable(str(document.get("name")))
                return f"its retry {name} is running: wait until it is finished (obcd status)"
    return ""


def _find(layout: Layout, word: str) -> tuple[Path, dict[str, Any]]:
    stem = stem_of(word)
    places = (Path(word), *(place / stem for place in find_places(layout.outbox, os.geteuid(), "")))
    folder = next((place for place in places if os.path.isfile(place / MANIFEST)), None)
    folder = folder or find_shown(layout.outbox, word)
    if folder is None:
        raise InputError(
            f"there is no published job '{printable(word)}' in {printable(str(layout.outbox))}: "
            "give its folder, or wait until it is finished (obcd status)"
        )
    try:
        manifest = disk.read_json(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(str(folder / MANIFEST))} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or not {"name", "profile"} <= manifest.keys():
        raise InputError(f"{printable(str(folder))} is not a folder of obcd: its manifest names no job")
    return folder, manifest
