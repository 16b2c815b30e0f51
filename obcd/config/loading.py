"""Read the configuration: one function finds the file, one reads it; all faults are reported at once, with places."""

from __future__ import annotations

import difflib
import errno
import grp
import json
import os
import pwd
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from obcd.config.notify_tables import Notifications, ProfileNotifications
from obcd.config.places import usual_configuration, usual_root
from obcd.config.settings import Settings
from obcd.config.tables import Api, Cluster, Host, Instance, Page, Profile, Requests, Spool
from obcd.config.values import Table
from obcd.core.request.lines import OPTION_TYPES
from obcd.core.schema.schemas import check_schema
from obcd.core.schema.wrapping import unwrapped, why_no_schema
from obcd.errors import ConfigurationError
from obcd.text import printable

#: Longest configuration or schema, in bytes: reading it again takes a moment of the coordinator's loop.
MAX_FILE_BYTES = 2**20
#: A key that TOML accepts without quotes.
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
#: tomllib's message for a table whose header occurs a second time; the group is the name as a tuple.
TWICE = re.compile(r"Cannot declare \(([^()]*)\) twice")

#: {words of pydantic's messages: words that a reader of TOML knows}
WORDS = {
    "Input should be": "must be",
    "a valid boolean": "true or false",
    "a valid string": "a string",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
}

#: {name of a table in the file: the model with its keys}
TABLES: dict[str, type[Table]] = {
    "requests": Requests, "spool": Spool, "host": Host, "cluster": Cluster, "api": Api, "page": Page,
    "profiles.NAME": Profile,
    "notify": Notifications, "profiles.NAME.notify": ProfileNotifications,
}  # fmt: skip
#: Every key of every table, to suggest the key that a misspelt one meant.
KEYS = sorted(
    {
        field.alias or name
        for table in (Settings, Instance, Requests, Host, Cluster, Notifications, Spool, Api, Page, Profile)
        for name, field in table.model_fields.items()
        if not field.exclude
    }
)
#: {name that people try first: what it is called here}
_ELSEWHERE = {
    **dict.fromkeys(
        ("endpoint", "endpoints", "hosts", "instances", "servers"), '[ollama_instances], with "host:port" = 0'
    ),
    **dict.fromkeys(("system", "system_prompt"), "system_message"),
    **dict.fromkeys(("json_schema", "response_format"), 'schema = "FILE"'),
    "prompt_template": "template",
}


def find_configuration(given: str | None) -> Path | None:
    """Return the file to read: the given one, `OBCD_CONFIG`, the system's, the user's, or None for the defaults.

    Raises:
        ConfigurationError: If a named file does not exist.
    """
    named = given or os.environ.get("OBCD_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigurationError(f"no configuration at {named}: name another with --config, or create it")
        return Path(named)
    return usual_configuration()


def find_root(given: str | None, settings: Settings) -> Path:
    """Return the spool's root: `--root`, `OBCD_ROOT`, `[spool] root`, the system's, or the user's own.

    Raises:
        ConfigurationError: If it would be the user's own and the user has no home (an unknown uid, and no HOME).
    """
    named = given or os.environ.get("OBCD_ROOT") or settings.spool.root
    if named:
        return Path(named).expanduser().absolute()
    root = usual_root()
    if root is None:
        raise ConfigurationError("there is no home folder for a spool: give its --root, or set OBCD_ROOT")
    return root


def load_settings(path: Path | None, *, with_schemas: bool = True) -> Settings:
    """Read and check the configuration; None gives the defaults.

    Args:
        with_schemas: Whether the schemas beside it are read: a process that sends no request needs none.

    Raises:
        ConfigurationError: If anything is wrong; it names every fault with its place, e.g. `at requests.num_ctx: …`.
    """
    if path is None:
        return Settings()
    document = read_document(path)
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(report(path, (_sentence(item) for item in error.errors()))) from None
    schemas = _read_schemas(path, settings) if with_schemas else {}
    return settings.model_copy(update={"source": path, "schemas": schemas})


def read_document(path: Path) -> dict[str, object]:
    """Read a configuration as TOML, unchecked; only this function does. A byte order mark of an editor is skipped.

    Raises:
        ConfigurationError: If it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_file(path).decode("utf-8-sig"))
    except PermissionError:
        raise ConfigurationError(f"the configuration {path} {_closed_to_us(path)}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the configuration {path} is not UTF-8 at byte {error.start + 1}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the configuration {path} is not TOML: {error}{_hint(error)}") from None
    except ValueError:  # tomllib does not catch int's limit on digits
        raise ConfigurationError(f"the configuration {path} is not TOML: a number in it has too many digits") from None
    except RecursionError:
        raise ConfigurationError(f"the configuration {path} is not TOML: nested too deep") from None


def _closed_to_us(path: Path) -> str:
    """Return who may read the configuration, and how the present user becomes one of them."""
    try:
        status = path.stat()
        group, user = grp.getgrgid(status.st_gid).gr_name, pwd.getpwuid(os.geteuid()).pw_name
    except (OSError, KeyError):
        return "is not yours to read: ask its owner, or choose another with --config"
    if not status.st_mode & stat.S_IRGRP or status.st_gid == 0:
        return "is not yours to read: ask its owner, or choose another with --config"
    if user in grp.getgrgid(status.st_gid).gr_mem:
        return f"is for members of group {group}: you are one from your next login on"
    return f"is for members of group {group}: sudo usermod -aG {group} {user}, then log in again"


def _hint(error: tomllib.TOMLDecodeError) -> str:
    """Return what to do about a table that begins twice, as it does when a table is pasted below another."""
    table = TWICE.match(str(error))
    if table is None:
        return ""
    name = ".".join(re.findall(r"'([^']*)'", table[1]))
    return f"; [{name}] may occur only once: put the lines of the second one below the first [{name}], without it"


def _read_schemas(path: Path, settings: Settings) -> dict[str, dict[str, object]]:
    places = {"": settings.schema_file, **{name: item.schema_file for name, item in settings.profiles.items()}}
    schemas, faults = {}, []
    for name, file in places.items():
        if file is None:
            continue
        try:
            schemas[name], _ = read_schema(path.parent / file)
        except ValueError as error:
            faults.append(f"at {f'profiles.{name}.schema' if name else 'schema'}: {error}")
    if faults:
        raise ConfigurationError(report(path, faults))
    return schemas


def read_file(path: Path) -> bytes:
    """Read a small regular file: a daemon that reads it again must not wait for a FIFO or read a whole disk.

    Raises:
        OSError: If it cannot be read, is not a regular file, or is longer than `MAX_FILE_BYTES`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {MAX_FILE_BYTES} bytes", str(path))
    return raw


def read_schema(path: Path) -> tuple[dict[str, object], str]:
    """Read a JSON schema.

    Returns:
        The schema, and its path in the file if that is an envelope around it, e.g. `json_schema.schema`; else "".

    Raises:
        ValueError: If it cannot be used; the message is the reason.
    """
    try:
        schema = json.loads(read_file(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(schema, dict) or not schema:
        raise ValueError(f"{path} is not a JSON schema: it must hold an object")
    inner, place = unwrapped(schema)
    why = why_no_schema(inner) or check_schema(inner)
    if why:
        raise ValueError(f"{path} is not a JSON schema that can be held to: {why}")
    return dict(inner), place


def report(path: Path, faults: Iterable[str]) -> str:
    """Return the message of a `ConfigurationError`: what is wrong with a configuration, each fault with its place."""
    found = list(faults)
    if len(found) == 1:
        return f"the configuration {path} is wrong {found[0]}"
    return f"the configuration {path} has {len(found)} faults:\n" + "\n".join(f"  {fault}" for fault in found)


def _plain(message: str) -> str:
    """Return one of pydantic's messages in the words of a configuration."""
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message[0].lower() + message[1:]


def _sentence(item: ErrorDetails) -> str:
    """Return one of pydantic's errors as `at requests.num_ctx: must be …`."""
    parts = [str(part) for part in item["loc"] if part != "[key]"]  # pydantic marks a fault of the key itself so
    place = ".".join(part if BARE_KEY.fullmatch(part) else f'"{printable(part)}"' for part in parts)
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(parts[-1], KEYS, 1)
        guess = f"did you mean `{near[0]}`? " if near else ""
        if parts[-1] in _ELSEWHERE or parts[-1] in OPTION_TYPES:
            guess = f"write {_ELSEWHERE.get(parts[-1], f'options = {{{parts[-1]} = …}}')}; "
        if near == [parts[-1]]:  # it is a key of another table
            places = ["the top level"] if parts[-1] in Settings.model_fields else []
            places += [f"[{table}]" for table, model in TABLES.items() if parts[-1] in model.model_fields]
            guess = f"it belongs into {' or '.join(places)}; " if places else ""
        return f"at {place}: unknown key; {guess}`obcd check --keys` lists the keys there are"
    if item["type"] == "value_error":
        message = str(item["ctx"]["error"])
    else:
        message = _plain(item["msg"])
        if item["type"] in ("model_type", "dict_type"):
            is_endpoint = parts[0] == "ollama_instances" and len(parts) == 2
            message = "must be " + ("a GPU index (0) or a table ({gpu = 0, slots = 4})" if is_endpoint else "a table")
        if item["type"] == "tuple_type":
            message = "must be a list"
        if not isinstance(item["input"], dict | list):
            value = item["input"]
            message += f", not {str(value).lower() if isinstance(value, bool) else repr(value):.60}"
    return f"at {place}: {message}" if place else f"at {message}"
