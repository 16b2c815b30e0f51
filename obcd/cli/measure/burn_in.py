"""`obcd burn-in`: keep all cards at full load for a time, and find the one that differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from obcd.benchmark.bench_prompts import in_turn, plain_settings, steady_prompts, without_chance
from obcd.benchmark.burn_in import BurnIn, BurnInFigures, figures, report, slots_of
from obcd.benchmark.burn_in_verdict import Oddity, find_oddities, find_usual
from obcd.benchmark.load_generator import LoadWork
from obcd.benchmark.outliers import FEWEST
from obcd.cli.common import config_option, say
from obcd.cli.measure.load_options import (
    allow_connections,
    choose_endpoints,
    load_prompts,
    reach,
    read_cluster,
    with_limits,
)
from obcd.cli.tables import print_rows
from obcd.clock import wall
from obcd.core.request.records import JobSettings, Request
from obcd.core_dumps import forbid_core_dumps
from obcd.errors import ExitCode, UsageError
from obcd.text import duration, plural

#: Longest answer, in tokens, and limit of one request, in seconds, with obcd's own prompts.
NUM_PREDICT, REQUEST_SECONDS = 192, 120.0
HEADINGS = (
    "endpoint", ">answers", ">failed", ">tokens/s", ">late/early", ">differ", ">unsteady", "",
)  # fmt: skip
#: {number of endpoints: what cannot be found with so few}
TOO_FEW = {
    1: "one endpoint can only be compared with itself, by its errors and its speed over time: three are needed to find "
    "wrong answers or a slow card",
    2: "two endpoints can differ, but three are needed to find which one is right, and which one is slow or fast",
}

EPILOG = """\b
Examples:
  obcd burn-in --minutes 30                        all endpoints of the configuration
  obcd burn-in --minutes 5 gpu1:11432 gpu1:11433 gpu1:11434 gpu1:11435
  obcd burn-in --seconds 90 --json | jq '.odd'

\b
The same prompts at temperature 0 with one seed go to every endpoint, again and again, with all
its slots busy. The columns: late/early, the speed of the last third over that of the first;
differ, the share of answers that differ from the usual answer of most endpoints; unsteady, the
share of answers that differ from the usual answer of the same endpoint.

\b
A single answer does not count. Requests that run side by side change the order of the sums in a
card, and sometimes a word, also in healthy cards. An endpoint is odd if its rate is far above
those of the others. Unsteady answers point to memory or a dying card; answers that always
differ in the same way point to other weights, another kind of card or another driver.

\b
Exit codes: 0 all alike, 3 some are odd (named last), 6 no endpoint, 130 Ctrl-C.
"""


@click.command(name="burn-in", epilog=EPILOG)
@click.argument("names", metavar="[ENDPOINT]...", nargs=-1)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="duration in minutes")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="duration in seconds")
@click.option("--model", metavar="NAME", help="the model  [default: the configuration's]")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="prompts to send, one after the other  [default: obcd's own]",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="requests in flight at each endpoint  [default: as configured, else 16]",
)
@click.option(
    "--num-predict",
    type=click.IntRange(1),
    metavar="N",
    help="longest answer  [default: 192; with --prompts as configured]",
)
@click.option("--num-ctx", type=click.IntRange(16), metavar="N", help="context  [default: the configuration's]")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON, for machines")
@config_option
def burn_in(  # noqa: PLR0913, PLR0917 - one parameter an option, by click's design
    names: tuple[str, ...], minutes: float | None, seconds: float | None, model: str | None, prompts: Path | None,
    slots: int | None, num_predict: int | None, num_ctx: int | None, as_json: bool, config: str | None,
) -> int:  # fmt: skip
    """load all cards fully and find the one that differs.

    ENDPOINT is host:port or a URL; without one, all endpoints of the configuration are loaded.
    """
    forbid_core_dumps()
    if (minutes is None) == (seconds is None):
        how = "one of them, not both" if minutes is not None else "--minutes M or --seconds S"
        raise UsageError(f"give the duration: {how}")
    wanted = seconds if seconds is not None else 60 * (minutes or 0.0)
    settings = read_cluster(config, model)
    asked, requests = _choose_work(settings.job_settings(), prompts, num_ctx, num_predict)
    targets, left_out = reach(settings, choose_endpoints(settings, names), asked.model)
    endpoints = [replace(target.endpoint, slots=slots or target.endpoint.slots) for target in targets]
    allow_connections(sum(map(slots_of, endpoints)))
    run, began = BurnIn(endpoints, LoadWork(asked, in_turn(requests)), len(requests), wanted), wall()
    is_whole = _burn(run, wanted)
    oddities = find_oddities(run.tallies, {target.endpoint.name: target.digest for target in targets})
    if as_json:
        versions = {target.endpoint.name: target.version for target in targets}
        click.echo(json.dumps(report(run, oddities, left_out, asked, versions, began)))
    else:
        _show(run, oddities)
    if not is_whole:
        say(f"interrupted after {duration(run.seconds)}: these are the results so far")
        return ExitCode.INTERRUPTED
    return ExitCode.PARTIAL if oddities or left_out else ExitCode.DONE


def _choose_work(
    asked: JobSettings, prompts: Path | None, num_ctx: int | None, num_predict: int | None
) -> tuple[JobSettings, list[Request]]:
    if prompts is None:
        limit = min(asked.request_timeout_seconds, REQUEST_SECONDS)
        plain = with_limits(plain_settings(asked), num_ctx, num_predict or NUM_PREDICT)
        return replace(plain, request_timeout_seconds=limit), steady_prompts()
    asked = with_limits(asked, num_ctx, num_predict)
    return asked, [without_chance(request) for request in load_prompts(prompts, asked)]


def _burn(run: BurnIn, seconds: float) -> bool:
    """Send requests; return whether the run is complete."""
    say(f"{plural(len(run.tallies), 'endpoint')} at full load for {duration(seconds)}; Ctrl-C shows the results so far")
    try:
        run.run(lambda left: _report_progress(run, left))
    except KeyboardInterrupt:
        return False
    return True


def _report_progress(run: BurnIn, left: float) -> None:
    answered = sum(tally.answered for tally in run.tallies.values())
    failed = sum(tally.failed for tally in run.tallies.values())
    say(f"{duration(left)} left, {plural(answered, 'answer')}, {failed} failed")


def _show(run: BurnIn, oddities: Sequence[Oddity]) -> None:
    usual, odd = find_usual(run.tallies), {oddity.endpoint for oddity in oddities}
    few = TOO_FEW.get(len(run.tallies))
    rows = [
        _row(name, figures(tally, usual), has_majority=few is None, mark="odd" if name in odd else "")
        for name, tally in run.tallies.items()
    ]
    print_rows(HEADINGS, rows)
    for oddity in oddities:
        click.echo(f"{oddity.endpoint}: {oddity.evidence}: {oddity.sentence}")
    if len(run.tallies) >= FEWEST and len(usual) < len(
        asked := set().union(*(t.answers for t in run.tallies.values()))
    ):
        click.echo(f"a majority answered {len(usual)} of {plural(len(asked), 'prompt')} alike: only these are compared")
    if few is not None:
        click.echo(few)
    elif not oddities:
        click.echo("all alike")


def _row(name: str, row: BurnInFigures, *, has_majority: bool, mark: str) -> tuple[str, ...]:
    return (
        name,
        str(row["answered"]),
        str(row["failed"]),
        f"{row['tokens_per_second']:.1f}",
        _share(row["late_share"]),
        _share(row["differing_rate"] if has_majority else None),
        _share(row["unsteady_rate"]),
        mark,
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
