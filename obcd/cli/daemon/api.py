"""`obcd api`: OpenAI's Files and Batches over HTTP, and the tokens for it."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from obcd.api.place import ApiPlace
from obcd.api.token_file import TokenEntry, make_token, read_entries, write_entries
from obcd.cli.common import config_option, find_layout, root_option, say
from obcd.cli.tables import print_rows
from obcd.clock import wall
from obcd.config.loading import find_configuration, load_settings
from obcd.config.tokens import CREDENTIALS
from obcd.core_dumps import forbid_core_dumps
from obcd.errors import ExitCode, InputError
from obcd.logs.setup import set_up_logging
from obcd.parent_death import tie_to_parent
from obcd.serving.server import need_web
from obcd.text import plural, printable

EPILOG = """\b
Examples:
  obcd api                      serve at [api] listen until TERM or Ctrl-C
  sudo obcd api token ann       make a token for ann, and print it once
  sudo obcd api tokens
  sudo obcd api revoke ann      refuse all tokens of ann from now on

\b
The unit obcd-api runs the first one as user obcd-api. Clients: base_url="http://127.0.0.1:11480/v1"
Exit codes: 4 the API is off, or this is another user's; 7 another obcd api runs.
"""


@click.group(epilog=EPILOG, invoke_without_command=True)
@config_option
@root_option
@click.option("-v", "--verbose", is_flag=True, help="log more")
@click.pass_context
def api(context: click.Context, config: str | None, root: str | None, verbose: bool) -> int:
    """serve OpenAI's Files and Batches over HTTP.

    A batch becomes a job of the user to whom the token belongs. It needs `enabled = true` in [api], and obcd[web].
    """
    if context.invoked_subcommand is not None:
        context.obj = (config, root)
        return ExitCode.DONE
    for module in ("starlette", "uvicorn", "python_multipart"):
        need_web(module)
    from obcd.api.running import run  # noqa: PLC0415 - what it imports is an extra

    place = _find_place(config, root)
    set_up_logging(logging.DEBUG if verbose else logging.INFO)
    tie_to_parent(os.environ)
    forbid_core_dumps()
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has ended
    run(place)
    return ExitCode.DONE


@api.command()
@click.argument("user")
@click.pass_obj
def token(given: tuple[str | None, str | None], user: str) -> int:
    """make a token for a user of this machine, and print it once.

    Only its SHA-256 is stored. Batches that are made with it are jobs of this user.
    """
    place, owner = _find_tokens(given)
    try:
        uid = pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise InputError(f"there is no user '{printable(user)}' on this machine") from None
    if uid != owner if owner == place.daemon else uid in (0, place.daemon):
        whose = "the user that runs it" if owner == place.daemon else "other users than root and the coordinator's"
        raise InputError(f"this API makes batches of {whose} alone: no token for {printable(user)}")
    made, entry = make_token(user, wall())
    with _acting_as(owner, place):
        write_entries(place.tokens_file, [*_read(place, owner), entry], owner)
    click.echo(made)
    say(f"this token is shown only now; it is valid at once, for batches of {printable(user)}")
    return ExitCode.DONE


@api.command()
@click.pass_obj
def tokens(given: tuple[str | None, str | None]) -> int:
    """list whose tokens there are, and when they were made."""
    place, owner = _find_tokens(given)
    with _acting_as(owner, place):
        entries = _read(place, owner)
    if not entries:
        say("there is no token yet: obcd api token NAME")
        return ExitCode.DONE
    print_rows(["USER", "MADE", "SHA-256"], [[item.user, item.made or "-", item.digest[:12]] for item in entries])
    return ExitCode.DONE


@api.command()
@click.argument("user")
@click.pass_obj
def revoke(given: tuple[str | None, str | None], user: str) -> int:
    """refuse all tokens of a user from now on. The user's batches go on."""
    place, owner = _find_tokens(given)
    with _acting_as(owner, place):
        entries = _read(place, owner)
        left = [item for item in entries if item.user != user]
        if len(left) == len(entries):
            raise InputError(f"there is no token of '{printable(user)}': obcd api tokens lists them")
        write_entries(place.tokens_file, left, owner)
    say(f"{plural(len(entries) - len(left), 'token')} of {printable(user)} removed")
    return ExitCode.DONE


def _find_place(config: str | None, root: str | None) -> ApiPlace:
    # The unit gets the configuration as a credential: its user may not read that of group obcd.
    handed = Path(os.environ.get(CREDENTIALS, "")) / "obcd.toml"
    given = str(handed) if config is None and CREDENTIALS in os.environ and handed.is_file() else config
    settings = load_settings(find_configuration(given), with_schemas=False)
    return ApiPlace.of(settings, find_layout(root, settings))


def _find_tokens(given: tuple[str | None, str | None]) -> tuple[ApiPlace, int]:
    """Return the place of the tokens' file and its owner; make the folder that is the API's own.

    Raises:
        InputError: If there is no such user, or the folder cannot be made.
    """
    place = _find_place(*given)
    owner = place.owner
    if owner is None:
        raise InputError(f"this machine has no user '{printable(place.api.user)}' ([api] user): run systemd-sysusers")
    try:
        place.give_folder(owner)
    except OSError as error:
        raise InputError(f"cannot make {place.folder}: {error.strerror}; run this as root") from None
    return place, owner


@contextlib.contextmanager
def _acting_as(owner: int, place: ApiPlace) -> Iterator[None]:
    """Be the user whose folder holds the tokens: root must not follow links that this user may have put there."""
    if os.geteuid() != 0 or owner == 0 or place.tokens_file.parent != place.folder:
        yield
        return
    os.seteuid(owner)
    try:
        yield
    finally:
        os.seteuid(0)


def _read(place: ApiPlace, owner: int) -> Sequence[TokenEntry]:
    try:
        return read_entries(place.tokens_file, (owner,))
    except ValueError as error:
        raise InputError(str(error)) from None
