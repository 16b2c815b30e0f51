"""Bearer tokens for endpoints behind a proxy: each in a file that only the daemon's user can read.

Read by who asks endpoints (coordinator, batch, check), and not with the configuration: that is read by everybody who
drops a file.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from obcd.config.loading import report
from obcd.config.settings import Settings
from obcd.errors import ConfigurationError
from obcd.secret import Secret
from obcd.users import user_name

#: Longest token, in characters: servers refuse longer headers.
MAX_TOKEN = 4096
#: Where systemd shows a unit its `LoadCredential=`: it keeps others out by itself, and may do so by an ACL, whose mask
#: looks like a right of the group (systemd.exec(5)).
CREDENTIALS = "CREDENTIALS_DIRECTORY"


def with_tokens(settings: Settings) -> Settings:
    """Return the settings with the token of every endpoint that has a `token_file`.

    Raises:
        ConfigurationError: Naming every file that cannot be used, and what to do about it; never what is in it.
    """
    folder = settings.source.parent if settings.source is not None else Path()
    tokens, faults = {}, []
    for name, instance in settings.ollama_instances.items():
        if instance.token_file is None:
            continue
        try:
            tokens[name] = read_token(folder / instance.token_file)
        except ValueError as error:
            faults.append(f'at ollama_instances."{name}".token_file: {error}')
    if faults:
        raise ConfigurationError(report(settings.source or folder, faults))
    return settings.model_copy(update={"tokens": tokens}) if tokens else settings


def read_token(path: Path) -> Secret:
    """Read a token, and refuse one that others can read or could have put there.

    Raises:
        ValueError: With the reason and the command that mends it; the token itself is in no message.
    """
    try:
        status, raw = _read(path)
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: put the token there, alone on one line") from None
    except PermissionError:
        raise ValueError(
            f"{path} is not for {user_name(os.geteuid())} to read: run this as the daemon's user"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file: put the token into one, alone on one line")
    _check_closed(path, status)
    return Secret(_parse(path, raw))


def _read(path: Path) -> tuple[os.stat_result, bytes]:
    """Read what can be a token, and the state of the very file it was read from; nothing of what is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        return status, os.read(descriptor, MAX_TOKEN + 100) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(descriptor)


def _check_closed(path: Path, status: os.stat_result) -> None:
    """Refuse a file that is open to others, or another's.

    Raises:
        ValueError: With the command that mends it.
    """
    quoted, mine = shlex.quote(str(path)), os.geteuid()
    if status.st_uid not in (0, mine):
        raise ValueError(
            f"{path} belongs to {user_name(status.st_uid)}, who could put another token there: "
            f"chown {user_name(mine)} {quoted}"
        )
    credentials = os.environ.get(CREDENTIALS)
    others = 0o007 if credentials and path.parent == Path(credentials) else 0o077
    if status.st_mode & others:
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"{path} is open to others than its owner (mode {mode:04o}): chmod 0600 {quoted}")


def _parse(path: Path, raw: bytes) -> str:
    text = raw.strip()
    if not text:
        raise ValueError(f"{path} holds no token: put it there, alone on one line")
    if b"\n" in text or b"\r" in text:
        raise ValueError(f"{path} holds more than one line: put the token there alone")
    if len(text) > MAX_TOKEN or not all(0x21 <= byte <= 0x7E for byte in text):
        raise ValueError(
            f"{path} holds something that is no token: printable ASCII without spaces, at most {MAX_TOKEN} characters"
        )
    return text.decode("ascii")
