"""`obcd bench`: measure the best number of requests in flight for each endpoint, and find endpoints out of line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from obcd.benchmark.bench_prompts import in_turn, long_prompts, plain_settings
from obcd.benchmark.knee import Advice, Limit
from obcd.benchmark.load_generator import LoadWork
from obcd.benchmark.outliers import FEWEST
from obcd.benchmark.plot import draw_curves
from obcd.benchmark.ramp import Ramp, RampPlan, configuration_line, find_odd, ramp_all, report, speedup
from obcd.benchmark.samples import LoadStep
from obcd.cli.common import config_option, say, shown_path
from obcd.cli.measure.load_options import (
    LoadTarget,
    allow_connections,
    choose_endpoints,
    load_prompts,
    reach,
    read_cluster,
    with_limits,
)
from obcd.cli.tables import print_rows
from obcd.clock import wall
from obcd.core.request.records import JobSettings
from obcd.core_dumps import forbid_core_dumps
from obcd.errors import ExitCode, InputError, UsageError
from obcd.text import plural
from obcd.text_files import output_file

#: Longest answer to obcd's own prompts, in tokens.
NUM_PREDICT = 128
#: {limit of an endpoint: remedy}
REMEDIES = {
    Limit.ONE_SLOT: "it works on one request at a time: set OLLAMA_NUM_PARALLEL={num_parallel} there and measure again",
    Limit.SLOTS: "it has {server_slots} slots and is fastest with all of them: with OLLAMA_NUM_PARALLEL={num_parallel} "
    "it may be faster: measure again",
    Limit.CARD: "more requests in flight bring little: OLLAMA_NUM_PARALLEL={num_parallel} is enough",
    Limit.OPEN: "it was fastest with the highest number that was tried: OLLAMA_NUM_PARALLEL={num_parallel} at least; "
    "try --max {double}",
}
HEADINGS = (
    "endpoint", ">in flight", ">requests/s", ">tokens/s", ">p50 s", ">p95 s", ">queue s", ">speed-up", ">failed", "",
)  # fmt: skip

EPILOG = """\b
Examples:
  obcd bench                                  all endpoints of the configuration
  obcd bench gpu1:11432 gpu1:11433 --max 64
  obcd bench --prompts notes.jsonl --seconds 60 --out measured
  obcd bench --json | jq '.endpoints[] | {endpoint, advice}'

\b
The columns: p50 and p95, the latency that the client sees; queue, the median wait for a slot
of the server; speed-up over one request in flight. The knee is the lowest number in flight
within 10 % of the best tokens/s. An endpoint's ramp ends after two steps that bring nothing
more (--all-steps measures all). If obcd host runs the servers, set OLLAMA_NUM_PARALLEL as
num_parallel in [host].

\b
Requests of a coordinator would be measured too: pause its jobs, or stop it, first.
Exit codes: 0 all was measured, 3 endpoints were left out, 6 no endpoint, 130 Ctrl-C (shows the
results so far).
"""


def _read_steps(_context: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read `1,2,4`."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= 1024 for word in words):
        raise click.BadParameter("write numbers from 1 to 1024 with commas, e.g. 1,2,4,8")
    return tuple(sorted({int(word) for word in words}))


@click.command(epilog=EPILOG)
@click.argument("names", metavar="[ENDPOINT]...", nargs=-1)
@click.option("--model", metavar="NAME", help="the model  [default: the configuration's]")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="prompts to send, one after the other  [default: obcd's own]",
)
@click.option("--slots", callback=_read_steps, metavar="N,N,...", help="requests in flight  [default: 1,2,4,8,16,32]")
@click.option(
    "--max",
    "most",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="1, 2, 4 … up to this many in flight  [default: 32]",
)
@click.option(
    "--requests", type=click.IntRange(1), default=16, show_default=True, help="fewest requests that count at each step"
)
@click.option("--seconds", type=click.FloatRange(0.1), help="shortest time of each step, instead of --requests")
@click.option("--all-steps", is_flag=True, help="measure all steps, also where more in flight brings nothing more")
@click.option(
    "--num-predict",
    type=click.IntRange(1),
    metavar="N",
    help="longest answer  [default: 128; with --prompts as configured]",
)
@click.option("--num-ctx", type=click.IntRange(16), metavar="N", help="context  [default: the configuration's]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="write the result as JSON and SVG to this folder",
)
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON, for machines")
@config_option
def bench(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    names: tuple[str, ...], model: str | None, prompts: Path | None, slots: tuple[int, ...] | None, most: int | None,
    requests: int, seconds: float | None, all_steps: bool, num_predict: int | None, num_ctx: int | None,
    out: Path | None, as_json: bool, config: str | None,
) -> int:  # fmt: skip
    """measure how many requests in flight are best.

    ENDPOINT is host:port or a URL; without one, all endpoints of the configuration are measured at once.
    """
    forbid_core_dumps()
    if slots is not None and most is not None:
        raise UsageError("--slots and --max exclude each other: one names the steps, the other how far they go")
    settings = read_cluster(config, model)
    work = _choose_work(settings.job_settings(), prompts, num_ctx, num_predict)
    folder = None if out is None else _make_folder(out)
    targets, left_out = reach(settings, choose_endpoints(settings, names), work.settings.model)
    plan = RampPlan(steps=slots or _doublings(most or 32), requests=requests, seconds=seconds, is_whole=all_steps)
    allow_connections(plan.steps[-1] * len(targets))
    ramps = [_ramp(target) for target in targets]
    began, is_whole = wall(), _measure(ramps, work, plan)
    document = report(ramps, left_out, work.settings, prompts.name if prompts else "", began)
    if as_json:
        click.echo(json.dumps(document))
    else:
        _show(ramps, plan)
    if folder is not None:
        _save(folder, document, ramps, work.settings)
    return _conclude(ramps, left_out, is_whole=is_whole)


def _choose_work(asked: JobSettings, prompts: Path | None, num_ctx: int | None, num_predict: int | None) -> LoadWork:
    if prompts is None:
        return LoadWork(with_limits(plain_settings(asked), num_ctx, num_predict or NUM_PREDICT), long_prompts())
    asked = with_limits(asked, num_ctx, num_predict)
    return LoadWork(asked, in_turn(load_prompts(prompts, asked)))


def _conclude(ramps: Sequence[Ramp], left_out: Mapping[str, str], *, is_whole: bool) -> int:
    if not is_whole:
        say("interrupted: these are the results so far")
        return ExitCode.INTERRUPTED
    if not any(ramp.steps for ramp in ramps):
        return ExitCode.NO_ENDPOINT
    return ExitCode.PARTIAL if left_out or any(ramp.failure for ramp in ramps) else ExitCode.DONE


def _doublings(most: int) -> tuple[int, ...]:
    return tuple(sorted({min(most, 1 << power) for power in range(most.bit_length() + 1)}))


def _ramp(target: LoadTarget) -> Ramp:
    return Ramp(target.endpoint, version=target.version, token_file=target.token_file)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None
    return folder


def _measure(ramps: Sequence[Ramp], work: LoadWork, plan: RampPlan) -> bool:
    """Measure; return whether the measurement is complete."""
    say(f"{plural(len(ramps), 'endpoint')}, {', '.join(map(str, plan.steps))} in flight; Ctrl-C shows results so far")
    try:
        ramp_all(ramps, work, plan, threading.Event(), _report_step)
    except KeyboardInterrupt:
        return False
    return True


def _report_step(ramp: Ramp) -> None:
    step = ramp.steps[-1]
    say(f"{ramp.endpoint.name}: {step.in_flight} in flight, {step.tokens_per_second:.1f} tokens/s")


def _show(ramps: Sequence[Ramp], plan: RampPlan) -> None:
    """Print the table and the conclusions from it."""
    print_rows(HEADINGS, [_row(ramp, step) for ramp in ramps for step in ramp.steps])
    odd = find_odd(ramps)
    for ramp in ramps:
        if ramp.failure:
            click.echo(f"{ramp.endpoint.name}: ended early: {ramp.failure}")
        if ramp.advice is not None:
            click.echo(f"{ramp.endpoint.name}: knee at {ramp.advice.knee} in flight; {_remedy(ramp.advice, plan)}")
        if ramp.endpoint.name in odd:
            share = odd[ramp.endpoint.name]
            click.echo(f"{ramp.endpoint.name}: out of line: {share:.0%} of the usual speed of these endpoints")
    measured = [(ramp, ramp.advice) for ramp in ramps if ramp.advice is not None]
    if not measured:
        click.echo("nothing was measured")
        return
    if len(measured) < FEWEST:
        click.echo(f"outliers cannot be found among {plural(len(measured), 'endpoint')}: that takes {FEWEST}")
    elif not odd:
        click.echo("no endpoint is out of line")
    click.echo("[ollama_instances]")
    for ramp, advice in measured:
        click.echo(configuration_line(ramp, advice))


def _remedy(advice: Advice, plan: RampPlan) -> str:
    return REMEDIES[advice.limit].format(
        num_parallel=advice.num_parallel, server_slots=advice.server_slots, double=2 * plan.steps[-1]
    )


def _row(ramp: Ramp, step: LoadStep) -> tuple[str, ...]:
    gain = speedup(ramp.steps, step)
    is_knee = ramp.advice is not None and ramp.advice.knee == step.in_flight
    return (
        ramp.endpoint.name,
        str(step.in_flight),
        f"{step.requests_per_second:.2f}",
        f"{step.tokens_per_second:.1f}",
        f"{step.p50_seconds:.2f}",
        f"{step.p95_seconds:.2f}",
        f"{step.wait_seconds:.2f}",
        "-" if gain is None else f"{gain:.2f}",
        str(step.failed),
        "knee" if is_knee else "",
    )


def _save(folder: Path, document: dict[str, object], ramps: Sequence[Ramp], asked: JobSettings) -> None:
    """Write the result and its chart to new files."""
    stem = time.strftime("bench-%Y%m%dT%H%M%S")
    kinds = sorted({ramp.version for ramp in ramps})
    label = "stand-in servers, not figures of a GPU; " if document["stand_ins"] else ""
    remark = f"{label}{asked.num_ctx} tokens of context, answers of {asked.num_predict} at most; {', '.join(kinds)}"
    picture = draw_curves(ramps, f"{asked.model}, {str(document['began'])[:16].replace('T', ' ')} UTC", remark)
    for suffix, content in ((".json", json.dumps(document, indent=2) + "\n"), (".svg", picture)):
        path = folder / (stem + suffix)
        with output_file(path, overwrite=False) as file:
            file.write(content.encode())
        say(f"written: {shown_path(path.absolute())}")
