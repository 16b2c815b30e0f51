"""Bearer tokens for endpoints behind a proxy, and the secrets of webhooks: each in a file that only one user can read.

The processes that send requests to endpoints, or notifications, read them (coordinator, batch, check). They are not
read with the configuration: everybody who drops a file reads that.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from obcd.config.loading import report
from obcd.config.settings import Settings
from obcd.core.webhook_signature import signing_key
from obcd.errors import ConfigurationError
from obcd.secret import Secret
from obcd.users import user_name

#: Longest token, in characters: servers refuse longer headers.
MAX_TOKEN = 4096
#: The folder in which systemd shows a unit its `LoadCredential=` files. It keeps others out by itself, possibly by an
#: ACL, whose mask looks like a right of the group (systemd.exec(5)).
CREDENTIALS = "CREDENTIALS_DIRECTORY"


def with_tokens(settings: Settings) -> Settings:
    """Return the settings with the token of every endpoint that has a `token_file`.

    Raises:
        ConfigurationError: If a file cannot be used; it names every such file and what to do, never its content.
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


def with_webhook_secrets(settings: Settings) -> Settings:
    """Return the settings with the secrets of the webhooks of `[notify]`.

    Raises:
        ConfigurationError: If a file cannot be used; it names every such file and what to do, never its content.
    """
    folder = settings.source.parent if settings.source is not None else Path()
    secrets, faults = {}, []
    for place, file in settings.webhook_secret_files().items():
        try:
            secrets[file] = read_secret(folder / file)
        except ValueError as error:
            faults.append(f"at {place}: {error}")
    if faults:
        raise ConfigurationError(report(settings.source or folder, faults))
    return settings.model_copy(update={"webhook_secrets": secrets}) if secrets else settings


def read_secret(path: Path) -> Secret:
    """Read the secret of a webhook, as `read_token` reads a token.

    Raises:
        ValueError: With the reason and what to do; the secret itself is in no message.
    """
    secret = read_token(path, "secret")
    try:
        signing_key(secret.reveal())
    except ValueError as error:
        raise ValueError(f"{path} does not hold the secret of a webhook: {error}") from None
    return secret


def read_token(path: Path, noun: str = "token") -> Secret:
    """Read a token; refuse one that others can read or could have written.

    Args:
        noun: What it is called in messages.

    Raises:
        ValueError: With the reason and the command that corrects it; the token itself is in no message.
    """
    try:
        status, raw = _read(path)
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: put the {noun} there, alone on one line") from None
    except PermissionError:
        raise ValueError(
            f"{path} is not for {user_name(os.geteuid())} to read: run this as the daemon's user"
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file: put the {noun} into one, alone on one line")
    _check_closed(path, status, noun)
    return Secret(_parse(path, raw, noun))


def _read(path: Path) -> tuple[os.stat_result, bytes]:
    """Read at most what a token may have, and the status of the same open file; read nothing unless it is a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        return status, os.read(descriptor, MAX_TOKEN + 100) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(descriptor)


def _check_closed(path: Path, status: os.stat_result, noun: str) -> None:
    """Refuse a file that others can open, or that belongs to another user.

    Raises:
        ValueError: With the command that corrects it.
    """
    quoted, mine = shlex.quote(str(path)), os.geteuid()
    if status.st_uid not in (0, mine):
        raise ValueError(
            f"{path} belongs to {user_name(status.st_uid)}, who could put another {noun} there: "
            f"chown {user_name(mine)} {quoted}"
        )
    credentials = os.environ.get(CREDENTIALS)
    others = 0o007 if credentials and path.parent == Path(credentials) else 0o077
    if status.st_mode & others:
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"{path} is open to others than its owner (mode {mode:04o}): chmod 0600 {quoted}")


def _parse(path: Path, raw: bytes, noun: str) -> str:
    text = raw.strip()
    if not text:
        raise ValueError(f"{path} holds no {noun}: put it there, alone on one line")
    if b"\n" in text or b"\r" in text:
        raise ValueError(f"{path} holds more than one line: put the {noun} there alone")
    if len(text) > MAX_TOKEN or not all(0x21 <= byte <= 0x7E for byte in text):
        raise ValueError(
            f"{path} does not hold a {noun}: it must be printable ASCII without spaces, at most {MAX_TOKEN} characters"
        )
    return text.decode("ascii")
