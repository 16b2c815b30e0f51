"""Ollama's environment variables, and flags over them."""

from __future__ import annotations

import math

import pytest

from obcd.errors import UsageError
from obcd.standins.wire.settings import ServerSettings, keep_alive_seconds, settings_from, split_host


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 0)),
        ("0.0.0.0", ("0.0.0.0", 11434)),
        ("127.0.0.1:11432", ("127.0.0.1", 11432)),
        (":11433", ("0.0.0.0", 11433)),
        ("http://gpu1:8080/", ("gpu1", 8080)),
        ("https://gpu1", ("gpu1", 443)),
        ("[::1]:11434", ("::1", 11434)),
        ("::1", ("::1", 11434)),
    ],
)
def test_ollama_host_is_read_as_ollama_does(text: str, address: tuple[str, int]) -> None:
    assert split_host(text) == address


def test_flags_win_over_the_environment() -> None:
    environ = {"OLLAMA_HOST": "0.0.0.0:1", "OLLAMA_NUM_PARALLEL": "8", "OLLAMA_CONTEXT_LENGTH": "2048"}

    plain = settings_from(environ)
    flagged = settings_from(environ, host="127.0.0.1", port=2, parallel=3, context=512)

    assert (plain.host, plain.port, plain.limits.parallel, plain.context_length) == ("0.0.0.0", 1, 8, 2048)
    assert (flagged.host, flagged.port, flagged.limits.parallel, flagged.context_length) == ("127.0.0.1", 2, 3, 512)
    assert (flagged.is_loopback, plain.is_loopback) == (True, False)
    assert settings_from({}) == ServerSettings()


def test_keep_alive_is_a_duration_or_seconds_or_for_ever() -> None:
    assert [keep_alive_seconds(text) for text in ("", "10m", "90", "-1", "0")] == [300, 600, 90, math.inf, 0]


@pytest.mark.parametrize(
    "environ",
    [
        {"OLLAMA_NUM_PARALLEL": "many"},
        {"OLLAMA_NUM_PARALLEL": "0"},
        {"OLLAMA_HOST": "gpu1:port"},
        {"OLLAMA_HOST": "gpu1:70000"},
        {"OLLAMA_KEEP_ALIVE": "soon"},
    ],
)
def test_variable_that_cannot_be_meant_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(environ))):
        settings_from(environ)
