"""Become one server: end leftovers of an earlier one, check card and port, and turn into `ollama serve`.

    card free? ─► leftovers ended ─► card there? ─► no pull under way ─► models ─► port free ─► environment ─► execve

This is the work of `obcd serve-gpu`. Ollama replaces the process, which does not stay as its parent, so that
supervisor's signals reach Ollama itself. Each check fails with one message; supervisor decides when to try again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from obcd.errors import AlreadyRunningError, ConfigurationError, ObcdError
from obcd.host.cards.card import GpuError, Reason
from obcd.host.cards.gpus import discover
from obcd.host.servers.binding import is_free
from obcd.host.servers.card_locks import check_card_free, hold_card
from obcd.host.servers.leftovers import VARIABLE, end_leftovers, slot
from obcd.host.servers.locks import PULL_LOCK, take
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.servers.ports import holder
from obcd.host.servers.runtime import UNIT
from obcd.parent_death import VARIABLE as TIE
from obcd.parent_death import tie_to_parent

logger = logging.getLogger(__name__)

#: Seconds between two attempts to share the lock of a pull; a signal ends the wait at once.
PULL_POLL_SECONDS = 0.5
#: Seconds to wait for a port: the kernel closes a killed server's sockets a moment after its end.
PORT_SECONDS = 2.0

#: Not passed on: variables that Ollama, its runners and its GPU libraries read besides the plan …
FOREIGN_NAMES = frozenset({
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "NOTIFY_SOCKET",  # … those that systemd set for another process: Ollama must not notify in the host's name
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "PYTHONSAFEPATH",  # … and one that obcd sets only for its own children (see `__main__`)
})  # fmt: skip
FOREIGN_PREFIXES = ("OLLAMA_", "GGML_", "LLAMA_ARG_", "LISTEN_", "SUPERVISOR_", "OBCD_")
#: Passed on all the same: the place of a person's models does not contradict the plan, and is needed to find them.
KEPT_NAMES = frozenset({"OLLAMA_MODELS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start of one server.

    Attributes:
        runtime: The host's runtime folder: part of the slot's mark, and where the pull's lock is.
        supervisor: The process id of supervisord, with which the server ends; None if started by hand.
    """

    plan: HostPlan
    server: Server
    runtime: Path
    supervisor: int | None


def launch(wanted: Launch, announce: Callable[[], None] = lambda: None) -> None:
    """Check everything, then replace this process with the server; it returns only by raising.

    Args:
        announce: Called when everything is checked.

    Raises:
        GpuError: If the card is missing.
        AlreadyRunningError: If the port is taken, another server holds the card, or a leftover does not end.
        ConfigurationError: If models, address or program cannot be used.
    """
    if wanted.supervisor is None:
        check_port(wanted)  # first: a running server of this slot is reported and not ended
    check_holder(wanted)
    end_leftovers(wanted.runtime, wanted.server.label)
    held = hold_card(wanted.server)  # before the driver is queried: of two that start together, one goes on
    check_card(wanted)
    wait_for_pull(wanted.runtime)
    check_models(wanted.server)
    check_port(wanted)
    announce()
    become(wanted)
    del held  # it is open up to the exec


def findings(wanted: Launch) -> list[str]:
    """Return messages about what would stop the server from starting now; change nothing."""
    found = []
    for check in (check_card, check_holder, partial(check_port, seconds=0)):
        try:
            check(wanted)
        except ObcdError as error:
            found.append(str(error))
    return found


def check_card(wanted: Launch) -> None:
    """Check that the driver has the card.

    Without the driver's library (in a container), the card is assumed to exist: Ollama checks it itself, and the watch
    restarts a server that answers from the CPU.

    Raises:
        GpuError: If it is lost, or the driver fails.
    """
    server = wanted.server
    if wanted.plan.vendor != "nvidia" or not server.pin:
        return
    try:
        cards = discover()
    except GpuError as error:
        if error.reason is not Reason.NO_LIBRARY:
            raise
        logger.warning("GPU %s is not checked: NVIDIA's library libnvidia-ml.so.1 is not here", server.label)
        return
    there = {card.uuid for card in cards} | {part.uuid for card in cards for part in card.instances}
    if server.pin not in there:
        listed = ", ".join(f"{card.index} ({card.uuid})" for card in cards)
        raise GpuError(
            Reason.NO_CARD,
            f"GPU {server.label} ({server.pin}) is lost: the driver has only {listed}. "
            "Look for Xid in dmesg; reset the card (nvidia-smi -r) or reboot this machine",
        )


def check_holder(wanted: Launch) -> None:
    """Check that no other server holds the card; under supervisor, the slot's own last one may, and is ended then.

    Raises:
        AlreadyRunningError: If one does; the message names it.
    """
    check_card_free(wanted.server, wanted.runtime, is_supervised=wanted.supervisor is not None)


def check_models(server: Server) -> None:
    """Check that the models folder can be read, if one is configured.

    Raises:
        ConfigurationError: If it cannot.
    """
    folder = server.variables.get("OLLAMA_MODELS")
    if folder is None:
        return
    if not os.path.isdir(folder):
        raise ConfigurationError(f'[host] models = "{folder}" is not a folder: make it, or remove the key')
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigurationError(
            f'[host] models = "{folder}" cannot be read by user {os.getuid()}: let its group or others read it'
        )


def check_port(wanted: Launch, seconds: float | None = None) -> None:
    """Check that the server can listen; wait some seconds for one that has just ended (None: `PORT_SECONDS`).

    Raises:
        AlreadyRunningError: If another process holds the port; the message names it.
        ConfigurationError: If the address is not one of this machine, or the port needs root.
        ExhaustedError: If no socket can be opened to try it.
    """
    bind, port = wanted.plan.bind, wanted.server.port
    deadline = time.monotonic() + (PORT_SECONDS if seconds is None else seconds)
    is_logged = False
    while not is_free(bind, port):
        if time.monotonic() >= deadline:
            raise AlreadyRunningError(_held(wanted))
        if not is_logged:
            logger.info("waiting a moment: port %d is not free", port, extra={"action": "port_awaited"})
        is_logged = True
        time.sleep(0.1)


def _held(wanted: Launch) -> str:
    """Return the message about a port that is not free."""
    who = holder(wanted.server.port)
    remedy = f"sudo systemctl stop {UNIT.removesuffix('.service')}" if who.endswith(f" of {UNIT}") else "end it"
    return (
        f"port {wanted.server.port}, meant for {_place(wanted.server)}, is held by {who}: "
        f"{remedy}, or choose other ports with [host] base_port"
    )


def _place(server: Server) -> str:
    return "the CPU" if server.label == "cpu" else f"GPU {server.label}"


def held_ports(plan: HostPlan, runtime: Path) -> dict[str, str]:
    """Return `{program: message}` for every server whose port another process holds.

    Raises:
        ConfigurationError: If a port needs root.
    """
    wanted = [Launch(plan=plan, server=server, runtime=runtime, supervisor=None) for server in plan.servers]
    deadline = time.monotonic() + PORT_SECONDS
    found = {}
    for item in wanted:
        try:
            check_port(item, max(0.0, deadline - time.monotonic()))
        except AlreadyRunningError as error:
            found[item.server.program] = str(error)
    return found


def wait_for_pull(runtime: Path) -> None:
    """Wait until no pull is under way on this host; a signal ends the process as usual."""
    try:
        descriptor = os.open(runtime / PULL_LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no pull has ever run here
        return
    except PermissionError:
        if not os.access(runtime, os.R_OK | os.X_OK):  # another user's host, which pulls other models
            return
        raise ConfigurationError(
            f"{runtime / PULL_LOCK} cannot be read by user {os.getuid()}, so it is unknown whether a model is being "
            "pulled: give it to the user who runs obcd host (chown), or remove it if no pull runs"
        ) from None
    try:
        is_logged = False
        while not take(descriptor, fcntl.LOCK_SH):
            if not is_logged:
                logger.info("waiting: a model is being pulled on this host", extra={"action": "pull_awaited"})
            is_logged = True
            time.sleep(PULL_POLL_SECONDS)
    finally:
        os.close(descriptor)


def server_environment(wanted: Launch, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the server's environment: inherited variables that are not foreign, the plan's, and the slot's mark."""
    kept = {name: value for name, value in inherited.items() if not is_foreign(name)}
    return {**kept, **wanted.server.variables, VARIABLE: slot(wanted.runtime, wanted.server.label)}


def is_foreign(name: str) -> bool:
    """Return whether a variable may come only from the plan."""
    return name not in KEPT_NAMES and (name in FOREIGN_NAMES or name.startswith(FOREIGN_PREFIXES))


def shell_line(wanted: Launch, inherited: Mapping[str, str]) -> str:
    """Return a shell command that starts the same server as `become` from this environment, without the slot's mark."""
    environment = server_environment(wanted, inherited)
    del environment[VARIABLE]
    words = ["env"]
    for name in sorted(inherited.keys() - environment.keys()):
        words += ["-u", name]
    # all variables of the plan, even if this environment has the same value: the line is for any shell
    # without the slot's mark: the next start of a host must not end a server started by hand as a leftover
    words += [f"{name}={environment[name]}" for name in wanted.server.variables]
    return shlex.join([*words, wanted.plan.ollama, "serve"])


def become(wanted: Launch) -> None:
    """Replace this process with the server.

    Raises:
        ConfigurationError: If the program cannot be run.
    """
    environment = server_environment(wanted, os.environ)
    logger.info("starting %s on port %d", wanted.server.program, wanted.server.port, extra={"action": "server_started"})
    if wanted.supervisor is not None:
        # Without systemd, a killed supervisord would leave its servers behind, and the next one could not bind.
        tie_to_parent({TIE: "1"}, wanted.supervisor)
    _reset_signals()
    try:
        os.execve(wanted.plan.ollama, ["ollama", "serve"], environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise ConfigurationError(
            f"{wanted.plan.ollama} cannot be run ({error.strerror}): install Ollama again, or set [host] ollama"
        ) from None


def _reset_signals() -> None:
    """Undo changes by Python that an exec would keep: ignored signals (SIGPIPE, SIGXFSZ) and the signal mask.

    An ignored SIGHUP stays ignored: nohup sets that.
    """
    for number in signal.valid_signals() - {signal.SIGHUP, signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
