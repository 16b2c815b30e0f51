"""The record of a host in the hosts folder: one JSON object a file, `NAME.json`. Pure.

    {"format": 1, "id": "gpu1", "boot": "5f0c…", "sequence": 17, "state": "serving", "until": null,
     "seconds_left": null, "machine_id": "9a41…", "by": "slurm 4711_2",
     "endpoints": [{"url": "http://10.0.0.11:11432", "gpu": 0, "gpu_uuid": "GPU-…", "slots": 16, "version": "0.33.0",
                    "yields": false}],
     "cards": [{"uuid": "GPU-…", "utilization": 0.93, "memory_used_bytes": 17179869184, "power_watts": 300.0, …}]}

A record is untrusted input: of bounded size, and read only by `parse_record`. A reader ignores keys that it does not
know. `obcd.hosts.trust` says whose records count.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NoReturn

from obcd.config.endpoints import Endpoint, parse_endpoint
from obcd.core.documents import Document
from obcd.text import printable

#: The only format so far.
RECORD_FORMAT = 1
#: The end of a record's file name.
SUFFIX = ".json"
#: The largest record, in bytes.
MAX_RECORD_BYTES = 64 * 1024
#: Seconds from one writing of a record to the next.
WRITE_SECONDS = 10.0
#: Names of records: a file name everywhere, and never hidden.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: Most endpoints and cards of a record: eight cards of seven MIG instances each are 56.
MOST_ENDPOINTS = 64
#: Most slots of an endpoint, as in the configuration.
MOST_SLOTS = 1024
#: Longest text of a record, in characters, and largest time, in seconds.
MAX_TEXT, MAX_SECONDS = 200, 1e12
#: Largest reading of a card, e.g. in bytes: people see sums and means of them.
MAX_READING = 1e20
#: Readings of a card that a record has under the same name.
_SAME_READINGS = (
    "uuid", "index", "is_lost", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "power_watts",
    "energy_joules",
)  # fmt: skip
#: The networks of endpoints (RFC 1918, RFC 4193): prompts never leave them. Loopback is a matter of trust.
PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


class HostState(StrEnum):
    """The state that a host writes into its record."""

    SERVING = "serving"  # it takes requests
    DRAINING = "draining"  # it finishes what is in flight and accepts nothing
    GONE = "gone"  # its servers have ended


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredEndpoint(Document):
    """An endpoint of a host.

    Attributes:
        url: `http` or `https`, a literal address and a port, e.g. `http://10.0.0.11:11432`; nothing else.
        gpu: The index of its GPU on the host, which is only shown.
        gpu_uuid: `GPU-…` or `MIG-…`; "" for the CPU.
        slots: Requests in flight at once, 1 to 1024; None: as `[requests] slots` says.
        version: Of its Ollama, "" if it is not known.
        yields: Whether people use it too, who come first (`obcd.core.endpoint.yielding`).
    """

    url: str
    gpu: int = 0
    gpu_uuid: str = ""
    slots: int | None = None
    version: str = ""
    yields: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CardReading(Document):
    """What a card of a host reports, for people; None for a value that it does not report.

    Attributes:
        index: nvidia-smi's; -1 if it is not known.
        name: The product's.
        is_lost: It fell off the bus.
        utilization: Share of the last moment in which it computed, 0 to 1.
        temperature_celsius: Of the chip.
        power_watts: Drawn now.
        energy_joules: Used since its driver was loaded.
        xid_errors: Number of faults (Xid) that the driver reported since the host's watch started.
        last_xid: The code of the last one.
        age_seconds: From the driver's reading until this was written: `energy_joules` and the others are as old.
    """

    uuid: str
    index: int = -1
    name: str = ""
    is_lost: bool = False
    utilization: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    xid_errors: int = 0
    last_xid: int | None = None
    age_seconds: float = 0.0

    @classmethod
    def of(
        cls, readings: Mapping[str, Any], name: str, xids: Mapping[str, Any] | None = None, *, since: float = 0.0
    ) -> CardReading:
        """Return the readings of a card as a record has them.

        Args:
            readings: The fields of `obcd.host.cards.card.Readings`, as in the file of the watch.
            name: The product's.
            xids: Its entry in `xid_counts` of the same file, if it has one.
            since: Seconds since that file was written.
        """
        percent = readings.get("utilisation_percent")
        same: dict[str, Any] = {key: readings.get(key) for key in _SAME_READINGS}
        count = xids or {"count": 0, "last": None}
        return cls(
            name=name,
            utilization=None if percent is None else percent / 100,
            xid_errors=count["count"],
            last_xid=count["last"],
            age_seconds=round(max(0.0, readings.get("age_seconds", 0.0) + since), 1),
            **same,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord(Document):
    """A record.

    Attributes:
        id: The name of its file without `.json`.
        boot: Made at random by each process that registers, so that a new start under the same name shows.
        sequence: Grows with each writing; a change is the only sign of life.
        state: A `HostState`.
        until: When the host's allocation ends, in Unix seconds of its clock, for people; None: it has no end.
        seconds_left: Seconds from this writing until then; the coordinator counts them on its own clock.
        machine_id: Of the host (`obcd.hosts.machine`); "" if it is not known.
        by: What started it, for people, e.g. `slurm 4711_2`.
    """

    format: int = RECORD_FORMAT
    id: str
    boot: str
    sequence: int
    state: str
    until: float | None = None
    seconds_left: float | None = None
    machine_id: str = ""
    by: str = ""
    endpoints: tuple[RegisteredEndpoint, ...] = ()
    cards: tuple[CardReading, ...] = ()


def encode_record(record: HostRecord) -> bytes:
    """Return the content of a record's file.

    Raises:
        ValueError: If no reader would accept it.
    """
    raw = json.dumps(record.to_json()).encode() + b"\n"
    parse_record(raw)
    return raw


def parse_record(raw: bytes) -> HostRecord:
    """Read the content of a record's file; time and memory are linear in its size.

    Raises:
        ValueError: If it is not a valid record; the message is the reason.
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise ValueError(f"it is longer than {MAX_RECORD_BYTES} bytes")
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or not completely written") from None
    number = document.get("format") if isinstance(document, dict) else None
    if type(number) is int and number > RECORD_FORMAT:
        raise ValueError("its format is that of a newer obcd: update obcd on the coordinator's machine")
    try:
        record = HostRecord.from_json(document)
    except RecursionError:  # a fault quotes the value, which may be nested as deep as JSON may be
        raise ValueError("it is nested too deep") from None
    _check(record)
    return record


@lru_cache(maxsize=8192)  # the records of hosts name the same ones again and again
def endpoint_of(url: str) -> Endpoint:
    """Return the endpoint at a URL of a record; its name is `host:port`, with `https://` in front if it is that.

    Raises:
        ValueError: If the URL is not one that a record may hold; the message is the reason.
    """
    if len(url) > MAX_TEXT:
        raise ValueError(f"its endpoint's URL is longer than {MAX_TEXT} characters")
    try:
        found = parse_endpoint(url)
        address = ipaddress.ip_address(found.host)
    except ValueError:
        raise ValueError(f"its endpoint {printable(url)} is not http://ADDRESS:PORT with a literal address") from None
    if url != found.url or found.prefix or str(address) != found.host or "%" in url:
        raise ValueError(f"its endpoint {printable(url)} is not written as http://ADDRESS:PORT, without path or user")
    if not address.is_loopback and not any(address in network for network in PRIVATE):
        raise ValueError(f"its endpoint {url} has no private address")
    return parse_endpoint(url.removeprefix("http://"))


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(word)  # NaN and Infinity are not JSON


def _check(record: HostRecord) -> None:
    """Refuse values outside their limits; `Document` has checked their types."""
    times = [seconds for seconds in (record.until, record.seconds_left) if seconds is not None]
    limits = {
        f"its format is not {RECORD_FORMAT}": record.format == RECORD_FORMAT,
        "its id is not a valid name": NAME.fullmatch(record.id) is not None,
        "its state is not serving, draining or gone": record.state in set(HostState),
        "its boot or sequence is not valid": record.boot != "" and 0 <= record.sequence < 2**63,
        "its until is not a time": all(abs(seconds) < MAX_SECONDS for seconds in times),
        f"it names more than {MOST_ENDPOINTS} endpoints or cards": (
            max(len(record.endpoints), len(record.cards)) <= MOST_ENDPOINTS
        ),
        f"a text in it is longer than {MAX_TEXT} characters, or cannot be printed": all(map(_is_text, _texts(record))),
        "the readings of its cards are out of range": all(abs(value) < MAX_READING for value in _readings(record)),
        "it names an endpoint twice": len({item.url for item in record.endpoints}) == len(record.endpoints),
    }
    for fault, holds in limits.items():
        if not holds:
            raise ValueError(fault)
    for item in record.endpoints:
        endpoint_of(item.url)
        if not 0 <= item.gpu <= MOST_SLOTS or (item.slots is not None and not 1 <= item.slots <= MOST_SLOTS):
            raise ValueError(f"the slots or the GPU of its endpoint {item.url} are out of range")


def _texts(record: HostRecord) -> Iterable[str]:
    yield from (record.boot, record.machine_id, record.by)
    for item in record.endpoints:
        yield from (item.gpu_uuid, item.version)
    for card in record.cards:
        yield from (card.uuid, card.name)


def _readings(record: HostRecord) -> Iterable[float]:
    for card in record.cards:
        found = (card.utilization, card.memory_used_bytes, card.memory_total_bytes, card.temperature_celsius)
        yield from (value for value in (*found, card.power_watts, card.index, card.age_seconds) if value is not None)


def _is_text(text: str) -> bool:
    return len(text) <= MAX_TEXT and text.isprintable()
