"""The completion scripts of the shells: click's own, and where an installation puts each."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

PROGRAM = "obcd"
#: The environment variable by which a script calls the program back; `obcd.cli.main` reads it.
VARIABLE = "_OBCD_COMPLETE"

#: {shell: where it finds the script of a program} on Debian: bash-completion(7), zsh's and fish's `vendor` folders.
PLACES: Final = {
    "bash": "/usr/share/bash-completion/completions/obcd",
    "zsh": "/usr/share/zsh/vendor-completions/_obcd",
    "fish": "/usr/share/fish/vendor_completions.d/obcd.fish",
}


def script(shell: str) -> str:
    """Return the completion script of a shell in `PLACES`."""
    kind = get_completion_class(shell)
    assert kind is not None
    # The base class's: bash's own runs bash first, to warn about a version older than 4.4.
    return ShellComplete.source(kind(click.Command(PROGRAM), {}, PROGRAM, VARIABLE))
