"""The fork server that all our child processes are started from; it has what they need imported.

Light by itself, so that it can be started before its caller has imported anything.
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
    """Return the one context that all our child processes are started from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def prepare() -> None:
    """Start the fork server without waiting for it: it imports on another core while the caller goes on.

    It inherits limits and umask of this process as they are now, and ends with it.
    """
    with shielded_start():
        forkserver()
        with naming("the process that starts the others"):
            server.ensure_running()


@contextlib.contextmanager
def shielded_start() -> Iterator[None]:
    """Hold SIGINT back while the fork server starts: it inherits that, so that a Ctrl-C is the coordinator's to act on.

    The resource tracker comes first, since its start lets SIGINT through again (cpython multiprocessing).
    """
    with naming("Python's resource tracker, which is started before any child process"):
        resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
