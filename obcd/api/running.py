"""Run the API on a spool: one process, its threads and its socket, until a signal."""

from __future__ import annotations

import fcntl
import grp
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from obcd.api.batch_drops import BatchDrops
from obcd.api.batches import Batches
from obcd.api.place import ApiPlace
from obcd.api.routes import ApiParts, make_application
from obcd.api.uploads import UploadLimits, Uploads
from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.config.tables import DAY_SECONDS
from obcd.core.request.records import plain_model
from obcd.errors import AlreadyRunningError, InputError
from obcd.serving.server import serve
from obcd.serving.sockets import bind_tcp, bind_unix, url_of

logger = logging.getLogger(__name__)

#: Seconds that a drop may take to end after the signal; it is made again at the next start otherwise.
STOP_SECONDS = 5.0


@contextmanager
def opened_parts(place: ApiPlace) -> Iterator[ApiParts]:
    """Yield what the routes work with; its threads run until the end of the block.

    Raises:
        AlreadyRunningError: If another process serves this spool.
        ConfigurationError, InputError: If it cannot run here.
    """
    tokens = place.tokens()
    place.open_folder()
    with _locked(place.folder / "lock"):
        spool, api = place.settings.spool, place.api
        keep, file_bytes = api.keep_days * DAY_SECONDS, spool.max_file_bytes or api.max_upload_bytes
        limits = UploadLimits(min(api.max_upload_bytes, file_bytes), api.user_bytes, spool.min_free_bytes, keep)
        uploads = Uploads(place.folder, place.layout.root, limits)
        batches = Batches(BatchDrops(place.layout, place.folder / "drops"), uploads, api.profile, keep)
        try:
            uploads.open()
            batches.open()
        except OSError as error:
            raise InputError(f"cannot use {place.folder}: {error.strerror} ({error.filename})") from None
        if not tokens.refresh():
            logger.warning(
                "%s", tokens.trouble or "there is no token yet: obcd api token NAME", extra={"action": "api_no_token"}
            )
        batches.start()
        try:
            yield ApiParts(tokens, uploads, batches, _models(place.settings), int(wall()))
        finally:
            batches.stop(STOP_SECONDS)


def run(place: ApiPlace) -> None:
    """Serve until a signal.

    Raises:
        AlreadyRunningError: If another process serves this spool, or listens there.
        ConfigurationError, InputError, UsageError: If it cannot run here.
    """
    with opened_parts(place) as parts:
        listener, where = listen(place.api.listen)
        logger.info("OpenAI's API for batches at %s", where, extra={"action": "api_ready"})
        serve(make_application(parts), [listener])


def listen(where: str) -> tuple[socket.socket, str]:
    """Return the listening socket, and its address for people.

    Args:
        where: `[api] listen`.

    Raises:
        AlreadyRunningError: If another program listens there.
        InputError: If it cannot be made.
    """
    if where.startswith("unix:"):
        return bind_unix(Path(where.removeprefix("unix:")), _own_group())[0], where
    host, _, port = where.rpartition(":")
    listener = bind_tcp(host.strip("[]"), int(port))
    return listener, f"{url_of(*listener.getsockname()[:2])}v1"


def _own_group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return ""


def _models(settings: Settings) -> tuple[str, ...]:
    """Return the models that the configuration names, and the names that stand for them."""
    jobs = [settings.job_settings(profile) for profile in ("", *settings.profiles)]
    return tuple(
        sorted({plain_model(name) for name in settings.models()} | {name for job in jobs for name in job.aliases})
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise InputError(f"cannot open the lock {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(f"another obcd api runs on {path.parent}: stop that one first") from None
        yield
    finally:
        os.close(descriptor)
