"""`obcd metrics`: the coordinator's status as metrics of Prometheus, for node_exporter or for a look."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from obcd.cli.common import config_option, find_layout_anyway, is_running, read_status, root_option, say
from obcd.coordinator.view import View
from obcd.errors import ExitCode, InputError, ObcdError, UsageError
from obcd.metrics.textfile import SUFFIX, write_textfile

EPILOG = """\b
Examples:
  obcd metrics | promtool check metrics
  obcd metrics --textfile /var/lib/prometheus/node-exporter/obcd.prom
  obcd metrics --textfile /run/obcd-metrics/obcd.prom --every 15

\b
The unit obcd-metrics runs the last one. The metrics, alerts and a dashboard: obcd help monitoring
"""


@click.command(epilog=EPILOG)
@click.option(
    "--textfile",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write to this file, complete or not at all; its name must end in .prom  [default: standard output]",
)
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(min=1.0),
    help="write again every so many seconds, until SIGTERM or Ctrl-C; then remove the file  [default: once]",
)
@config_option
@root_option
def metrics(textfile: Path | None, every: float | None, config: str | None, root: str | None) -> int:
    """print metrics for Prometheus or node_exporter.

    They are those of the coordinator that runs here, in Prometheus's text format. Where no coordinator runs, `obcd_up`
    is 0 and there are no other metrics. No label names a job, a user or a prompt.
    """
    if every is not None and textfile is None:
        raise UsageError("--every needs --textfile FILE")
    if textfile is not None and textfile.suffix != SUFFIX:
        raise UsageError(f"--textfile {textfile} must end in {SUFFIX}: node_exporter ignores files of other names")
    exposition, find_view = _load_exposition(), partial(_find_view, config, root)
    if textfile is None:
        click.echo(exposition(find_view()), nl=False)
    elif every is None:
        _write(textfile, exposition(find_view()))
    else:
        _repeat(textfile, every, find_view, exposition)
    return ExitCode.DONE


def _load_exposition() -> Any:
    """Return `obcd.metrics.samples.exposition`.

    Raises:
        UsageError: If prometheus-client is not installed.
    """
    try:
        from obcd.metrics.samples import exposition  # noqa: PLC0415 - its library is an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise UsageError("metrics need prometheus-client, which is not installed: pip install 'obcd[web]'") from error
    return exposition


def _find_view(config: str | None, root: str | None) -> View | None:
    """Return the state of a coordinator; None if none runs.

    Raises:
        ConfigurationError: If none runs, and the configuration has a fault.
        InputError: If one runs, and its state cannot be read.
    """
    layout, fault = find_layout_anyway(config, root)
    if not is_running(layout):
        if fault is not None:
            raise fault
        return None
    try:
        return View.from_json(read_status(layout))
    except PermissionError:
        raise InputError(
            f"the status of {layout.root} cannot be read by this user: join the daemon's group "
            "(usermod -aG obcd NAME), or use sudo"
        ) from None
    except OSError:  # it has just ended
        return None
    except ValueError as error:
        raise InputError(
            f"the status of {layout.root} is from another version of obcd ({error}): restart the older of the two"
        ) from None


def _write(textfile: Path, content: bytes) -> None:
    try:
        write_textfile(textfile, content)
    except OSError as error:
        raise InputError(f"cannot write {textfile}: {error.strerror}") from None


def _repeat(textfile: Path, every: float, find_view: Callable[[], View | None], exposition: Any) -> None:
    """Write until a signal; then remove the file, because its values would look like present ones.

    A state that cannot be read counts as no coordinator, and a file that cannot be written is tried again; the reason
    is said once. The configuration is read each time: it may be repaired meanwhile.

    Raises:
        InputError: If the first write fails.
    """
    is_over, is_first, said = threading.Event(), True, ""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    while True:
        view, trouble = _look(find_view)
        try:
            _write(textfile, exposition(view))
        except InputError as error:
            if is_first:
                raise
            trouble = str(error)
        if trouble and trouble != said:
            say(trouble)
        said, is_first = trouble, False
        if is_over.wait(every):
            break
    with contextlib.suppress(OSError):
        textfile.unlink()


def _look(find_view: Callable[[], View | None]) -> tuple[View | None, str]:
    """Return the state of a coordinator, and why it cannot be read, "" if it can."""
    try:
        return find_view(), ""
    except ObcdError as error:
        return None, str(error)
