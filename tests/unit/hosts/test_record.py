from __future__ import annotations

import json
from dataclasses import replace

import pytest

from obcd.hosts.record import (
    MAX_RECORD_BYTES,
    CardReading,
    HostRecord,
    HostState,
    RegisteredEndpoint,
    encode_record,
    endpoint_of,
    parse_record,
)

RECORD = HostRecord(
    id="gpu1",
    boot="b1",
    sequence=17,
    state=HostState.SERVING,
    until=1e9,
    seconds_left=600.0,
    machine_id="m1",
    by="slurm 4711_2",
    endpoints=(RegisteredEndpoint(url="http://10.0.0.11:11432", gpu_uuid="GPU-1", slots=16, version="0.33.0"),),
    cards=(
        CardReading(
            uuid="GPU-1",
            utilization=0.93,
            memory_used_bytes=2**34,
            power_watts=300.0,
            energy_joules=9e8,
            xid_errors=1,
            last_xid=79,
        ),
    ),
)


def test_record_survives_its_file() -> None:
    assert parse_record(encode_record(RECORD)) == RECORD


def test_record_of_the_reference_is_read_and_further_keys_are_ignored() -> None:
    raw = b"""{"format": 1, "id": "gpu1", "boot": "x", "sequence": 17, "state": "serving", "until": null, "later": {},
        "endpoints": [{"url": "http://10.0.0.11:11432", "gpu_uuid": "GPU-1", "gpu": 0, "slots": 16,
                       "version": "0.33.0", "later": 1}],
        "cards": [{"uuid": "GPU-1", "utilization": 0.93, "memory_used_bytes": 1, "power_watts": 300}],
        "by": "slurm 4711_2"}"""

    record = parse_record(raw)

    assert (record.sequence, record.endpoints[0].slots, record.cards[0].power_watts) == (17, 16, 300.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": 10**400},
        {"format": 0},
        {"format": True},
        {"id": "../gpu1"},
        {"id": ".gpu1"},
        {"id": ""},
        {"boot": ""},
        {"boot": "x" * 201},
        {"by": "a\u202eb"},
        {"by": "\ud800"},
        {"by": "a\nb"},
        {"sequence": -1},
        {"sequence": 2**63},
        {"sequence": 1.5},
        {"state": "STOPPED"},
        {"until": 1e300},
        {"seconds_left": -1e300},
        {"machine_id": 5},
        {"cards": [{"uuid": "GPU-1", "memory_used_bytes": 10**400}]},
        {"cards": [{"uuid": "GPU-1", "power_watts": -1e300}]},
        {"endpoints": [{"url": "http://10.0.0.11:11432"}] * 2},
        {"endpoints": [{"url": f"http://10.0.0.11:{port}"} for port in range(1, 66)]},
        {"endpoints": [{"url": "http://10.0.0.11:11432", "slots": 0}]},
        {"endpoints": [{"url": "http://10.0.0.11:11432", "slots": 1025}]},
        {"endpoints": [{"url": "http://10.0.0.11:11432", "gpu": -1}]},
        {"endpoints": [{"url": "http://10.0.0.11:11432", "version": "\x1b[2J"}]},
        {"endpoints": {}},
        {"cards": [{"uuid": "x", "power_watts": "300"}]},
    ],
)
def test_values_outside_their_limits_refuse_the_record(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_record(json.dumps({**RECORD.to_json(), **changes}).encode())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"format": NaN}', encode_record(RECORD)[:-30], b"9" * 5000],
)
def test_what_is_not_a_record_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_record(raw)


def test_record_above_the_limit_of_bytes_is_refused() -> None:
    raw = encode_record(RECORD)

    parse_record(raw.ljust(MAX_RECORD_BYTES))
    with pytest.raises(ValueError, match=str(MAX_RECORD_BYTES)):
        parse_record(raw.ljust(MAX_RECORD_BYTES + 1))


def test_no_record_is_written_that_no_coordinator_accepts() -> None:
    with pytest.raises(ValueError, match="private"):
        encode_record(replace(RECORD, endpoints=(RegisteredEndpoint(url="http://8.8.8.8:11432"),)))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://10.0.0.11:11432", "10.0.0.11:11432"),
        ("http://172.31.0.1:80", "172.31.0.1:80"),
        ("https://192.168.1.1:443", "https://192.168.1.1:443"),
        ("http://[fd00::1]:11432", "[fd00::1]:11432"),
        ("http://127.0.0.1:11432", "127.0.0.1:11432"),
        ("http://[::1]:11432", "[::1]:11432"),
    ],
)
def test_literal_private_address_is_an_endpoint(url: str, name: str) -> None:
    endpoint = endpoint_of(url)

    assert (endpoint.url, endpoint.name, endpoint.token) == (url, name, None)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://10.0.0.11:11432",
        "10.0.0.11:11432",
        "http://gpu1:11432",
        "http://localhost:11432",
        "http://8.8.8.8:11432",
        "http://172.32.0.1:11432",
        "http://0.0.0.0:11432",
        "http://169.254.169.254:80",
        "http://[fe80::1]:80",
        "http://[fd00::1%eth0]:80",
        "http://[::ffff:10.0.0.1]:80",
        "http://[FD00::1]:80",
        "http://10.1:80",
        "http://010.0.0.1:80",
        "http://167772161:80",
        "http://10.0.0.11",
        "http://10.0.0.11:0",
        "http://10.0.0.11:65536",
        "http://10.0.0.11:011432",
        "http://10.0.0.11:11432/",
        "http://10.0.0.11:11432/api",
        "http://10.0.0.11:11432?a=b",
        "http://10.0.0.11:11432#a",
        "http://user@10.0.0.11:11432",
        "http://user:secret@10.0.0.11:11432",
        "HTTP://10.0.0.11:11432",
        "http://10.0.0.11:11432\n",
        " http://10.0.0.11:11432",
        "http://10.0.0.11:11432@8.8.8.8:80",
        "http://10.0.0.11\\@8.8.8.8:80",
        "http://１0.0.0.11:80",
        "http://10.0.0.11:" + "0" * 300 + "80",
        "",
    ],
)
def test_anything_else_is_no_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        endpoint_of(url)
