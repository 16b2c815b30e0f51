"""The types of the configuration's values, and `Table`, the base of its tables."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from obcd.config.descriptions import add_descriptions
from obcd.config.endpoints import parse_endpoint
from obcd.core.forecasting.windows import EXAMPLE, EXAMPLE_OF_LIST, Windows
from obcd.core.request.lines import OPTION_RANGES, check_options, check_think
from obcd.core.request.templates import MAX_FIELD_LENGTH, parse_template
from obcd.core.tables.file_format import is_delimiter
from obcd.errors import LineError

#: Longest `unix:PATH`: a path in `sockaddr_un` has 107 bytes, unix(7).
MAX_SOCKET_BYTES = 107 + len("unix:")
#: Most repairs of one answer: a model that ignores ten corrections ignores the next one too.
MAX_REPAIRS = 10
#: The limits of a context, in tokens (Ollama makes 4 of 0), and the context where nothing else is set.
MIN_CONTEXT, MAX_CONTEXT = OPTION_RANGES["num_ctx"]
CONTEXT = 8192


def _checked_options(value: object) -> object:
    try:
        options = {} if value is None else check_options(value)
    except LineError as error:
        raise ValueError(str(error)) from None
    for key in ("num_ctx", "num_predict"):
        if key in options:  # here it would take precedence over the key beside `options`, a profile's included
            raise ValueError(f"`{key}` has its own key beside `options`: set it there")
    return value


def _checked_think(value: object) -> object:
    try:
        return check_think(value)
    except LineError as error:
        raise ValueError(str(error)) from None


def _checked_slots(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024
    if value != "auto" and not is_count:
        raise ValueError(f'must be "auto" or a number from 1 to 1024, not {value!r:.60}')
    return value


def _checked_context(value: object) -> object:
    is_length = isinstance(value, int) and not isinstance(value, bool) and MIN_CONTEXT <= value <= MAX_CONTEXT
    if value not in (None, "auto") and not is_length:
        raise ValueError(f'must be "auto" or a number from {MIN_CONTEXT} to {MAX_CONTEXT}, not {value!r:.60}')
    return value


def _checked_endpoint(name: str) -> str:
    parse_endpoint(name)
    return name


def _checked_profile(name: str) -> str:
    if not name or not name.isprintable() or "/" in name or name.startswith(".") or len(name.encode()) > 100:
        raise ValueError("it cannot be a profile: its name must be valid as the name of a folder")
    return name


def _checked_template(value: str) -> str:
    parse_template(value)
    return value


def _listed_window(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"must be text or a list of texts, e.g. {EXAMPLE} or {EXAMPLE_OF_LIST}, not {value!r:.60}")
    return tuple(value)


def _checked_window(value: tuple[str, ...]) -> tuple[str, ...]:
    Windows.parse(value)
    return value


def _checked_delimiter(value: str) -> str:
    if not is_delimiter(value):
        raise ValueError(f'must be one character, such as ";", and no quote or line break, not {value!r:.60}')
    return value


def _checked_listen(value: str) -> str:
    """Check a place to listen at that nobody on the network reaches.

    Raises:
        ValueError: With the reason.
    """
    if value.startswith("unix:"):
        if not value.startswith("unix:/") or len(os.fsencode(value)) > MAX_SOCKET_BYTES:
            raise ValueError(
                f"a unix socket has an absolute path of at most 107 bytes: unix:/run/obcd-api/socket, not {value!r:.60}"
            )
        return value
    try:
        endpoint = parse_endpoint(value)
    except ValueError:
        raise ValueError(f'must be "127.0.0.1:PORT" or "unix:/PATH", not {value!r:.60}') from None
    if endpoint.prefix or endpoint.url != f"http://{value}":
        raise ValueError(f'must be "127.0.0.1:PORT" or "unix:/PATH", not {value!r:.60}')
    if not endpoint.is_loopback:
        raise ValueError(
            f"{value!r:.60} is reached from other machines, and without TLS anybody on the way can read tokens and "
            "prompts: listen on 127.0.0.1 or a unix socket, behind a proxy that has TLS"
        )
    return value


Options = Annotated[dict[str, object], BeforeValidator(_checked_options)]
Think = Annotated[bool | str | None, BeforeValidator(_checked_think)]
Template = Annotated[str, AfterValidator(_checked_template)]
#: Aliases of models: {the name in the lines: the model that gets the request}.
Aliases = dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]
FieldName = Annotated[str, Field(min_length=1, max_length=MAX_FIELD_LENGTH)]
#: The file formats that are accepted beside JSONL, and those packed by gzip, xz or zstd (`file_format.WORDS`).
Accept = tuple[Literal["jsonl", "json", "csv", "tsv", "parquet", "gz", "xz", "zst"], ...]
#: Names of parameters and keys that are dropped from a line if they cannot be honoured.
Ignore = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(max_length=100)]
Delimiter = Annotated[str, AfterValidator(_checked_delimiter)]
Repeat = Literal["run", "skip"]
Digest = Literal["same", "any"]
Thoughts = Literal["move", "keep"]
Empty = Literal["keep", "retry", "fail"]
PrefixAffinity = Literal["auto", "off"]
#: Windows of the week (`obcd.core.forecasting.windows`): one text, or several.
Window = Annotated[tuple[str, ...], BeforeValidator(_listed_window), AfterValidator(_checked_window)]
Slots = Annotated[int | Literal["auto"], BeforeValidator(_checked_slots)]
Context = Annotated[int | Literal["auto"], BeforeValidator(_checked_context)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
Listen = Annotated[str, AfterValidator(_checked_listen)]
EndpointName = Annotated[str, AfterValidator(_checked_endpoint)]
ProfileName = Annotated[str, AfterValidator(_checked_profile)]


class Table(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, json_schema_extra=add_descriptions)
