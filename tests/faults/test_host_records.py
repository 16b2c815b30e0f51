"""Mutated records by the thousand: none is obeyed that should not be, and none stops the scan of the others."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from obcd.hosts.record import MAX_RECORD_BYTES, CardReading, HostRecord, HostState, RegisteredEndpoint, encode_record
from obcd.hosts.roster import Roster, Rules
from obcd.hosts.scan import Scanner

#: Mutations in `make test` and in `make soak`, and records of one folder.
FEW, MANY, IN_A_FOLDER = 2_000, 1_000_000, 200
OWN = os.geteuid()
SEED = HostRecord(
    id="x",
    boot="b",
    sequence=1,
    state=HostState.SERVING,
    until=2e9,
    seconds_left=60.0,
    machine_id="other",
    by="slurm 4711_2",
    endpoints=tuple(
        RegisteredEndpoint(url=f"http://10.0.0.11:{port}", gpu_uuid="GPU-1", slots=16, version="0.33.0")
        for port in (11432, 11433)
    ),
    cards=(CardReading(uuid="GPU-1", utilization=0.5, memory_used_bytes=1, power_watts=300.0),),
)
#: Values in the place of any other.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, 1e308, -1e308, "", "x", "a" * 300,
    "\n", "\x1b[2J", "\u202e", "\ud800", "\0", [], {}, [[]], [{}], {"url": 1}, "serving", "gone", "draining", "dead",
    "http://8.8.8.8:80", "http://127.0.0.1:80", "http://10.0.0.1:80/", "http://10.0.0.1:80/x", "http://a@10.0.0.1:80",
    "http://10.0.0.1", "http://0.0.0.0:80", "http://169.254.169.254:80", "http://[::1]:80", "http://[fd00::1]:80",
    "http://[::ffff:8.8.8.8]:80", "https://192.168.0.1:443", "file:///etc/passwd", "http://10.0.0.1:80#@8.8.8.8:80",
    "http://10.0.0.1:99999", "http://10.0.0.1:-1", "http://1.2.3:80", "http://localhost:80", "//10.0.0.1:80",
)  # fmt: skip
#: Bytes in the place of others.
TOKENS = (
    b"", b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"\0",
    b"NaN", b"Infinity", b"-", b"1e999", b"9" * 400, b"9" * 5000, b"null", b"true", b"[" * 2000, b'{"a":' * 500,
    b" " * 70_000,
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values within a document."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path for key, item in items for path in ((*at, key), *places(item, (*at, key)))]


def change_value(document: Any, dice: random.Random) -> None:
    path = dice.choice(places(document))
    for key in path[:-1]:
        document = document[key]
    if dice.random() < 0.2:
        del document[path[-1]]
    else:
        document[path[-1]] = deepcopy(dice.choice(VALUES))


def mutate(name: str, dice: random.Random) -> bytes:
    document = {**SEED.to_json(), "id": name}
    document = json.loads(json.dumps(document))
    for _ in range(dice.randrange(4)):
        change_value(document, dice)
        if not places(document):
            break
    raw = json.dumps(document).encode()
    for _ in range(dice.choice((0, 0, 1, 2))):
        start = dice.randrange(len(raw) + 1)
        raw = raw[:start] + dice.choice(TOKENS) + raw[start + dice.randrange(20) :]
    return raw[: dice.randrange(len(raw) + 1)] if dice.random() < 0.1 else raw


def assert_allowed(url: str) -> None:
    """Judge a URL by other means than obcd does."""
    found = re.fullmatch(r"https?://(?:(\d+\.\d+\.\d+\.\d+)|\[([0-9a-f:]+)\]):(\d+)", url)
    assert found, url
    address = ipaddress.ip_address(found[1] or found[2])
    is_private = address.is_private and not (address.is_link_local or address.is_unspecified or address.is_reserved)
    assert is_private, url
    assert not address.is_loopback, url  # the record is of another machine
    assert 0 < int(found[3]) < 65536, url


def fuzz(folder: Path, total: int, dice: random.Random) -> Counter[str]:
    """Scan so many mutated records; return how often each outcome was."""
    outcomes = Counter[str]()
    good = encode_record(HostRecord(**{**{key: getattr(SEED, key) for key in SEED.__slots__}, "id": "good"}))
    (folder / "good.json").write_bytes(good)
    (folder / "good.json").chmod(0o640)
    for _ in range(total // IN_A_FOLDER):
        raws = {f"m{index}": mutate(f"m{index}", dice) for index in range(IN_A_FOLDER)}
        for name, raw in raws.items():
            path = folder / f"{name}.json"
            path.write_bytes(raw)
            path.chmod(0o640)
        scan = Scanner(folder, frozenset((OWN,))).scan()
        roster = Roster()
        roster.observe(type(scan)(place=scan.place), 0.0)
        roster.observe(scan, 1.0)
        offered = roster.endpoints(Rules(machine_id="own", most=10_000))
        assert scan.found.keys() | scan.refused.keys() == raws.keys() | {"good"}
        assert "good" in scan.found
        for item in offered:
            assert_allowed(item.endpoint.url)
            assert item.endpoint.token is None
            assert item.endpoint.slots is None or 1 <= item.endpoint.slots <= 1024
        for standing in roster.standings(1.0):
            assert standing.why.isprintable(), standing
            assert standing.by.isprintable(), standing
        for name, found in scan.found.items():
            assert name == "good" or len(raws[name]) <= MAX_RECORD_BYTES
            assert found.record.id == name
        outcomes["found"] += len(scan.found) - 1
        outcomes["refused"] += len(scan.refused)
        outcomes.update({f"{item.why:.30}": 1 for item in scan.refused.values()})
    return outcomes


def test_no_mutated_record_is_obeyed_that_should_not_be(tmp_path: Path) -> None:
    outcomes = fuzz(tmp_path, FEW, random.Random(5))

    assert min(outcomes["found"], outcomes["refused"]) > FEW / 10
    assert len(outcomes) > 12  # reasons of many kinds


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_no_record_of_a_million_is_obeyed_that_should_not_be(tmp_path: Path) -> None:
    outcomes = fuzz(tmp_path, MANY, random.Random())

    assert outcomes["found"] + outcomes["refused"] > MANY / 10
