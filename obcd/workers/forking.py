"""The fork server from which all child processes are started; it has imported the modules that they need.

This module imports little, so that the server can be started before its caller has imported anything.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import forkserver as server
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerContext

from obcd.errors import naming

_PRELOAD = ["obcd.workers.worker", "obcd.spool.outbox.publication"]


def forkserver() -> ForkServerContext:
    """Return the one context from which all child processes are started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def prepare() -> None:
    """Start the fork server without waiting for it: it imports on another core while the caller continues.

    It inherits the limits and the umask that this process has now, and ends with this process.
    """
    with shielded_start():
        forkserver()
        with naming("the process that starts the others"):
            server.ensure_running()


@contextlib.contextmanager
def shielded_start() -> Iterator[None]:
    """Block SIGINT while the fork server starts: it inherits the mask, so that only the coordinator acts on Ctrl-C.

    The resource tracker is started first, because its start unblocks SIGINT (cpython multiprocessing).
    """
    with naming("Python's resource tracker, which is started before any child process"):
        resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
