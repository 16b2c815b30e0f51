"""The one tree of errors, split by what the catcher will do, and the exit codes for them.

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

    DONE = 0  # everything that the command line requested is done
    BUG = 1  # a defect of obcd itself
    USAGE = 2  # the command line is wrong
    PARTIAL = 3  # done, but some lines failed or were left out, or an endpoint has a fault
    CONFIGURATION = 4  # the configuration file is wrong
    INPUT = 5  # a given file cannot be used, or there is no disk space, memory or descriptor to work with
    NO_ENDPOINT = 6  # no endpoint is reachable, or none has the model
    ALREADY_RUNNING = 7  # another coordinator or host owns the folder
    TIMED_OUT = 8  # the given time limit is over
    INTERRUPTED = 130  # Ctrl-C, as shells report it


class ObcdError(Exception):
    """Root of all errors that obcd raises on purpose.

    Attributes:
        page: The page of the manual that explains it, for `obcd help`; "" where none does.
    """

    exit_code = ExitCode.BUG
    page = ""


class UsageError(ObcdError):
    """The command line requests something that has no meaning."""

    exit_code = ExitCode.USAGE


class PartialError(ObcdError):
    """The work is done, but some lines failed or were left out."""

    exit_code = ExitCode.PARTIAL


class ConfigurationError(ObcdError):
    """The configuration cannot be used; the message names the file and the key of every fault."""

    exit_code = ExitCode.CONFIGURATION
    page = "configuration"


class InputError(ObcdError):
    """A given file or folder cannot be used; nothing was lost or changed."""

    exit_code = ExitCode.INPUT


class FormError(InputError):
    """A file as a whole does not have the form that its name promises; the message is the reason.

    Attributes:
        option: The option that commands for files have against it, e.g. `--delimiter ';'`; "" if there is none.
    """

    page = "formats"

    def __init__(self, reason: str, *, option: str = "") -> None:
        super().__init__(reason)
        self.option = option


class CutOffError(FormError):
    """The end of a file is missing: the file may still be being transferred."""


class KeyConflict(InputError):
    """A job with this key has other content.

    Attributes:
        key: The key that was given.
        given: SHA-256 of the content that was given.
        recorded: SHA-256 of the content of the job that has the key.
    """

    page = "from-python"

    def __init__(self, message: str, *, key: str, given: str, recorded: str) -> None:
        super().__init__(message)
        self.key, self.given, self.recorded = key, given, recorded


class ResultRemoved(InputError):
    """A job was published, and its folder is no longer in the outbox: retention or somebody removed it."""

    page = "from-python"


class JobRejected(InputError):
    """A drop never became a job; the message says why."""

    page = "from-python"


class NotFinished(ObcdError):
    """The results of a job were requested before it was published."""

    exit_code = ExitCode.TIMED_OUT
    page = "from-python"


class NoEndpointError(ObcdError):
    """No endpoint is reachable, or none has the model."""

    exit_code = ExitCode.NO_ENDPOINT
    page = "troubleshooting"


class AlreadyRunningError(ObcdError):
    """Another process owns the spool (it holds the lock)."""

    exit_code = ExitCode.ALREADY_RUNNING


class TimedOutError(ObcdError):
    """The awaited event did not happen within the given time."""

    exit_code = ExitCode.TIMED_OUT


class ExhaustedError(ObcdError):
    """This process or the machine has no descriptors or memory left at present."""

    exit_code = ExitCode.INPUT
    page = "troubleshooting"


class LineError(ObcdError):
    """One line of a prompt file cannot become a request; the other lines are not affected."""

    exit_code = ExitCode.INPUT
    page = "formats"


class RecordError(ObcdError, ValueError):
    """A stored result cannot be read back: a record of a ledger, or an answer in the cache."""


class TooLongError(LineError):
    """A prompt is too long for every context that is possible."""


class IllegalMoveError(ObcdError):
    """A state cannot follow the present one, according to its table of moves: a defect of the caller."""


#: The error numbers of such an OSError.
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Set the name of the resource in an OSError of the block that names no file, such as those of pipes and sockets.

    Args:
        what: Takes the place of a file's name, e.g. `standard output`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = what
        raise
