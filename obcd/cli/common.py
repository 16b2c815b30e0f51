"""Options and helpers that several commands share: where files are, and how the configuration is read."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from obcd.client.watching.job_view import find_view
from obcd.config.loading import find_configuration, find_root, load_settings, read_document
from obcd.config.settings import Settings
from obcd.config.tables import Spool
from obcd.core.tables.file_format import is_delimiter
from obcd.errors import ConfigurationError, UsageError
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.status_file import is_running, read_status
from obcd.text import plural, printable
from obcd.text_files import shown_path

#: Names of other modules that commands find here too.
__all__ = ["find_view", "is_running", "read_status", "shown_path"]

#: The commands that start a coordinator, by hand and as a unit.
START = "obcd up, or systemctl start obcd-coordinator"

#: How soon a blocked read is interrupted for a signal that just missed it.
LOOK_AT_SIGNALS_SECONDS = 1.0

Command = TypeVar("Command", bound=Callable[..., object])


def config_option(command: Command) -> Command:
    """Add `--config`."""
    text = "configuration file  [default: $OBCD_CONFIG, /etc/obcd/obcd.toml, ~/.config/obcd/obcd.toml, or none]"
    return click.option("--config", metavar="FILE", help=text)(command)


def root_option(command: Command) -> Command:
    """Add `--root`."""
    text = "the spool's folder  [default: $OBCD_ROOT, [spool] root, /var/spool/obcd or ~/.local/share/obcd]"
    return click.option("--root", metavar="DIR", help=text)(command)


def read_settings(config: str | None) -> Settings:
    """Find and read the configuration."""
    return load_settings(find_configuration(config))


#: The name of the configuration of ollama-batch-cluster, in the working folder.
LOCAL_CONFIGURATION = "config.toml"


def read_local_settings(config: str | None) -> Settings:
    """Read the given configuration, else `config.toml` in the working folder, else that of `read_settings`."""
    if config is None and os.path.isfile(LOCAL_CONFIGURATION):
        return read_settings(LOCAL_CONFIGURATION)
    return read_settings(config)


def find_layout(root: str | None, settings: Settings) -> Layout:
    """Return the spool's folders."""
    return Layout.at(find_root(root, settings), settings.spool.inbox, per_user=settings.spool.per_user)


def find_layout_anyway(config: str | None, root: str | None) -> tuple[Layout, ConfigurationError | None]:
    """Return the spool that a configuration names, even a wrong one: its coordinator continues with the old one.

    Returns:
        The folders, and the error in the configuration, if any.
    """
    try:
        return find_layout(root, read_settings(config)), None
    except ConfigurationError as error:
        return Layout.at(find_root(root, Settings(spool=Spool(root=_named_root(config))))), error


def _named_root(config: str | None) -> str | None:
    """Return `[spool] root` of a configuration that may be wrong elsewhere."""
    try:
        path = find_configuration(config)
        spool = read_document(path).get("spool", {}) if path is not None else {}
    except ConfigurationError:
        return None
    named = spool.get("root") if isinstance(spool, dict) else None
    return named if isinstance(named, str) else None


def check_profile(settings: Settings, profile: str) -> None:
    """Refuse a profile that the configuration does not have."""
    if profile and profile not in settings.profiles:
        known = ", ".join(sorted(settings.profiles)) or "none"
        raise ConfigurationError(
            f"there is no [profiles.{printable(profile)}] in {settings.source or 'the defaults (no file was found)'}; "
            f"its profiles: {known}"
        )


def one_delimiter(given: str) -> str:
    """Return the CSV delimiter that a command line gives.

    Raises:
        UsageError: If it cannot be a delimiter.
    """
    delimiter = "\t" if given == r"\t" else given
    if not is_delimiter(delimiter):
        raise UsageError("--delimiter takes one character, such as ; or \\t")
    return delimiter


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that no partial file is left, and then the process.

    The process ends by the signal, as if it had not been caught: timeout(1) and systemd expect that.
    """
    caught: list[int] = []

    def end(number: int, _: object) -> None:
        caught.append(number)
        if len(caught) == 1:  # timeout(1) sends its signal twice; the second must not interrupt the cleanup
            raise KeyboardInterrupt

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:  # not those that nohup(1) makes this process ignore
        signal.signal(number, end)
    # A signal that arrives after Python's last look at signals and before read(2) blocks would wait for the read's end,
    # which for standard input may never come: a timer interrupts the read, and Python looks again.
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, LOOK_AT_SIGNALS_SECONDS, LOOK_AT_SIGNALS_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        if caught:
            os.kill(os.getpid(), caught[0])


def is_terminal() -> bool:
    """Return whether a person watches: both streams are a terminal (a closed stream is None)."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


def is_watched() -> bool:
    """Return whether a person reads standard error: cron and systemd give no terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def say(text: str) -> None:
    """Write a line for a person to stderr; a closed stderr does not end the run."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def write_text(text: str) -> None:
    """Write text to standard output so that every terminal can show it.

    Characters that its encoding lacks are escaped. Control characters in an answer could rewrite a terminal's screen
    or title (CWE-150): they are escaped on a terminal, and unchanged in a pipe or file.
    """
    out = sys.stdout
    if out.isatty():
        text = "".join(
            char if char in "\n\t" or unicodedata.category(char) != "Cc" else _escaped(char) for char in text
        )
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _escaped(char: str) -> str:
    return f"\\x{ord(char):02x}"


def describe_slots(slots: int | None) -> str:
    """Return e.g. `16 slots`; None means that obcd finds their number."""
    return "slots: auto" if slots is None else plural(slots, "slot")
