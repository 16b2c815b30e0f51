"""The work of `obcd batch`: one file in the foreground, without a daemon, as ollama-batch-process.py did."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from obcd.cli.common import check_profile, is_terminal, read_local_settings, say, shown_path
from obcd.clock import monotonic
from obcd.config.endpoints import Endpoint, misplaced_path
from obcd.config.settings import Settings
from obcd.config.tokens import with_tokens
from obcd.coordinator.batch import BatchPlan, plan_batch
from obcd.coordinator.daemon import run
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.observer import Observer
from obcd.coordinator.view import JobView
from obcd.core.endpoint.faults import Fault
from obcd.core.request.ignored_keys import describe_ignored
from obcd.core.request.model_names import how_to_get
from obcd.core.request.records import canonical_model
from obcd.core.scheduling.leases import Lease
from obcd.errors import ExitCode, InputError, NoEndpointError
from obcd.logs.setup import set_up_logging
from obcd.ollama.control import Probe, probe_all
from obcd.results.reading.seed_files import write_response_files
from obcd.spool.folders import disk
from obcd.spool.folders.mounts import doubt_root, read_mount
from obcd.spool.job.job_folder import JobHeader
from obcd.text import duration, plural
from obcd.workers.messages import Answered

#: Seconds between plain progress lines, and between redraws of the bar.
PLAIN_SECONDS, REDRAW_SECONDS = 10.0, 0.2


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The options of the command line; None for one that is not given."""

    config: str | None
    prompts: Path
    output: Path
    profile: str
    model: str | None
    files: bool
    again: bool
    verbose: bool


def answer(options: BatchOptions) -> int:
    """Answer the file, and return the exit code."""
    set_up_logging(logging.ERROR)  # messages for people are printed here
    settings = with_tokens(read_local_settings(options.config))
    check_profile(settings, options.profile)
    if options.model:
        settings = settings.with_model(options.model)
    plan = plan_batch(settings, options.prompts, options.output, options.profile, again=options.again)
    if plan.published is not None:
        say(f"{options.prompts} has been answered already, in {shown_path(plan.published)}/ (--again sends it again)")
        return _conclude(plan.published, options.output, files=options.files, quiet=True)
    header = plan.header
    assert header is not None
    mount = read_mount(plan.layout.root)
    if mount is not None and mount.is_network:
        say(f"warning: {doubt_root(plan.layout.root, mount)}")
    probes = _check_endpoints(settings, header)
    _say_start(plan, header, settings, probes)
    folder = _run(settings, plan, header, verbose=options.verbose)
    if folder is None:
        say("interrupted; run the same command to continue")
        return ExitCode.INTERRUPTED
    return _conclude(folder, options.output, files=options.files)


def _check_endpoints(settings: Settings, header: JobHeader) -> dict[str, Probe]:
    """Refuse to start if no request could succeed: no endpoint is reached, or no endpoint has a needed model."""
    endpoints = settings.endpoints()
    found_all = probe_all([item.url for item in endpoints], [item.token for item in endpoints])
    probes = dict(zip((item.name for item in endpoints), found_all, strict=True))
    for item in endpoints:
        if exposure := item.exposure(probes[item.name].peer):
            say(f"warning: endpoint {item.name}: {exposure}")
    reached = {name: found for name, found in probes.items() if found.failure is None}
    for name, found in probes.items():
        if found.failure is not None and reached:
            say(f"endpoint {name} is not used for now: {found.failure}")
    if not reached:
        reasons = "; ".join(f"{name}: {found.failure}" for name, found in probes.items())
        is_misplaced = any(misplaced_path(item.url) for item in endpoints)
        advice = "correct [ollama_instances]" if is_misplaced else "start Ollama, or correct [ollama_instances]"
        raise NoEndpointError(f"no endpoint can be reached ({reasons}): {advice}")
    wanted = {signature.model for signature in header.signatures} or {canonical_model(header.settings.model)}
    lacking = {model for model in wanted if not any(model in found.digests for found in reached.values())}
    fetched = lacking & settings.models() if settings.requests.pull else set[str]()
    for model in sorted(fetched):
        say(f"no endpoint has the model '{model}': it is pulled first")
    lacking -= fetched
    if lacking == wanted:
        name = min(lacking)
        url = next((item.url for item in endpoints if item.name in reached and item.token is None), "")
        reachable = plural(len(reached), "endpoint")
        raise NoEndpointError(f"no endpoint has the model '{name}' ({reachable} reached): {how_to_get(name, url)}")
    for model in sorted(lacking):
        say(f"no endpoint has the model '{model}': its lines will fail")
    return probes


def _room(endpoints: list[Endpoint]) -> str:
    """Return `4 slots`, or `2 endpoints` if obcd finds their slots while it runs."""
    slots = [item.slots for item in endpoints]
    known = [count for count in slots if count is not None]
    return plural(sum(known), "slot") if len(known) == len(slots) else plural(len(slots), "endpoint")


def _say_start(plan: BatchPlan, header: JobHeader, settings: Settings, probes: dict[str, Probe]) -> None:
    reached = [item for item in settings.endpoints() if probes[item.name].failure is None]
    if plan.resumed:
        say(f"continuing {header.name}")
    else:
        bad = f" ({plural(header.bad_lines, 'bad line')} will be in errors.jsonl)" if header.bad_lines else ""
        say(f"{header.name}: {plural(header.requests, 'prompt')}{bad} over {_room(reached)}")
        if header.context is not None:
            say(header.context.describe())
        for sentence in describe_ignored(header.unobeyed):
            say(sentence)
    if plan.settings_differ:
        say("the configuration has changed since the job started; the job keeps the settings it started with")
    labels = sorted({found.version for found in probes.values() if "obcd" in found.version})
    if labels:
        say(f"stand-in servers answer ({', '.join(labels)})")


class _Watcher(Observer):
    """Records where the job was published, and with --verbose prints a line per answer."""

    def __init__(self, job: str, gpus: dict[str, int], *, verbose: bool) -> None:
        self._job = job
        self._gpus = gpus
        self._verbose = verbose
        self.folder: Path | None = None

    def on_answer(self, job: JobHeader, lease: Lease, answer: Answered) -> None:
        """Print the seed's line, with the line number in front."""
        if self._verbose:
            seconds = answer.counts.seconds
            rate = answer.words / seconds if seconds > 0 else 0.0
            _log_line(
                f"Line: {answer.line}, Host: {lease.endpoint}, GPU: {self._gpus.get(lease.endpoint, 0)}, "
                f"Words: {answer.words}, Duration: {seconds:.2f}s, WPS: {rate:.2f}"
            )

    def on_failure(self, job: JobHeader, lease: Lease | None, line: int, fault: Fault) -> None:
        """Print a failure at once."""
        where = f" on {lease.endpoint}" if lease is not None else ""
        _log_line(f"Line: {line}{where} failed: {fault.message}")

    def on_published(self, job: str, folder: Path) -> None:
        """Record the folder."""
        if job == self._job:
            self.folder = folder


def _log_line(text: str) -> None:
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}, {text}")


def _run(settings: Settings, plan: BatchPlan, header: JobHeader, *, verbose: bool) -> Path | None:
    gpus = {item.name: item.gpu for item in settings.endpoints()}
    watcher = _Watcher(header.id, gpus, verbose=verbose)
    coordinator = Coordinator(settings, plan.layout, watcher, takes_drops=False, only=header.id, lock=plan.lock)
    show = _Bar(coordinator, header) if is_terminal() and not verbose else _Plain(coordinator, header)

    def is_over(now: float) -> bool:
        show.tick(now)
        return watcher.folder is not None or coordinator.is_damaged(header.id)

    try:
        run(coordinator, is_over)
    finally:
        show.stop()
    if coordinator.is_damaged(header.id):
        raise InputError(
            f"{plan.layout.jobs / header.id} is damaged: delete it (its responses are lost), then run this again"
        )
    return watcher.folder


class _Plain:
    """A line every few seconds, for logs."""

    def __init__(self, coordinator: Coordinator, header: JobHeader) -> None:
        self._coordinator = coordinator
        self._job = header.id
        self._pause = PLAIN_SECONDS
        self._shown_at = monotonic()

    def tick(self, now: float) -> None:
        """Show the state if it is due."""
        if now - self._shown_at < self._pause:
            return
        self._shown_at = now
        view = self._coordinator.view(now)
        job = view.find_job(self._job)
        if job is not None:
            self._show(job, view.troubles)

    def _show(self, job: JobView, troubles: Sequence[str]) -> None:
        speed, eta = f"{job.tokens_per_second:.0f} tokens/s", f"ETA {duration(job.eta_seconds)}"
        trouble = f" ({'; '.join(troubles)})" if troubles else ""
        _log_line(f"{job.done}/{job.total} done, {job.failed} failed, {speed}, {eta}{trouble}")

    def stop(self) -> None:
        """Do nothing: there is no bar to remove."""


class _Bar(_Plain):
    """A progress bar, for a person."""

    def __init__(self, coordinator: Coordinator, header: JobHeader) -> None:
        super().__init__(coordinator, header)
        from obcd.cli.bars import JobBar  # noqa: PLC0415 - rich is for terminals only

        self._pause = REDRAW_SECONDS
        self._bar = JobBar(header.name, header.requests)
        self._bar.start()

    def _show(self, job: JobView, troubles: Sequence[str]) -> None:
        self._bar.show(job, troubles[0] if troubles else "")

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def _conclude(folder: Path, output: Path, *, files: bool, quiet: bool = False) -> int:
    manifest = disk.read_json(folder / "manifest.json")
    counts, times = manifest["counts"], manifest["times"]
    if files:
        written = write_response_files(folder, output)
        say(f"{plural(written, 'response file')} in {shown_path(output.absolute())}/")
    if not quiet:
        cut = f", {counts['cut_short']} cut short by num_predict" if counts["cut_short"] else ""
        empty = f", {counts['empty']} with an empty answer" if counts["empty"] else ""
        answered = f"{plural(counts['responses'], 'prompt')} answered{cut}{empty}"
        say(f"{answered}, {counts['failures']} failed: {shown_path(folder)}/")
        if times["speedup"]:
            say(
                f"{times['work_seconds']:.1f} s of server work in {times['span_seconds']:.1f} s "
                f"= {times['speedup']:.1f} ×"
            )
    if counts["failures"]:
        errors, retry = shown_path(folder / "errors.jsonl"), shown_path(folder / "retry.jsonl")
        say(f"see {errors} for the reasons; to try again, use {retry}")
        return ExitCode.PARTIAL
    return ExitCode.DONE
