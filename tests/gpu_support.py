"""Stand-ins for what a GPU host has: `ollama` on PATH, and the module `pynvml`.

stand_ins = StandIns(tmp_path / "host", cards(4))
environment = stand_ins.environment(make_environment(runtime))
…
stand_ins.switch("hang-ps", 11432)      # behaviours: see tests/standins/ollama.py
stand_ins.describe(cards(4, lost=[2]))
stand_ins.end()                         # nothing that was started survives
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import socket
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

SOURCES = Path(__file__).resolve().parent / "standins"
#: The end of the cards' UUIDs. Every process of tests has its own: a card serves one server of a user on a machine.
TAIL = secrets.token_hex(6)
#: Below the range that the kernel takes ports of outgoing connections from (32768 on): whoever asks a server that is
#: not there yet could else hold the very port that it is to listen on.
PORTS = range(20000, 32000)


def card(index: int, **changes: Any) -> dict[str, Any]:
    """Return the description of one card; None for a value means that the card cannot tell it.

    Keys: index, uuid, name, memory_mib, pci, and optional ones: used_mib, utilisation, temperature, power_watts,
    energy_joules, ecc, throttle (NVML's mask), lost (True; "later": since NVML first saw it, so that it still has its
    name), mig (`[{"number": 0, "uuid": "MIG-…"}]`).
    """
    return {
        "index": index,
        "uuid": card_uuid(index),
        "name": "NVIDIA H100 80GB HBM3",
        "memory_mib": 81559,
        "pci": f"00000000:{0x10 + index:02X}:00.0",
        "used_mib": 4096 + index,
        "utilisation": 90 + index,
        "temperature": 60 + index,
        "power_watts": 300.5 + index,
        "energy_joules": 1000.5 + index,
        "ecc": 0,
        "throttle": 0,
        **changes,
    }


def card_uuid(index: int, tail: str = TAIL) -> str:
    """Return the UUID of the card of an index; no two share their first digits."""
    return f"GPU-{index:08x}-1111-2222-3333-{tail}"


def mig_uuid(index: int, number: int) -> str:
    """Return the UUID of a MIG instance of a card."""
    return f"MIG-{index:04x}{number:04x}-aaaa-bbbb-cccc-ddddeeeeffff"


def cards(
    count: int, *, lost: Collection[int] = (), mig: Mapping[int, int] | None = None, tail: str = TAIL
) -> list[dict[str, Any]]:
    """Return some cards.

    Args:
        tail: Another end of their UUIDs, for a second machine of one process of tests.
        lost: Indices of those that fell off the bus.
        mig: {index: number of MIG instances}.
    """
    made = []
    for index in range(count):
        instances = [{"number": number, "uuid": mig_uuid(index, number)} for number in range((mig or {}).get(index, 0))]
        made.append(card(index, uuid=card_uuid(index, tail), lost=index in lost, mig=instances or None))
    return made


def free_base(count: int) -> int:
    """Return the first of some ports in a row that nobody holds."""
    while True:
        base = random.SystemRandom().choice(PORTS)
        if all(map(is_free, range(base, base + count))):
            return base


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port of 127.0.0.1."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class StandIns:
    """A folder that stands in for a GPU host.

    Args:
        seen_as: The folder's path for those who start the stand-ins, where that is another one.
        interpreter: The Python that they run with.

    Attributes:
        folder: STANDIN_FOLDER: what is recorded, and the switches.
        bin: To be first on PATH; holds `ollama`.
        python: To be on PYTHONPATH; holds `pynvml.py`.
    """

    def __init__(
        self,
        folder: Path,
        described: list[dict[str, Any]],
        *,
        seen_as: Path | None = None,
        interpreter: str = sys.executable,
    ) -> None:
        self._records, self._interpreter = (seen_as or folder) / "records", interpreter
        self.folder, self.bin, self.python = folder / "records", folder / "bin", folder / "python"
        for made in (self.folder, self.bin, self.python):
            made.mkdir(parents=True)
        self.describe(described)
        self._install("ollama.py", self.bin / "ollama")
        self._install("pynvml.py", self.python / "pynvml.py")

    def _install(self, source: str, target: Path) -> None:
        text = (
            (SOURCES / source)
            .read_text("utf-8")
            .replace('DEFAULT_FOLDER = ""', f"DEFAULT_FOLDER = {str(self._records)!r}")
        )
        # -I: nothing of the caller's Python is in force; -S: nor any installed package: that halves its start
        target.write_text(f"#!{self._interpreter} -IS\n{text}", "utf-8")
        target.chmod(0o755)

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which the stand-ins are found."""
        path = f"{self.bin}:{base.get('PATH', os.defpath)}"
        python = ":".join(filter(None, (str(self.python), base.get("PYTHONPATH"))))
        return {**base, "PATH": path, "PYTHONPATH": python, "STANDIN_FOLDER": str(self.folder)}

    def describe(
        self, described: list[dict[str, Any]], driver: str = "ok", xids: Collection[tuple[str, int]] = ()
    ) -> None:
        """Say what NVML shows from now on.

        Args:
            driver: `ok`, `no-library`, `not-loaded`, `mismatch`, `denied` or `hung`.
            xids: Every Xid event since the start, as (UUID, number); an event set tells each once.
        """
        document = {"driver": driver, "cards": described, "xids": [list(event) for event in xids]}
        temporary = self.folder / "cards.json.new"
        temporary.write_text(json.dumps(document), "utf-8")
        temporary.rename(self.folder / "cards.json")

    def switch(self, behaviour: str, port: int, *, on: bool = True) -> None:
        """Switch a behaviour of the server on a port on or off."""
        path = self.folder / f"{behaviour}-{port}"
        path.touch() if on else path.unlink(missing_ok=True)

    def recorded(self, port: int) -> dict[str, str]:
        """Return the environment that the server on a port was started with; empty when none was."""
        try:
            found: dict[str, str] = json.loads((self.folder / f"env-{port}.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def pid(self, port: int) -> int:
        """Return the process that serves, or last served, a port; 0 for none."""
        return self._number(f"pid-{port}")

    def runner(self, port: int) -> int:
        """Return the runner of that server; 0 for none."""
        return self._number(f"runner-{port}")

    def starts(self, port: int) -> list[int]:
        """Return the process ids of all starts on a port."""
        try:
            return [int(line.split()[0]) for line in (self.folder / f"starts-{port}").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def alive(self) -> list[int]:
        """Return the processes that run from this folder's `ollama`, runners included."""
        program, found = str(self.bin / "ollama"), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if program in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def end(self) -> None:
        """Kill every one of them."""
        for pid in self.alive():
            with contextlib.suppress(psutil.Error):
                psutil.Process(pid).kill()

    def _number(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text())
        except FileNotFoundError:
            return 0
