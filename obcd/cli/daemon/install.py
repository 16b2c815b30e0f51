"""`obcd install` and `obcd uninstall`: add obcd to systemd, and remove it."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import click

from obcd.cli.common import Command, say
from obcd.errors import ExitCode, UsageError
from obcd.install import advice, service
from obcd.install.apply import (
    InstallStep,
    InstallVerb,
    Record,
    alone,
    apply,
    decide,
    decide_removal,
    give_to_groups,
    read_record,
    remove,
)
from obcd.install.found import OLDEST_SYSTEMD, code_time, look, own_leftovers, systemd_version, unreadable_reason
from obcd.install.plan import CONFIGURATION, Folder, InstallPlan, Item, make_plan

SYSTEM = Path("/")
NOTHING_DONE = "Nothing was changed: this was --dry-run."


INSTALL_EPILOG = """\b
Examples:
  obcd install --dry-run          show what would happen, change nothing
  sudo /opt/obcd/bin/obcd install
  obcd install --root ./staged    the files for another machine or a package

\b
It can be repeated at any time; run it after every upgrade of obcd. A file that you changed is kept,
and the new one is put beside it as NAME.new; --force installs the new one and keeps yours as NAME.old.
"""

UNINSTALL_EPILOG = """\b
Examples:
  obcd uninstall --dry-run        show what would be removed and what stays
  sudo obcd uninstall

\b
Prompts, answers, models and a configuration that you changed stay; their places are printed.
"""


def root_option(text: str) -> Callable[[Command], Command]:
    """Add `--root`."""
    return click.option(
        "--root", metavar="DIR", type=click.Path(path_type=Path), default=SYSTEM, help=f"{text}  [default: /]"
    )


dry_option = click.option("--dry-run", is_flag=True, help="print what would be done, and change nothing")


@click.command(epilog=INSTALL_EPILOG)
@root_option("put everything under DIR")
@dry_option
@click.option("--force", is_flag=True, help="also replace files that you changed; yours are kept as NAME.old")
def install(root: Path, dry_run: bool, force: bool) -> int:
    """install units, folders and configuration for systemd.

    It starts and stops no service, and asks no questions.
    """
    root = root.resolve()
    is_here = root == SYSTEM
    if is_here:
        _check_system(is_writing=not dry_run)
    elif reason := unreadable_reason():
        say(f"note: the units name this Python, and {reason}")
    machine = look(root)
    plan, commands = make_plan(machine), service.after_install() if is_here else []
    with contextlib.nullcontext() if dry_run else alone(root):
        record = read_record(root)
        steps = decide(plan, root, record, force=force)
        _show(steps, commands)
        if not dry_run:
            _apply(plan, steps, root, record, commands)
    changed = {step.path: step.verb for step in steps if isinstance(step.item, Item)}
    stock = advice.about_stock(machine.stock) if machine.stock else []
    outdated = service.outdated(code_time()) if is_here else []
    for line in [*stock, *advice.next_steps(machine, changed, is_here=is_here, outdated=outdated)]:
        click.echo(line)
    if dry_run:
        click.echo(NOTHING_DONE)
    return ExitCode.DONE


def _apply(
    plan: InstallPlan, steps: list[InstallStep], root: Path, record: Record, commands: list[service.Command]
) -> None:
    if root != SYSTEM:
        apply(plan, steps, root, record)
        return
    # systemd-tmpfiles makes the folders with their owners; a symbolic link inside one of them cannot mislead it.
    own = [step for step in steps if not isinstance(step.item, Folder)]
    apply(plan, own, root, record)
    for command in commands:
        service.run(command)
    give_to_groups(plan, steps, root)


@click.command(epilog=UNINSTALL_EPILOG)
@root_option("remove what was installed under DIR")
@dry_option
def uninstall(root: Path, dry_run: bool) -> int:
    """stop obcd and remove it; data and your changes stay."""
    root = root.resolve()
    is_here = root == SYSTEM
    if is_here and not dry_run and os.geteuid() != 0:
        raise UsageError("only root can uninstall: sudo obcd uninstall (or look with --dry-run)")
    record = read_record(root)
    if not record:
        click.echo("Nothing is installed here.")
        return ExitCode.DONE
    steps = decide_removal(root, record)
    has_systemd = is_here and systemd_version() is not None
    before = service.before_removal(root, record) if has_systemd else []
    after = service.after_removal(steps) if has_systemd else []
    for command in before:
        click.echo(f"run        {shlex.join(command)}")
    _show(steps, after)
    if not dry_run:
        for command in before:
            service.run(command)
        remove(steps, root)
        for command in after:
            service.run(command)
    is_configuration_kept = any(step.path == CONFIGURATION and step.verb is InstallVerb.KEPT for step in steps)
    own = own_leftovers(root, [step.path for step in steps])
    for line in advice.what_is_left(is_configuration_kept=is_configuration_kept, own=own):
        click.echo(line)
    if dry_run:
        click.echo(NOTHING_DONE)
    return ExitCode.DONE


def _check_system(*, is_writing: bool) -> None:
    """Refuse a system on which obcd cannot run as a service.

    Raises:
        UsageError: With what to do instead.
    """
    if is_writing and os.geteuid() != 0:
        raise UsageError("only root can install: sudo obcd install, or --root DIR for another folder, or --dry-run")
    version = systemd_version()
    if version is None or version < OLDEST_SYSTEMD:
        raise UsageError(advice.no_systemd(version))
    if reason := unreadable_reason():
        raise UsageError(advice.unreadable_python(reason))


def _show(steps: list[InstallStep], commands: list[service.Command]) -> None:
    """List what happens, a path a line, e.g. `new        /etc/obcd/obcd.toml`."""
    for step in steps:
        click.echo(f"{step.verb:<10} {step.path}" + (f"   ({step.why})" if step.why else ""))
    for command in commands:
        click.echo(f"run        {shlex.join(command)}")
