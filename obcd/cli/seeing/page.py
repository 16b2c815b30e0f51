"""`obcd page`: the status page, in the foreground."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

import click

from obcd.cli.common import config_option, find_layout, read_settings, root_option, say
from obcd.config.tables import Page
from obcd.errors import ExitCode, UsageError
from obcd.logs.setup import set_up_logging
from obcd.parent_death import tie_to_parent
from obcd.serving.allowed_hosts import AllowedHosts
from obcd.serving.server import WEB, need_web, serve
from obcd.serving.sockets import bind_tcp, bind_unix, url_of
from obcd.spool.folders.layout import make_private

EPILOG = """\b
Examples:
  obcd page                          on the unix socket alone
  obcd page --port 8620              also at http://127.0.0.1:8620/
  ssh -L 8620:/run/obcd-page/page.sock gpu1    then http://localhost:8620/ shows gpu1's page

\b
The page only reads what the coordinator writes, and can change nothing. It never shows prompts, answers or
messages of failures. Its keys in the configuration are those of [page]; it needs obcd[web].
"""


@click.command(epilog=EPILOG)
@click.option("--port", type=click.IntRange(0, 65535), help="also listen on this port of TCP; 0: any free one")
@click.option("--bind", metavar="ADDRESS", help="the address of TCP  [default: [page] tcp_bind, 127.0.0.1]")
@click.option(
    "--socket", "path", metavar="PATH", help="the unix socket  [default: [page] socket, in the runtime folder]"
)
@config_option
@root_option
def page(port: int | None, bind: str | None, path: str | None, config: str | None, root: str | None) -> int:
    """serve a page that shows jobs, endpoints and cards.

    It runs until Ctrl-C or TERM, in its own process: the coordinator does not notice how many people look.
    """
    if bind is not None and port is None:
        raise UsageError("--bind needs --port")
    set_up_logging()
    tie_to_parent(os.environ)
    settings = read_settings(config)
    layout, wanted = find_layout(root, settings), settings.page
    need_web(*WEB)
    from obcd.page.application import PageApplication  # noqa: PLC0415 - starlette may not be installed

    place = Path(path or wanted.socket or layout.page_socket).expanduser().absolute()
    if place.parent == layout.runtime:
        make_private(layout.runtime)
    sockets = list[socket.socket]()
    number = wanted.tcp_port if port is None else port
    if number is not None:
        sockets.append(bind_tcp(bind or wanted.tcp_bind, number))
        say(f"page    {url_of(*sockets[0].getsockname()[:2])}")
    listener, is_shared = bind_unix(place, wanted.socket_group)
    say(f"page    {shlex.quote(str(place))}, for {_readers(wanted, is_shared=is_shared)}")
    application = PageApplication(layout, show_names=wanted.show_names)
    hosts = AllowedHosts.of((*wanted.allowed_hosts, *_own_names(sockets)))
    try:
        serve(application.app(hosts), [*sockets, listener])
    finally:
        place.unlink(missing_ok=True)
    return ExitCode.DONE


def _readers(wanted: Page, *, is_shared: bool) -> str:
    return f"members of group {wanted.socket_group}" if is_shared else "this user alone"


def _own_names(sockets: Sequence[socket.socket]) -> tuple[str, ...]:
    """Return the names of this machine, if others can reach it."""
    is_open = any(not str(item.getsockname()[0]).startswith(("127.", "::1")) for item in sockets)
    return (socket.gethostname(), socket.getfqdn()) if is_open else ()
