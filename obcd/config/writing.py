"""Write a configuration for servers that were just started: the user's own, with other endpoints."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import toml

from obcd.config.loading import read_document
from obcd.errors import ConfigurationError


def with_endpoints(source: Path | None, endpoints: Mapping[str, Mapping[str, int]], model: str | None = None) -> str:
    """Return a configuration as TOML: `source` with its endpoints replaced.

    Args:
        source: A configuration that has been checked; None for the defaults.
        endpoints: E.g. `{"127.0.0.1:40001": {"gpu": 0, "slots": 4}}`.
        model: The default model; None keeps it.

    Raises:
        ConfigurationError: If the written text would not read back as the same values.
    """
    document = read_document(source) if source is not None else {}
    document["ollama_instances"] = {name: dict(value) for name, value in endpoints.items()}
    if model is not None:
        document["model"] = model
    if source is not None:
        _make_files_absolute(document, source.absolute().parent)
    text = toml.dumps(document)
    if tomllib.loads(text) != document:  # `toml` writes some strings so that they read back differently
        raise ConfigurationError(f"{source} holds a value that cannot be written again: simplify its strings")
    return text


def _make_files_absolute(document: dict[str, object], folder: Path) -> None:
    """Make the paths of schemas and secrets absolute: they are relative to the configuration that names them."""
    profiles = document.get("profiles")
    for table in (document, *(profiles.values() if isinstance(profiles, dict) else ())):
        notify = table.get("notify")
        for place, key in ((table, "schema"), (notify, "webhook_secret_file")):
            if isinstance(place, dict) and (file := place.get(key)):
                place[key] = str(folder / str(file))
