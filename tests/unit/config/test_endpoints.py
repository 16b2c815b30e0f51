"""Where prompts would travel in the open, by an endpoint's address."""

from __future__ import annotations

import pytest

from obcd.config.endpoints import misplaced_path, parse_endpoint
from tests.golden.wording import wording

PLAIN, ENCRYPTED, NOWHERE = "anybody on the way can read", "encrypted", "cannot be connected to"


@pytest.mark.case("F19")
@pytest.mark.parametrize(
    ("name", "peer", "words"),
    [
        ("127.0.0.1:11434", "", ""),
        ("[::1]:11434", "", ""),
        ("10.1.2.3:11434", "", ""),
        ("192.168.1.5", "", ""),
        ("[fd00::1]:11434", "", ""),
        ("[fe80::1]:11434", "", ""),
        ("100.64.0.9:11434", "", ""),  # a private overlay network, as VPNs use it
        ("8.8.8.8:11434", "", PLAIN),
        ("http://8.8.8.8", "", PLAIN),
        ("[2001:4860:4860::8888]:11434", "", PLAIN),
        ("[::ffff:8.8.8.8]:11434", "", PLAIN),
        ("https://8.8.8.8", "", ENCRYPTED),
        ("0.0.0.0:11434", "", NOWHERE),
        ("[::]:11434", "", NOWHERE),
        ("gpu.example.org:11434", "", ""),  # a name says nothing until it was reached
        ("gpu.example.org:11434", "10.0.0.1", ""),
        ("gpu.example.org:11434", "8.8.8.8", PLAIN),
        ("https://gpu.example.org", "8.8.8.8", ENCRYPTED),
        ("gpu.example.org:11434", "fe80::1%eth0", ""),
    ],
)
def test_endpoint_in_the_open_is_told_by_its_address(name: str, peer: str, words: str) -> None:
    found = parse_endpoint(name, 0, 1).exposure(peer)

    assert (words in found) if words else (found == "")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("localhost:1", True), ("127.8.0.1", True), ("[::1]", True), ("10.0.0.1", False), ("h", False)],
)
def test_this_machine_is_told_by_its_name(name: str, expected: bool) -> None:
    assert parse_endpoint(name, 0, 1).is_loopback is expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("127.0.0.1:11434/v1", "/v1"),
        ("http://gpu1:11434/v1/", "/v1"),
        ("127.0.0.1:11434/api", "/api"),
        ("127.0.0.1:11434/api/chat", "/api/chat"),
        ("https://gpu.example.org/ollama/api/", "/api"),
        ("127.0.0.1:11434/v1/chat/completions", "/v1/chat/completions"),
        ("127.0.0.1:11434", ""),
        ("https://gpu.example.org/ollama", ""),
        ("https://gpu.example.org/api/ollama", ""),
        ("v1:11434", ""),
    ],
)
def test_path_of_an_api_at_the_end_of_an_endpoint_is_named(name: str, path: str) -> None:
    advice = misplaced_path(parse_endpoint(name).url)

    assert advice.startswith(wording("take-the-path-off", path)) if path else advice == ""
