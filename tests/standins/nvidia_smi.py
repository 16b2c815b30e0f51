"""Stands in for `nvidia-smi` on PATH; what it shows stands in `cards.json` (see tests/gpu_support.py).

Knows `-L` and `--query-gpu=… --format=csv,noheader,nounits`, and fails as the real one does. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

#: Put here by gpu_support, for starts whose environment has no STANDIN_FOLDER.
DEFAULT_FOLDER = ""

#: {state of the driver: (exit code, what is said on stdout)}
FAILURES = {
    "not-loaded": (
        9,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        "Make sure that the latest NVIDIA driver is installed and running.",
    ),
    "mismatch": (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54"),
    "denied": (4, "Failed to initialize NVML: Insufficient Permissions"),
}


def read() -> dict[str, Any]:
    """Return the description of the cards."""
    folder = os.environ.get("STANDIN_FOLDER") or DEFAULT_FOLDER
    with open(os.path.join(folder, "cards.json"), encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return document


def value(card: dict[str, Any], field: str) -> str:
    """Return one field of a card as it is printed; what it does not know is `[N/A]`."""
    found = {
        "index": card["index"],
        "uuid": card["uuid"],
        "pci.bus_id": card["pci"],
        "name": card["name"],
        "memory.total": card["memory_mib"],
        "mig.mode.current": None if card.get("mig") is None else "Enabled",
        "memory.used": card.get("used_mib"),
        "utilization.gpu": card.get("utilisation"),
        "temperature.gpu": card.get("temperature"),
        "power.draw": card.get("power_watts"),
        "ecc.errors.uncorrected.volatile.total": card.get("ecc"),
    }
    if field in ("clocks_throttle_reasons.active", "clocks_event_reasons.active"):
        return f"0x{card.get('throttle', 0):016X}"
    if field not in found:
        sys.stdout.write(f'Field "{field}" is not a valid field to query.\n')
        sys.exit(2)
    return "[N/A]" if found[field] is None else str(found[field])


def lost(card: dict[str, Any]) -> str:
    """Return what stands in place of a card's row when it fell off the bus."""
    place = card["pci"].removeprefix("0000")
    return (
        f"Unable to determine the device handle for GPU{card['index']}: {place}: GPU is lost.  "
        "Reboot the system to recover this GPU"
    )


def listing(cards: list[dict[str, Any]]) -> str:
    """Return what `-L` prints."""
    lines = []
    for card in cards:
        if card.get("lost"):
            lines.append(lost(card))
            continue
        lines.append(f"GPU {card['index']}: {card['name']} (UUID: {card['uuid']})")
        for instance in card.get("mig") or ():
            lines.append(f"  MIG 1g.10gb     Device  {instance['number']}: (UUID: {instance['uuid']})")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run one call."""
    document = read()
    if document["driver"] == "hung":
        signal.alarm(60)
        signal.pause()
    if document["driver"] in FAILURES:
        code, text = FAILURES[document["driver"]]
        sys.stdout.write(text + "\n")
        return code
    cards = document["cards"]
    if not cards:
        sys.stdout.write("No devices were found\n")
        return 6
    if arguments == ["-L"]:
        sys.stdout.write(listing(cards) + "\n")
        return 0
    fields = arguments[0].removeprefix("--query-gpu=").split(",")
    if arguments[0] == fields[0] or arguments[1:] != ["--format=csv,noheader,nounits"]:
        sys.stdout.write(f"this stand-in does not know {arguments}\n")
        return 2
    rows = [lost(card) if card.get("lost") else ", ".join(value(card, field) for field in fields) for card in cards]
    sys.stdout.write("\n".join(rows) + "\n")
    return 15 if any(card.get("lost") for card in cards) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
