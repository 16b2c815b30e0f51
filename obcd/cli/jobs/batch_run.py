"""The work of `obcd batch`: files in the foreground, without a daemon, as ollama-batch-process.py did."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.cli.common import check_profile, is_terminal, one_delimiter, read_local_settings, say, shown_path
from obcd.client.watching.progress_pipe import ProgressWriter
from obcd.clock import monotonic
from obcd.config.endpoints import Endpoint, misplaced_path
from obcd.config.settings import Settings
from obcd.config.tokens import with_tokens
from obcd.coordinator.batch import BatchOrder, BatchPlan, forget_kept, is_stdin, plan_batch
from obcd.coordinator.daemon import run
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.observer import Observer
from obcd.coordinator.view import JobView
from obcd.core.endpoint.faults import Fault
from obcd.core.request.keys.ignored_keys import describe_ignored
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The options of the command line; None for one that is not given."""

    config: str | None
    prompts: tuple[Path, ...]
    output: Path
    profile: str
    model: str | None
    limit: int
    delimiter: str | None
    files: bool
    again: bool
    verbose: bool


def answer(options: BatchOptions) -> int:
    """Answer the files, and return the exit code."""
    set_up_logging(logging.ERROR)  # messages for people are printed here
    settings = with_tokens(read_local_settings(options.config))
    check_profile(settings, options.profile)
    if options.model:
        settings = settings.with_model(options.model)
    if options.delimiter is not None:
        settings = settings.with_delimiter(one_delimiter(options.delimiter))
    plan = plan_batch(settings, _order(options))
    for reason in plan.refused:
        say(f"obcd: {reason}")
    for path in plan.left:
        say(
            f"content of an earlier pipe is not answered yet: obcd batch {shown_path(path)} continues it (or delete it)"
        )
    for job in plan.jobs:
        if job.published is not None:
            where = shown_path(job.published)
            say(f"{job.label} has been answered already, in {where}/ (--again sends it again)")
    headers = {job.header.id: job.header for job in plan.jobs if job.header is not None}
    folders = _run_all(settings, plan, headers, verbose=options.verbose) if headers else {}
    codes = [ExitCode.INPUT] if plan.refused else []
    for job in plan.jobs:
        folder = job.published if job.header is None else folders.get(job.header.id)
        if folder is not None:
            codes.append(_conclude(folder, options.output, files=options.files, quiet=job.header is None))
    forget_kept(plan, headers.keys() - folders.keys())
    if len(folders) < len(headers):
        _say_interrupted(plan, folders)
        return ExitCode.INTERRUPTED
    return max(codes)


def _order(options: BatchOptions) -> BatchOrder:
    stdin = None
    if any(map(is_stdin, options.prompts)) and sys.stdin is not None:
        if sys.stdin.isatty():
            say("type the prompts here, one JSON object on each line; Ctrl-D ends them")
        stdin = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    return BatchOrder(
        options.prompts, options.output, options.profile, stdin=stdin, limit=options.limit, again=options.again
    )


def _say_interrupted(plan: BatchPlan, folders: Mapping[str, Path]) -> None:
    """Print how to continue; what came through a pipe need not come again."""
    say("interrupted; run the same command to continue")
    for job in plan.jobs:
        if job.kept is not None and job.header is not None and job.header.id not in folders:
            say(
                f"{job.label} was read completely: obcd batch {shown_path(job.kept)} with the same options continues it"
            )


def _run_all(
    settings: Settings, plan: BatchPlan, headers: Mapping[str, JobHeader], *, verbose: bool
) -> dict[str, Path]:
    """Run all jobs, and return the published folders by job; some are missing if it was interrupted."""
    mount = read_mount(plan.layout.root)
    if mount is not None and mount.is_network:
        say(f"warning: {doubt_root(plan.layout.root, mount)}")
    probes = _check_endpoints(settings, list(headers.values()))
    _say_start(plan, settings, probes)
    return _run(settings, plan, headers, verbose=verbose)


def _check_endpoints(settings: Settings, headers: Sequence[JobHeader]) -> dict[str, Probe]:
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
    if not reached and settings.cluster.hosts is not None:
        say(f"no endpoint can be reached yet: the hosts that register in {settings.cluster.hosts} are waited for")
        return probes
    if not reached:
        reasons = "; ".join(f"{name}: {found.failure}" for name, found in probes.items())
        is_misplaced = any(misplaced_path(item.url) for item in endpoints)
        advice = "correct [ollama_instances]" if is_misplaced else "start Ollama, or correct [ollama_instances]"
        raise NoEndpointError(f"no endpoint can be reached ({reasons}): {advice}")
    wanted = {
        model
        for header in headers
        for model in ({item.model for item in header.signatures} or {canonical_model(header.settings.model)})
    }
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
    if not endpoints:
        return "the hosts that register"
    slots = [item.slots for item in endpoints]
    known = [count for count in slots if count is not None]
    return plural(sum(known), "slot") if len(known) == len(slots) else plural(len(slots), "endpoint")


def _say_start(plan: BatchPlan, settings: Settings, probes: dict[str, Probe]) -> None:
    reached = [item for item in settings.endpoints() if probes[item.name].failure is None]
    for job in plan.jobs:
        if job.header is None:
            continue
        header = job.header
        if job.resumed:
            say(f"continuing {header.name}")
        else:
            bad = f" ({plural(header.bad_lines, 'bad line')} will be in errors.jsonl)" if header.bad_lines else ""
            say(f"{header.name}: {plural(header.requests, 'prompt')}{bad} over {_room(reached)}")
            if header.context is not None:
                say(header.context.describe())
            for sentence in describe_ignored(header.unobeyed):
                say(sentence)
        if job.settings_differ:
            say("the configuration has changed since the job started; the job keeps the settings it started with")
    labels = sorted({found.version for found in probes.values() if "obcd" in found.version})
    if labels:
        say(f"stand-in servers answer ({', '.join(labels)})")


class _Watcher(Observer):
    """Records where the jobs were published, and with --verbose prints a line per answer."""

    def __init__(self, jobs: Container[str], gpus: dict[str, int], *, verbose: bool, names_files: bool) -> None:
        self._jobs = jobs
        self._gpus = gpus
        self._verbose = verbose
        self._names_files = names_files
        self.folders: dict[str, Path] = {}

    def _place(self, job: JobHeader, line: int) -> str:
        return f"File: {job.name}, Line: {line}" if self._names_files else f"Line: {line}"

    def on_answer(self, job: JobHeader, lease: Lease, answer: Answered) -> None:
        """Print the seed's line, with the line number in front."""
        if self._verbose:
            seconds = answer.counts.seconds
            rate = answer.words / seconds if seconds > 0 else 0.0
            _log_line(
                f"{self._place(job, answer.line)}, Host: {lease.endpoint}, GPU: {self._gpus.get(lease.endpoint, 0)}, "
                f"Words: {answer.words}, Duration: {seconds:.2f}s, WPS: {rate:.2f}"
            )

    def on_failure(self, job: JobHeader, lease: Lease | None, line: int, fault: Fault) -> None:
        """Print a failure at once."""
        where = f" on {lease.endpoint}" if lease is not None else ""
        _log_line(f"{self._place(job, line)}{where} failed: {fault.message}")

    def on_published(self, job: str, folder: Path) -> None:
        """Record the folder."""
        if job in self._jobs:
            self.folders[job] = folder


def _log_line(text: str) -> None:
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}, {text}")


def _run(settings: Settings, plan: BatchPlan, headers: Mapping[str, JobHeader], *, verbose: bool) -> dict[str, Path]:
    gpus = {item.name: item.gpu for item in settings.endpoints()}
    watcher = _Watcher(headers.keys(), gpus, verbose=verbose, names_files=len(headers) > 1)
    only = frozenset(headers)
    coordinator = Coordinator(settings, plan.layout, watcher, takes_drops=False, only=only, lock=plan.lock)
    writer = ProgressWriter.find(os.environ)
    if writer is not None:
        show: _Plain = _Piped(coordinator, headers, watcher.folders, writer)
    else:
        show = (_Bar if is_terminal() and not verbose else _Plain)(coordinator, headers, watcher.folders)

    def is_over(now: float) -> bool:
        show.tick(now)
        return all(job in watcher.folders or coordinator.is_damaged(job) for job in headers)

    try:
        run(coordinator, is_over)
    finally:
        show.stop()
    damaged = [job for job in headers if coordinator.is_damaged(job)]
    if damaged:
        raise InputError(
            f"{plan.layout.jobs / damaged[0]} is damaged: delete it (its responses are lost), then run this again"
        )
    return watcher.folders


class _Plain:
    """A line every few seconds, for logs; the figures of all files together."""

    def __init__(self, coordinator: Coordinator, headers: Mapping[str, JobHeader], folders: Container[str]) -> None:
        self._coordinator = coordinator
        self._headers = headers
        self._published = folders
        self._pause = PLAIN_SECONDS
        self._shown_at = monotonic()

    def tick(self, now: float) -> None:
        """Show the state if it is due."""
        if now - self._shown_at < self._pause:
            return
        self._shown_at = now
        view = self._coordinator.view(now)
        jobs = [job for job in map(view.find_job, self._headers) if job is not None]
        if jobs:
            self._show(self._sum(jobs), view.troubles or view.notes)

    def _sum(self, jobs: Sequence[JobView]) -> JobView:
        """Return the figures of all jobs as those of one; a published job is done."""
        if len(self._headers) == 1:
            return jobs[0]
        done = sum(header.requests for job, header in self._headers.items() if job in self._published)
        times = [job.eta_seconds for job in jobs if job.done < job.total]
        return replace(
            jobs[0],
            total=sum(header.requests for header in self._headers.values()),
            done=done + sum(job.done for job in jobs),
            failed=sum(job.failed for job in jobs),
            tokens_per_second=sum(job.tokens_per_second for job in jobs),
            eta_seconds=None if None in times else max((time for time in times if time is not None), default=None),
        )

    def _show(self, job: JobView, troubles: Sequence[str]) -> None:
        speed, eta = f"{job.tokens_per_second:.0f} tokens/s", f"ETA {duration(job.eta_seconds)}"
        trouble = f" ({'; '.join(troubles)})" if troubles else ""
        _log_line(f"{job.done}/{job.total} done, {job.failed} failed, {speed}, {eta}{trouble}")

    def stop(self) -> None:
        """Do nothing: there is no bar to remove."""


class _Piped(_Plain):
    """States for the program that started this one."""

    def __init__(
        self,
        coordinator: Coordinator,
        headers: Mapping[str, JobHeader],
        folders: Container[str],
        writer: ProgressWriter,
    ) -> None:
        super().__init__(coordinator, headers, folders)
        self._pause, self._writer = REDRAW_SECONDS, writer

    def _show(self, job: JobView, troubles: Sequence[str]) -> None:
        self._writer.write(replace(job, trouble=job.trouble or (troubles[0] if troubles else "")))


class _Bar(_Plain):
    """A progress bar, for a person."""

    def __init__(self, coordinator: Coordinator, headers: Mapping[str, JobHeader], folders: Container[str]) -> None:
        super().__init__(coordinator, headers, folders)
        from obcd.client.watching.bars import JobBar  # noqa: PLC0415 - rich is for terminals only

        self._pause = REDRAW_SECONDS
        names = [header.name for header in headers.values()]
        total = sum(header.requests for header in headers.values())
        self._bar = JobBar(names[0] if len(names) == 1 else plural(len(names), "file"), total)
        self._bar.start()

    def _show(self, job: JobView, troubles: Sequence[str]) -> None:
        self._bar.show(job, troubles[0] if troubles else "")

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def _conclude(folder: Path, output: Path, *, files: bool, quiet: bool) -> ExitCode:
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
        if (cached := manifest["tokens"].get("prompt_cached")) is not None:
            say(f"{manifest['tokens']['prompt_evaluated']} prompt tokens evaluated, {cached} from the server's cache")
    if counts["failures"]:
        errors, retry = shown_path(folder / "errors.jsonl"), shown_path(folder / "retry.jsonl")
        say(f"see {errors} for the reasons; to try again, use {retry}")
        return ExitCode.PARTIAL
    return ExitCode.DONE
