"""The settings of a stand-in server from Ollama's environment variables (contract 4.2, envconfig/config.go).

Pure: the environment is an argument; options of the commands override it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from obcd.config.endpoints import is_loopback
from obcd.errors import UsageError
from obcd.standins.wire.engine import EngineError
from obcd.standins.wire.model_scheduler import SchedulerLimits
from obcd.standins.wire.request_values import parse_duration

#: Ollama's default context with less than 23 GiB of GPU memory, in tokens
DEFAULT_CONTEXT = 4096

#: where Ollama listens by default
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """One server's settings."""

    host: str = DEFAULT_HOST
    port: int = 0  # 0 = a free one
    limits: SchedulerLimits = field(default_factory=SchedulerLimits)
    context_length: int = DEFAULT_CONTEXT  # tokens, if a request names no context

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach the server."""
        return is_loopback(self.host)


def settings_from(
    environ: Mapping[str, str],
    *,
    host: str | None = None,
    port: int | None = None,
    parallel: int | None = None,
    context: int | None = None,
) -> ServerSettings:
    """Return the settings of the environment, overridden by the options of the command.

    Raises:
        UsageError: a variable has an invalid value; Ollama would use its default, which hides the mistake.
    """
    named_host, named_port = split_host(environ.get("OLLAMA_HOST", ""))
    limits = SchedulerLimits(
        parallel=parallel if parallel is not None else whole_number(environ, "OLLAMA_NUM_PARALLEL", 1, least=1),
        max_queue=whole_number(environ, "OLLAMA_MAX_QUEUE", 512, least=1),
        max_loaded=whole_number(environ, "OLLAMA_MAX_LOADED_MODELS", 1, least=1),
        keep_alive=keep_alive_seconds(environ.get("OLLAMA_KEEP_ALIVE", "")),
    )
    found = whole_number(environ, "OLLAMA_CONTEXT_LENGTH", 0, least=0)
    return ServerSettings(
        host=host if host is not None else named_host,
        port=port if port is not None else named_port,
        limits=limits,
        context_length=context if context is not None else found or DEFAULT_CONTEXT,
    )


def split_host(text: str) -> tuple[str, int]:
    """Return host and port of OLLAMA_HOST: `host`, `host:port`, `:port` (all interfaces), `http://host:port`."""
    if not text:
        return DEFAULT_HOST, 0
    scheme, _, rest = text.rpartition("://")
    rest = rest.partition("/")[0]
    default_port = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT)
    if rest.count(":") > 1 and not rest.startswith("["):
        return rest, default_port
    name, mark, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not mark:
        return rest.strip("[]") or DEFAULT_HOST, default_port
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"OLLAMA_HOST={text}: the port is no number below 65536; give it as host:port.")
    return name.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - `:port` binds all interfaces in Ollama too


def keep_alive_seconds(text: str) -> float:
    """Return OLLAMA_KEEP_ALIVE in seconds: a Go duration or whole seconds, negative = for ever."""
    if not text:
        return SchedulerLimits().keep_alive
    try:
        seconds = float(text) if text.lstrip("+-").isdigit() else parse_duration(text)
    except EngineError as error:
        raise UsageError(f"OLLAMA_KEEP_ALIVE={text}: {error.text}; write 5m, 1h30m, 300 or -1.") from error
    return math.inf if seconds < 0 else seconds


def whole_number(environ: Mapping[str, str], name: str, default: int, least: int) -> int:
    """Return a whole number of the environment, or its default if it is not set."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise UsageError(f"{name}={text}: this must be a whole number, at least {least}.")
    return int(text)
