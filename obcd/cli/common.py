"""What several commands share: the options that say where things are, and reading the configuration for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from obcd.config.loading import find_configuration, find_root, load_settings
from obcd.config.settings import Settings
from obcd.errors import ConfigurationError
from obcd.spool.layout import Layout

Command = TypeVar("Command", bound=Callable[..., Any])


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


def find_layout(root: str | None, settings: Settings) -> Layout:
    """Return the spool's folders."""
    return Layout.at(find_root(root, settings), settings.spool.inbox)


def check_profile(settings: Settings, profile: str) -> None:
    """Refuse a profile that the configuration does not have."""
    if profile and profile not in settings.profiles:
        known = ", ".join(sorted(settings.profiles)) or "none"
        raise ConfigurationError(
            f"there is no [profiles.{profile}] in {settings.source or 'the defaults'}; there is {known}"
        )


def is_terminal() -> bool:
    """Tell whether a person watches: both streams are a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def say(text: str) -> None:
    """Say something to a person, on stderr."""
    click.echo(text, err=True)


def plural(count: int, noun: str) -> str:
    """Return e.g. `1 prompt`, `30 prompts`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", " ")


def shown_path(path: Path) -> str:
    """Return a path relative to the working folder where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
