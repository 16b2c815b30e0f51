"""Run a program of the configuration with something on its standard input, within a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from obcd.notifications.ways import DeliveryError
from obcd.text import duration, printable


def run_program(words: Sequence[str], given: bytes, seconds: float) -> None:
    """Run a program and wait for its end. No shell reads the words; its output goes where obcd's own log goes.

    Args:
        words: The program, by its path or by a name on PATH, and its arguments: they are the configuration's alone.
        given: What it reads. It may end without reading it.
        seconds: After this time it is killed with the processes that it started, except those that left its group.

    Raises:
        DeliveryError: If it cannot be started, fails, or takes too long.
    """
    name = printable(os.path.basename(words[0]))
    try:
        process = subprocess.Popen(  # its working folder is no folder of a user
            list(words), stdin=subprocess.PIPE, stdout=2, cwd="/", start_new_session=True
        )
    except OSError as error:
        raise DeliveryError(f"{name} cannot be started: {error.strerror}") from None
    try:
        process.communicate(given, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"{name} did not end within {duration(seconds)} and was killed") from None
    except OSError as error:
        raise DeliveryError(f"{name} cannot be given the event: {error.strerror}") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode < 0:
        raise DeliveryError(f"{name} was ended by signal {-process.returncode}")
    if process.returncode:
        raise DeliveryError(f"{name} ended with exit code {process.returncode}")
