"""Ports that are free, and the address that a host registers."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from obcd.cli.host.common import address_to_register
from obcd.config.tables import Host
from obcd.errors import ConfigurationError, UsageError
from obcd.host.servers import binding
from obcd.host.servers.binding import PortRange, choose_ports, own_address, parse_ports
from tests.golden.wording import wording
from tests.gpu_support import free_base


@pytest.mark.parametrize(("text", "ports"), [("0", (0, 0)), ("11432", (11432, 11432)), ("20000-20999", (20000, 20999))])
def test_ports_are_any_one_or_a_range(text: str, ports: tuple[int, int]) -> None:
    assert parse_ports(text) == PortRange(*ports)


@pytest.mark.parametrize("text", ["", "-1", "0-9", "9-1", "65536", "1-70000", "ten", "1-2-3", "1e3"])
def test_other_words_are_no_ports(text: str) -> None:
    with pytest.raises(UsageError, match="--port"):
        parse_ports(text)


def test_any_ports_are_free_and_different() -> None:
    ports = choose_ports("127.0.0.1", ["a", "b", "c"], PortRange(0, 0))

    assert len(set(ports)) == 3
    assert all(binding.is_free("127.0.0.1", port) for port in ports)


def test_a_card_has_the_same_place_in_a_range_and_two_cards_begin_at_different_ones() -> None:
    base = free_base(100)
    wanted = PortRange(base, base + 99)

    first = [choose_ports("127.0.0.1", [card], wanted)[0] for card in ("GPU-1", "GPU-2", "GPU-3", "GPU-1")]

    assert first[0] == first[3]
    assert len(set(first)) == 3
    assert all(base <= port < base + 100 for port in first)


def test_a_port_that_is_held_is_passed_over_until_the_range_is_full() -> None:
    base = free_base(3)
    wanted = PortRange(base, base + 2)
    with socket.socket() as held:
        held.bind(("127.0.0.1", base + 1))
        held.listen()

        assert sorted(choose_ports("127.0.0.1", ["a", "b"], wanted)) == [base, base + 2]
        with pytest.raises(ConfigurationError, match=wording("has-no-free-port-of")):
            choose_ports("127.0.0.1", ["a", "b", "c"], wanted)


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_up(*addresses: str) -> None:
        def look_up(*_: object, **__: object) -> list[tuple[object, ...]]:
            if not addresses:
                raise socket.gaierror(-2, "Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return set_up


@pytest.mark.parametrize(
    ("addresses", "own"),
    [
        (("127.0.1.1", "10.0.0.11"), "10.0.0.11"),
        (("10.0.0.11", "10.0.0.11", "fd00::11"), "10.0.0.11"),  # both families of one machine
        (("fe80::1%eth0", "::1", "fd00::11"), "fd00::11"),
    ],
)
def test_the_own_address_is_the_one_that_the_name_resolves_to(
    resolve: Callable[..., None], addresses: tuple[str, ...], own: str
) -> None:
    resolve(*addresses)
    assert own_address() == own


@pytest.mark.parametrize("addresses", [(), ("127.0.1.1",), ("10.0.0.11", "192.168.1.2"), ("fd00::1", "fd00::2")])
def test_without_one_such_address_the_person_has_to_choose(
    resolve: Callable[..., None], addresses: tuple[str, ...]
) -> None:
    resolve(*addresses)
    with pytest.raises(ConfigurationError, match="--bind"):
        own_address()


def test_the_address_to_register_is_given_configured_or_the_own_one(resolve: Callable[..., None]) -> None:
    resolve("10.0.0.11")

    assert address_to_register(Host(), None) == "10.0.0.11"
    assert address_to_register(Host(bind="10.0.0.5"), None) == "10.0.0.5"
    assert address_to_register(Host(bind="10.0.0.5"), "FD00::5") == "fd00::5"
    assert address_to_register(Host(), "127.0.0.1") == "127.0.0.1"  # a coordinator on this machine accepts it


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "gpu1.example.org", "93.184.216.34", ""])
def test_all_addresses_names_and_public_ones_are_not_registered(bind: str, resolve: Callable[..., None]) -> None:
    resolve("127.0.1.1")
    with pytest.raises(ConfigurationError, match="--bind"):
        address_to_register(Host(), bind)
