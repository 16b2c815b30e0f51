"""`obcd serve-gpu`: one Ollama, pinned to one GPU; what supervisor runs for each card, and people to try one.

With `--plan` it reads no configuration: a server is to start quickly, and as what it was planned. So pydantic and all
that needs it are imported on the other way alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from obcd.errors import UsageError
from obcd.host.servers import plan as plans
from obcd.host.servers.launcher import Launch, findings, launch, shell_line
from obcd.host.servers.locks import is_host_alive
from obcd.host.servers.plan import HostPlan
from obcd.host.servers.runtime import folder_that_runs
from obcd.logs.setup import set_up_logging

EPILOG = """\b
Examples:
  obcd serve-gpu 0
  obcd serve-gpu 2 --dry-run
  obcd serve-gpu 2.1                 a MIG instance
  obcd serve-gpu cpu                 with [host] gpus = 0

\b
Never returns when all is well: it becomes `ollama serve`. Exit code 2 when the plan has no such GPU,
4 when the configuration cannot be followed (no ollama on PATH, bind, models), 5 when the plan cannot be read,
6 when the card is not there or the driver is sick, 7 when another process holds the port.
"""


@click.command("serve-gpu", epilog=EPILOG)
@click.argument("gpu", metavar="N")
@click.option(
    "--dry-run",
    is_flag=True,
    help="print the command as a line for a shell, change nothing; of the obcd host that runs, if one does",
)
@click.option(
    "--plan", "plan_file", metavar="FILE", help="the plan.json that obcd host wrote  [default: none, make one]"
)
@click.option("--parent", type=int, hidden=True, help="the process id of the supervisord that starts it")
@click.option("--config", metavar="FILE", help="configuration file  [default: as for obcd check]")
def serve_gpu(gpu: str, dry_run: bool, plan_file: str | None, parent: int | None, config: str | None) -> None:
    """become the Ollama server of GPU N.

    N is nvidia-smi's index; the server is pinned to that card. Ends what an earlier server of the GPU left behind,
    waits while a model is being pulled on this host, and checks that the card is there and the port free.
    """
    parent = parent or os.getppid()  # as early as can be: it may end while we wait
    set_up_logging()
    plan, runtime = _read(plan_file) if plan_file is not None else _make(config, is_dry=dry_run)
    server = plan.find(gpu)
    if server is None:
        names = ", ".join(item.label for item in plan.servers)
        raise UsageError(
            f"GPU {gpu} has no server here: by {'what obcd host decided' if plan_file else '[host] gpus'} "
            f"there {'are servers of GPUs' if len(plan.servers) > 1 else 'is a server of GPU'} {names}"
        )
    wanted = Launch(plan=plan, server=server, runtime=runtime, supervisor=parent if plan_file is not None else None)
    if not dry_run:
        launch(wanted)
        return
    for sentence in findings(wanted):
        click.echo(f"obcd: {sentence}", err=True)
    click.echo(shell_line(wanted, os.environ))


def _read(plan_file: str) -> tuple[HostPlan, Path]:
    path = Path(plan_file).absolute()
    runtime = path if path.is_dir() else path.parent
    if path not in (runtime, runtime / plans.FILE_NAME):
        raise UsageError(f"--plan names the {plans.FILE_NAME} that obcd host wrote, not {plan_file}")
    return plans.read_plan(runtime), runtime


def _make(config: str | None, *, is_dry: bool) -> tuple[HostPlan, Path]:
    """Return what `[host]` asks for; to look only, what the host that runs has decided, HOME and all."""
    from obcd.cli.common import read_settings  # noqa: PLC0415 - see the top
    from obcd.host.servers.planning import make_plan  # noqa: PLC0415

    runtime = folder_that_runs()
    if is_dry and config is None and is_host_alive(runtime):
        return plans.read_plan(runtime), runtime
    return make_plan(read_settings(config)), runtime
