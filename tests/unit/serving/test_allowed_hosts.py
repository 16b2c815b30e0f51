from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.serving.allowed_hosts import AllowedHosts

HOSTS = AllowedHosts.of(("obcd.example.org", "Gpu1:8080", "not a name"))


@pytest.mark.parametrize(
    "header",
    [
        "localhost", "localhost:8620", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8620", "[::1]", "[::1]:8620",
        "localhost.", "obcd.example.org", "OBCD.example.ORG:443", "gpu1", "gpu1:9", "gpu1.",
    ],
)  # fmt: skip
def test_own_names_are_allowed_with_any_port(header: str) -> None:
    assert HOSTS.allows(header)


@pytest.mark.parametrize(
    "header",
    [
        "", " ", "evil.example", "localhost.evil.example", "evil.example:8620", "localhost@evil.example", "not a name",
        "127.0.0.1.evil.example", "[::1", "::1", "[::2]", "localhost:x", "localhost:123456", "localhost evil.example",
        "localhost,evil.example", "obcd.example.org.evil.example", "xobcd.example.org", "loc\u0430lhost", "0.0.0.0",
        "localhost/", "http://localhost", "localhost#", "localhost\x00", "10.0.0.7", "localhost..",
    ],
)  # fmt: skip
def test_other_names_are_refused(header: str) -> None:
    assert not HOSTS.allows(header)


def test_address_that_was_connected_to_is_allowed_and_no_other() -> None:
    assert HOSTS.allows("10.0.0.7:8620", "10.0.0.7")
    assert HOSTS.allows("[fd00::7]:8620", "fd00:0:0::7")
    assert not HOSTS.allows("10.0.0.8", "10.0.0.7")
    assert not HOSTS.allows("evil.example", "10.0.0.7")


@given(st.text(max_size=300), st.text(max_size=20))
def test_no_header_raises_and_few_are_allowed(header: str, address: str) -> None:
    allowed = AllowedHosts().allows(header, address)

    assert not allowed or header.lower().rstrip(".").startswith(("localhost", "127.0.0.1", "[::1]"))
