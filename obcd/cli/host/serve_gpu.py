"""`obcd serve-gpu`: one Ollama, pinned to one GPU. supervisor runs it for each card; people run it to try one.

With `--plan` it reads no configuration: a server must start quickly and follow the plan. Therefore pydantic, and
every module that needs it, is imported only without `--plan`.
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
  obcd serve-gpu GPU-1a2b3c4d-… --port 0 --bind 10.0.0.11   prints the URL, then serves

\b
If all is well it does not return: the process becomes `ollama serve`. Exit codes: 2 the plan has no such GPU,
4 the configuration cannot be followed (no ollama on PATH, bind, models), 5 the plan cannot be read,
6 the card is missing or the driver fails, 7 another process holds the port or the card.
"""


@click.command("serve-gpu", epilog=EPILOG)
@click.argument("gpu", metavar="N")
@click.option(
    "--dry-run",
    is_flag=True,
    help="print the command as a line for a shell and change nothing; follows the running obcd host, if any",
)
@click.option("--plan", "plan_file", metavar="FILE", help="the plan.json that obcd host wrote  [default: make a plan]")
@click.option("--parent", type=int, hidden=True, help="the process id of the supervisord that starts it")
@click.option("--port", "ports", metavar="PORTS", help="a free port: 0 for any, or a range; the URL is printed")
@click.option("--bind", metavar="ADDRESS", help="address on which it listens  [default: [host] bind]")
@click.option("--config", metavar="FILE", help="configuration file  [default: as for obcd check]")
def serve_gpu(
    gpu: str, dry_run: bool, plan_file: str | None, parent: int | None, ports: str | None, bind: str | None,
    config: str | None,
) -> None:  # fmt: skip
    """run the Ollama server of GPU N.

    N is nvidia-smi's index; the server is pinned to that card. The command ends processes that an earlier server of the
    GPU left behind, waits while a model is being pulled on this host, and checks that the card exists, that no other
    server of obcd holds it, and that the port is free. Then the process becomes `ollama serve`.
    """
    if plan_file is not None and (ports is not None or bind is not None):
        raise click.UsageError("--port and --bind do not go with --plan, which names both")
    parent = parent or os.getppid()  # as early as possible: the parent may end while this process waits
    set_up_logging()
    plan, runtime = _read(plan_file) if plan_file is not None else _make(config, ports, bind, is_dry=dry_run)
    server = plan.find(gpu)
    if server is None:
        names = ", ".join(item.label for item in plan.servers)
        raise UsageError(
            f"GPU {gpu} has no server here: by {'what obcd host decided' if plan_file else '[host] gpus'} "
            f"there {'are servers of GPUs' if len(plan.servers) > 1 else 'is a server of GPU'} {names}"
        )
    wanted = Launch(plan=plan, server=server, runtime=runtime, supervisor=parent if plan_file is not None else None)
    if not dry_run:
        launch(wanted, (lambda: None) if ports is None else (lambda: click.echo(plan.url(server))))
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


def _make(config: str | None, ports: str | None, bind: str | None, *, is_dry: bool) -> tuple[HostPlan, Path]:
    """Return the plan of `[host]`; with --dry-run that of the running host, if any, including its HOME."""
    from obcd.cli.common import read_settings  # noqa: PLC0415 - see the top
    from obcd.host.servers.binding import parse_ports  # noqa: PLC0415
    from obcd.host.servers.planning import make_plan  # noqa: PLC0415

    runtime = folder_that_runs()
    if is_dry and not any((config, ports, bind)) and is_host_alive(runtime):
        return plans.read_plan(runtime), runtime
    wanted = None if ports is None else parse_ports(ports)
    return make_plan(read_settings(config), ports=wanted, bind=bind), runtime
