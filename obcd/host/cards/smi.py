"""nvidia-smi, the driver's command: the same answers as NVML where the package nvidia-ml-py is not installed.

It can hang on a sick driver, so every call has a time limit; killed after it, it may stay as a process that waits for
the driver, and is left alone.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import subprocess
import time
from collections.abc import Collection
from functools import partial

from obcd.host.cards.card import Card, GpuError, MigInstance, Readings, Reason, no_gpu, throttle_words
from obcd.logs import printable

#: The last since R450; Ollama itself needs a later driver.
CARD_FIELDS = ("index", "uuid", "name", "memory.total", "pci.bus_id", "mig.mode.current")
READING_FIELDS = (
    "index",
    "uuid",
    "utilization.gpu",
    "memory.used",
    "memory.total",
    "temperature.gpu",
    "power.draw",
    "ecc.errors.uncorrected.volatile.total",
)
#: Drivers from R535 on say the second, and still know the first; a later one may not (nvidia-smi --help-query-gpu).
THROTTLE_FIELDS = ("clocks_throttle_reasons.active", "clocks_event_reasons.active")

#: (what nvidia-smi says, reason, why); it says some of it on stdout and some on stderr
_FAILURES = (
    (
        "couldn't communicate with the NVIDIA driver",
        Reason.NOT_LOADED,
        "nvidia-smi is installed, but NVIDIA's driver is not loaded (sudo modprobe nvidia, then dmesg, tell more)",
    ),
    (
        "version mismatch",
        Reason.MISMATCH,
        "the loaded NVIDIA driver and its library are of different versions, as after an update: reboot this machine",
    ),
    ("No devices were found", Reason.NO_CARD, "nvidia-smi runs, and finds no card"),
    (
        "Insufficient Permissions",
        Reason.FAILED,
        "this user may not use NVIDIA's driver: look at the rights of /dev/nvidia* and at the unit's DeviceAllow",
    ),
)

HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,16}")
_CARD_LINE = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)")
_INSTANCE_LINE = re.compile(r"\s+MIG .*Device\s+(\d+): \(UUID: (MIG-[^)]+)\)")


def find_cards(seconds: float) -> list[Card] | None:
    """Return the cards that answer, in order; None where there is no nvidia-smi.

    Args:
        seconds: How long it may take in all.

    Raises:
        GpuError: If the driver is not there, sick, or silent.
    """
    deadline = time.monotonic() + seconds
    rows = _query(CARD_FIELDS, deadline)
    if rows is None:
        return None
    has_mig = any(row[-1] == "Enabled" for row in rows)
    instances = _instances(deadline) if has_mig else {}
    return [_card(row, instances) for row in rows]


def _card(row: list[str], instances: dict[str, list[MigInstance]]) -> Card:
    index, uuid, name, memory, pci, mig = row
    return Card(
        index=int(index),
        uuid=uuid,
        name=printable(name),
        memory_bytes=_mebibytes(memory) or 0,
        pci=pci,
        instances=tuple(instances.get(uuid, ())),
        is_mig=mig == "Enabled",
    )


def read_cards(expected: Collection[str], seconds: float) -> dict[str, Readings] | None:
    """Return what every card and MIG instance tells of itself, by UUID; None where there is no nvidia-smi.

    Args:
        expected: UUIDs; if a MIG instance is among them, the instances are asked for too.
        seconds: How long it may take in all.

    Raises:
        GpuError: If the driver is not there, sick, or silent.
    """
    deadline = time.monotonic() + seconds
    try:
        rows = _query((*READING_FIELDS, THROTTLE_FIELDS[0]), deadline)
    except GpuError as error:
        if "not a valid field" not in str(error):
            raise
        rows = _query((*READING_FIELDS, THROTTLE_FIELDS[1]), deadline)
    if rows is None:
        return None
    found = {item.uuid: item for item in map(_readings, rows)}
    if any(uuid.startswith("MIG-") for uuid in expected):
        for card, instances in _instances(deadline).items():
            index = found[card].index if card in found else -1
            found |= {item.uuid: Readings(uuid=item.uuid, index=index) for item in instances}
    return found


def _readings(row: list[str]) -> Readings:
    index, uuid, utilisation, used, total, temperature, power, ecc, throttle = row
    return Readings(
        uuid=uuid,
        index=int(index),
        utilisation_percent=_whole(utilisation),
        memory_used_bytes=_mebibytes(used),
        memory_total_bytes=_mebibytes(total),
        temperature_celsius=_whole(temperature),
        power_watts=_number(power),
        ecc_uncorrected=_whole(ecc),
        throttle=throttle_words(int(throttle, 16) if HEXADECIMAL.fullmatch(throttle) else None),
    )


def _query(fields: tuple[str, ...], deadline: float) -> list[list[str]] | None:
    """Return one row per card; a lost card has a sentence in place of its row, and the others are told all the same."""
    text = _run([f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], deadline)
    if text is None:
        return None
    split = ([value.strip() for value in line.split(",")] for line in text.splitlines())
    rows = [
        row
        for row in map(partial(_whole_name, fields), split)
        if len(row) == len(fields) and row[0].isascii() and row[0].isdigit() and row[1].startswith("GPU-")
    ]
    if not rows and "GPU is lost" not in text:
        raise _failure(text)
    return rows


def _whole_name(fields: tuple[str, ...], row: list[str]) -> list[str]:
    """Put a card's name together again that has a comma in it."""
    more = len(row) - len(fields)
    if more <= 0 or "name" not in fields:
        return row
    place = fields.index("name")
    return [*row[:place], ", ".join(row[place : place + more + 1]), *row[place + more + 1 :]]


def _instances(deadline: float) -> dict[str, list[MigInstance]]:
    """Return {UUID of a card: its MIG instances}."""
    found: dict[str, list[MigInstance]] = {}
    card = ""
    for line in (_run(["-L"], deadline) or "").splitlines():
        if named := _CARD_LINE.match(line):
            card = named[2]
        elif named := _INSTANCE_LINE.match(line):
            found.setdefault(card, []).append(MigInstance(uuid=named[2], number=int(named[1])))
    return found


def _run(arguments: list[str], deadline: float) -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise no_gpu(Reason.FAILED, f"nvidia-smi cannot be run: {error.strerror}") from None
    try:
        output, _ = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits inside the driver does not even die
            process.wait(0.5)
        raise no_gpu(
            Reason.HUNG, "nvidia-smi does not answer, so the driver hangs: look at dmesg, and reboot this machine"
        ) from None
    return output.decode("utf-8", "replace")


def _failure(text: str) -> GpuError:
    for said, reason, why in _FAILURES:
        if said in text:
            return no_gpu(reason, why)
    first = next(iter(text.strip().splitlines()), "nothing")
    return no_gpu(Reason.FAILED, f"nvidia-smi says: {first:.200}")


def _number(value: str) -> float | None:
    """Return a number; `[N/A]`, `[Not Supported]`, `[Unknown Error]` are none."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: str) -> int | None:
    number = _number(value)
    return None if number is None else round(number)


def _mebibytes(value: str) -> int | None:
    number = _number(value)
    return None if number is None else round(number) * 2**20
