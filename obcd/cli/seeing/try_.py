"""`obcd try`: send a few lines of a file, and show what is sent, what comes back, and what the whole file will take."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from obcd.cli.common import (
    START,
    check_profile,
    config_option,
    ending_cleanly,
    find_layout,
    find_view,
    is_running,
    is_watched,
    read_settings,
    root_option,
    say,
    write_text,
)
from obcd.clock import monotonic, wall
from obcd.config.settings import Settings
from obcd.coordinator.view import JobView, View
from obcd.core.request.lines import parse_line
from obcd.core.request.records import plain_model, whole_option
from obcd.core.tables.file_format import SUFFIX, stem_of
from obcd.errors import ExitCode, InputError, LineError, TimedOutError, UsageError
from obcd.results.trying.estimate import (
    Energy,
    Estimate,
    drawn_watts,
    estimate,
    is_busy,
    joules_per_token,
    needs_load,
    watt_hours,
)
from obcd.results.trying.sampling import LineSample, take_sample
from obcd.results.trying.tried_lines import TriedLine, read_tried
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.history.history_files import read_history
from obcd.spool.inbox.control import ControlVerb, control_name, put_control
from obcd.spool.inbox.drops import Key
from obcd.spool.inbox.markers import KEEP, REMOVE
from obcd.spool.outbox import publication, status_folders
from obcd.spool.outbox.retention import HIDDEN
from obcd.spool.submit.dropping import Submitted, drop
from obcd.spool.submit.target import Target, find_target
from obcd.text import duration, plural, printable

#: Seconds between two looks for the answers, and between two looks at the cluster meanwhile.
LOOK_SECONDS, VIEW_SECONDS = 0.2, 1.0
#: Seconds of the history that say what a token costs.
HISTORY_SECONDS = 86400.0
#: Most characters of one value of a request in the text; --json has all of it.
MOST_SHOWN = 2000

EPILOG = """\b
Examples:
  obcd try notes.jsonl
  obcd try -n 10 --profile clinical notes.jsonl
  obcd try --json notes.jsonl | jq .forecast

The lines are taken from all parts of the file: of short and of long ones as many as there are.
They are an ordinary job, notes.try.jsonl, which comes before your other jobs and shares the
slots with the jobs of others as usual. For each line it prints the request as it was sent, the
answer, and whether it fits; then how long the whole file will take if it is dropped now. The
forecast counts what waits before it. It is often wrong by a third: five lines are few.

--json has the requests in full: {file, lines, loads, tried: [{line, path, request, result, fits,
why}], forecast: {requests, tried, seconds, alone_seconds, prompt_tokens, output_tokens, joules},
folder}. `fits` is null where no form is required and the answer is complete.

If no server has the model of the file in memory it must be loaded, which delays jobs that run
meanwhile: then --load is needed. The answers' folder is removed, unless you --keep it.

Exit codes: 0 all lines were answered, 2 wrong command line, or --load is needed, 3 some lines
failed, 4 wrong configuration, 5 the file cannot be tried, 8 --timeout was reached.
"""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A trial that is dropped.

    Attributes:
        before: The coordinator's state when it was dropped; None if this user cannot read it.
    """

    layout: Layout
    submitted: Submitted
    sample: LineSample
    before: View | None


@click.command(name="try", epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-n", "count", type=click.IntRange(1, 100), default=5, show_default=True, help="lines to try")
@click.option("--profile", default="", help="the profile to use: a folder of the inbox  [default: the inbox itself]")
@click.option("--load", is_flag=True, help="load the file's model although other jobs run")
@click.option("--keep", is_flag=True, help="leave the answers in the outbox")
@click.option("--timeout", type=click.FloatRange(0), default=600.0, show_default=True, help="seconds to wait")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object, for machines")
@config_option
@root_option
def try_lines(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    file: Path, count: int, profile: str, load: bool, keep: bool, timeout: float, as_json: bool, config: str | None,
    root: str | None,
) -> int:  # fmt: skip
    """answer a few lines of a file, and forecast the whole file."""
    settings = read_settings(config)
    layout = find_layout(root, settings)
    if not (profile and (layout.inbox / profile).is_dir()):  # the daemon's profiles are the inbox's folders
        check_profile(settings, profile)
    if not is_running(layout):
        raise InputError(f"no coordinator runs on {layout.root}: start one ({START})")
    target = _target(layout, settings, file, profile)
    sample = take_sample(file, count, target.reading, settings.spool.max_line_bytes)
    view = find_view(layout)
    model = _loaded_first(view, settings, profile, sample)
    if model and view is not None and is_busy(view) and not load:
        raise UsageError(
            f"no server has {printable(model)} in memory, and other jobs run, which would wait while it is loaded: "
            "give --load, or try again when they are done"
        )
    if model and is_watched():
        say(f"a server loads {printable(model)} first")
    submitted = _drop(sample, file, replace(target, trial=KEEP if keep else REMOVE), settings)
    trial = _Trial(layout, submitted, sample, view)
    with ending_cleanly(), _cancelled_if_interrupted(trial):
        folder, watts = _wait(trial, timeout)
    tried = read_tried(folder, sample.numbers)
    if not keep:
        _remove(folder, submitted.drop_id)
    found = _estimate(trial, tried, watts)
    if as_json:
        click.echo(json.dumps(_document(file, trial, tried, model, found, folder if keep else None)))
    else:
        _print(file, trial, tried, found, folder if keep else None)
    return ExitCode.PARTIAL if any(line.failed for line in tried) else ExitCode.DONE


def _target(layout: Layout, settings: Settings, file: Path, profile: str) -> Target:
    if not file.is_file():
        raise InputError(f"{printable(str(file))} is not a file")
    reading = settings.job_settings(profile if profile in settings.profiles else "").reading
    return find_target(layout.inbox, profile, f"{stem_of(file.name)}.try{SUFFIX}", reading)


def _loaded_first(view: View | None, settings: Settings, profile: str, sample: LineSample) -> str:
    """Return the model that a server has to load first, "" if none has to, or if that is not known."""
    if view is None or (profile and profile not in settings.profiles):
        return ""
    job = settings.job_settings(profile)
    for number, line in zip(sample.numbers, sample.lines, strict=True):
        with contextlib.suppress(LineError):
            request = parse_line(line, number, job.reading)
            model = job.model_for(request.model)
            num_ctx = None if job.num_ctx_max else whole_option(request.options, "num_ctx", job.num_ctx)
            if needs_load(view, model, num_ctx):
                return plain_model(model)
    return ""


def _drop(sample: LineSample, file: Path, target: Target, settings: Settings) -> Submitted:
    with tempfile.TemporaryFile() as copy:
        copy.write(sample.content)
        copy.seek(0)
        return drop(copy, str(file), target, settings.spool.max_line_bytes)


@contextlib.contextmanager
def _cancelled_if_interrupted(trial: _Trial) -> Iterator[None]:
    """Cancel the job of a trial whose answers nobody waits for any more."""
    try:
        yield
    except BaseException:
        name = trial.submitted.name
        with contextlib.suppress(OSError):
            put_control(trial.layout, Key(trial.submitted.profile, control_name(name, ControlVerb.CANCEL)), "")
        raise


def _wait(trial: _Trial, timeout: float) -> tuple[Path, float | None]:
    """Wait until the trial is published.

    Returns:
        Its folder, and the most that the cards were seen to draw meanwhile; None if no card reports it.
    """
    layout, submitted = trial.layout, trial.submitted
    deadline, look_at, most, said = monotonic() + timeout, 0.0, None, ""
    while True:
        found = publication.find_published(layout.outbox, submitted.drop_id, submitted.name, submitted.profile)
        if found is not None:
            folder, manifest = found
            if "rejected" in manifest:
                raise InputError(f"{submitted.name} was rejected: {manifest['rejected']}; see {folder}")
            return folder, most
        now = monotonic()
        if now >= deadline:
            raise TimedOutError(_not_yet(submitted.name, timeout, said, is_coordinated=is_running(layout)))
        if now >= look_at:
            look_at = now + VIEW_SECONDS
            view = find_view(layout)
            watts = drawn_watts(view) if view is not None else None
            most = max(filter(None, (most, watts)), default=None)
            trouble = _trouble(trial, view)
            if trouble and trouble != said and is_watched():
                say(trouble)
            said = trouble
        time.sleep(LOOK_SECONDS)


def _not_yet(name: str, timeout: float, why: str, *, is_coordinated: bool) -> str:
    """Return why the answers are missing when the time is over, and what to do."""
    text = f"{printable(name)} was not answered within {duration(timeout)}, and is cancelled"
    if not is_coordinated:
        return f"{text}: no coordinator runs: {START}"
    return f"{text}{f': {why}' if why else ''}; see obcd status, or give it more time with --timeout SECONDS"


def _trouble(trial: _Trial, view: View | None) -> str:
    """Return why the trial does not continue, "" while it does, or if this user cannot see it."""
    submitted = trial.submitted
    for job in view.jobs if view is not None else ():
        if job.drop_id == submitted.drop_id:  # before it runs it has no progress folder
            return printable(job.trouble)
    found = status_folders.find_progress(trial.layout.outbox, submitted.drop_id, submitted.name, submitted.profile)
    try:
        return printable(JobView.from_json(found).trouble) if found is not None else ""
    except ValueError:  # of another version
        return ""


def _remove(folder: Path, drop_id: str) -> None:
    """Remove the published folder, if this user may; otherwise the coordinator does so some minutes later."""
    hidden = folder.with_name(f"{HIDDEN}{drop_id}-{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        folder.rename(hidden)
        disk.remove_tree(hidden)


def _estimate(trial: _Trial, tried: list[TriedLine], watts: float | None) -> Estimate | None:
    """Return the forecast by the state before the trial; by the present one if no endpoint was up then."""
    measured = None
    with contextlib.suppress(OSError):
        measured = joules_per_token(read_history(trial.layout.root, wall() - HISTORY_SECONDS))
    for view in filter(None, (trial.before, find_view(trial.layout))):
        found = estimate(
            tried, trial.sample.lengths, view, uid=os.geteuid(), at=wall(), profile=trial.submitted.profile,
            energy=Energy(measured, watts),
        )  # fmt: skip
        if found is not None:
            return found
    return None


# --- what is printed -------------------------------------------------------------------------------------------------


def _document(
    file: Path, trial: _Trial, tried: list[TriedLine], loads: str, found: Estimate | None, folder: Path | None
) -> dict[str, object]:
    return {
        "file": str(file),
        "lines": len(trial.sample.lengths),
        "loads": loads or None,
        "tried": [line.to_json() for line in tried],
        "forecast": found.to_json() if found is not None else None,
        "folder": str(folder) if folder is not None else None,
    }


def _print(file: Path, trial: _Trial, tried: list[TriedLine], found: Estimate | None, folder: Path | None) -> None:
    name = printable(file.name)
    for line in tried:
        write_text(f"{'#' * 40}\n# {name} line {line.line}\n{'#' * 40}\n{_request(line)}\n{_answer(line)}\n")
    total = len(trial.sample.lengths)
    numbers = ", ".join(str(line.line) for line in tried)
    write_text(f"Tried {plural(len(tried), 'line')} of {total}: {numbers}\n")
    loaded = max((line.load_seconds for line in tried), default=0.0)
    if loaded >= 1:
        write_text(f"Loading the model took {duration(loaded)}.\n")
    write_text(_forecast(found))
    if folder is not None:
        write_text(f"The answers are in {printable(str(folder))}\n")


def _request(line: TriedLine) -> str:
    if not line.path:
        return "No request was sent.\n"
    parts = [f"Request to {line.path}:"]
    for key, value in line.request.items():
        if key == "messages":
            parts += [_message(message) for message in value]
        elif key not in {"stream", "keep_alive"}:
            parts.append(f"  {key}: {_shown(value)}")
    if line.answers > 1:
        parts.append(f"  sent {line.answers} times, each with another seed")
    return "\n".join(parts) + "\n"


def _message(message: dict[str, Any]) -> str:
    more = {key: value for key, value in message.items() if key not in {"role", "content", "images"}}
    pictures = f" [{plural(len(message['images']), 'picture')}]" if message.get("images") else ""
    return f"  {message.get('role')}: {_shown(message.get('content', ''))}{pictures}" + (
        f" {_shown(more)}" if more else ""
    )


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} … ({len(text)} characters)"


def _answer(line: TriedLine) -> str:
    result = line.result
    if line.failed:
        return f"It failed: {line.why}\n"
    tokens = line.tokens
    facts = [f"{result.get('seconds', 0):.1f} s", line.endpoint] + (
        [f"{tokens[0]} + {tokens[1]} tokens"] if tokens else []
    )
    said = result.get("response")
    shown = said if isinstance(said, str) else _shown(result.get("embeddings", ""))
    calls = result.get("tool_calls")
    text = f"Answer ({', '.join(facts)}):\n{shown}\n" + (f"Tool calls: {_shown(calls)}\n" if calls else "")
    verdict = {True: "it fits its form", False: line.why, None: "complete; no form is required"}[line.fits]
    return f"{text}Verdict: {verdict}\n"


def _forecast(found: Estimate | None) -> str:
    if found is None:
        return "There is no forecast: no line was measured, or the state of the cluster cannot be read.\n"
    when = "an unknown time" if found.seconds is None else duration(found.seconds)
    alone = found.alone_seconds
    waits = (
        f" ({duration(alone)} without the other jobs)"
        if alone is not None and found.seconds is not None and found.seconds > 1.1 * alone + 1
        else ""
    )
    energy = f", {watt_hours(found.joules)}" if found.joules is not None else ""
    tokens = f"{_million(found.prompt_tokens)} tokens read, {_million(found.output_tokens)} written"
    return f"Forecast for {plural(found.requests, 'line')}: about {when}{waits}, {tokens}{energy}\n"


def _million(count: int) -> str:
    """Return a count for people with two digits that matter, e.g. `1.2 million`, `340 thousand`, `870`."""
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if count >= size:
            return f"{count / size:.1f}{word}" if count < 10 * size else f"{count / size:.0f}{word}"
    return str(count)
