"""The one tree of errors, split by what the catcher will do, and the exit codes they end as.

Floor 0: imports nothing of obcd. Messages are whole sentences for the person who has to act:
what is wrong, where (file, line or key), and what to do.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from enum import IntEnum


class ExitCode(IntEnum):
    """What the `obcd` command returns; the same for every command."""

    DONE = 0  # all that was asked for is done
    BUG = 1  # a defect of obcd itself
    USAGE = 2  # the command line is wrong
    PARTIAL = 3  # done, but some lines failed or were left out, or some endpoint is odd
    CONFIGURATION = 4  # the configuration file is wrong
    INPUT = 5  # a file that was given cannot be used, or there is no room, memory or descriptor to work with
    NO_ENDPOINT = 6  # no endpoint is reachable, or none has the model
    ALREADY_RUNNING = 7  # another coordinator or host owns the folder
    TIMED_OUT = 8  # the time limit that was given is over
    INTERRUPTED = 130  # Ctrl-C, as shells report it


class ObcdError(Exception):
    """Root of everything obcd raises on purpose."""

    exit_code = ExitCode.BUG


class UsageError(ObcdError):
    """The command line asks for something that cannot be meant."""

    exit_code = ExitCode.USAGE


class PartialError(ObcdError):
    """The work is done, but some lines failed or were left out."""

    exit_code = ExitCode.PARTIAL


class ConfigurationError(ObcdError):
    """The configuration cannot be used; the message names file and key of every fault."""

    exit_code = ExitCode.CONFIGURATION


class InputError(ObcdError):
    """A file or folder that was given cannot be used; nothing was lost or changed."""

    exit_code = ExitCode.INPUT


class FormError(InputError):
    """A file as a whole is not of the form that its name promises; the text says why."""


class CutOffError(FormError):
    """The end of a file is missing: it may be still on its way."""


class NoEndpointError(ObcdError):
    """No endpoint is reachable, or none has the model."""

    exit_code = ExitCode.NO_ENDPOINT


class AlreadyRunningError(ObcdError):
    """Another process owns the spool (its lock is held)."""

    exit_code = ExitCode.ALREADY_RUNNING


class TimedOutError(ObcdError):
    """What was waited for did not happen in the time given."""

    exit_code = ExitCode.TIMED_OUT


class ExhaustedError(ObcdError):
    """This process, or the machine, gives no more descriptors or memory; it may later."""

    exit_code = ExitCode.INPUT


class LineError(ObcdError):
    """One line of a prompt file cannot become a request; the others are not touched."""

    exit_code = ExitCode.INPUT


class RecordError(ObcdError, ValueError):
    """What was written down of a result cannot be read again: a record of a ledger, or an answer of the cache."""


class TooLongError(LineError):
    """A prompt that fits into no context there may be."""


class IllegalMoveError(ObcdError):
    """A state cannot follow the present one, by the table of its moves: a defect of the caller."""


#: What an OSError bears then.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Let an OSError inside the block name what could not be had, where it names no file, as of pipes and sockets.

    Args:
        what: Stands in the place of a file's name, e.g. `standard output`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = what
        raise
