"""The plan of `obcd host`: which servers this machine runs, each with its card, port and environment.

    [host] + cards ─► Plan ─► plan.json ─► serve-gpu N, watch, host status, host endpoints

The plan is made once, at the start of the host, and written to a file: a card that fails later must not shift the
others to new ports, and a server that starts again needs neither configuration nor driver to know its settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from obcd.errors import InputError
from obcd.spool.folders import disk

#: The installed system's runtime folder (systemd: RuntimeDirectory=obcd-host).
SYSTEM_RUNTIME = Path("/run/obcd-host")
FILE_NAME = "plan.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One `ollama serve`, pinned to one card.

    Attributes:
        label: The name of its card for people: nvidia-smi's index (`2`), with the MIG instance (`2.1`), or `cpu`.
        pin: The card's UUID (`GPU-…`, `MIG-…`), or the entry of AMD's list; "" for the CPU.
        gpu: The index for the coordinator's table.
        card: The card's product name; "" if it is not known.
        memory_bytes: The card's memory; 0 if it is not known.
        variables: All variables that are set for it, over the environment of the host.
    """

    label: str
    pin: str
    gpu: int
    card: str
    memory_bytes: int
    port: int
    variables: Mapping[str, str]

    @property
    def program(self) -> str:
        """Its name under supervisor, e.g. `gpu2`, `gpu2.1`, `cpu`."""
        return self.label if self.label == "cpu" else f"gpu{self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """The servers of this machine.

    Attributes:
        bind: The address they listen on.
        name: The name by which the coordinator's host reaches this one.
        vendor: `nvidia` or `amd`.
        ollama: The program, an absolute path.
        parallel: Slots of each server.
        yields: Whether people use the servers too, who come first.
    """

    bind: str
    name: str
    vendor: str
    ollama: str
    parallel: int
    servers: tuple[Server, ...]
    yields: bool = False

    def find(self, label: str) -> Server | None:
        """Return the server of a card, named as people do (`2`, `gpu2`, its UUID), or None."""
        return next((item for item in self.servers if label in (item.label, item.program, item.pin)), None)

    def url(self, server: Server) -> str:
        """Return the URL by which this machine reaches a server: on loopback if it listens on all addresses."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"

    def entry(self, server: Server) -> dict[str, int]:
        """Return what `[ollama_instances]` says of a server."""
        return {"gpu": server.gpu, "slots": self.parallel, **({"yield": True} if self.yields else {})}


def plan_table(plan: HostPlan) -> dict[str, dict[str, int]]:
    """Return the `[ollama_instances]` by which this machine reaches the servers."""
    return {plan.url(server).removeprefix("http://"): plan.entry(server) for server in plan.servers}


def write_plan(plan: HostPlan, runtime: Path) -> Path:
    """Write the plan into the runtime folder, 0600 (an environment may hold secrets), and return its path."""
    path = runtime / FILE_NAME
    disk.show_json(path, asdict(plan), 0o600)
    return path


def read_plan(runtime: Path) -> HostPlan:
    """Read the plan of the host that runs with this runtime folder.

    Raises:
        InputError: If there is no plan, or it cannot be read.
    """
    path = runtime / FILE_NAME
    try:
        document = json.loads(path.read_bytes())
        servers = tuple(Server(**item) for item in document.pop("servers"))
        if not servers:
            raise ValueError("it names no server")
        return HostPlan(**document, servers=servers)
    except FileNotFoundError:
        raise InputError(f"no obcd host runs here (there is no {path}): start one with obcd host") from None
    except PermissionError:
        raise InputError(
            f"{path} cannot be read by this user: run this as the user who runs obcd host, or with sudo"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): restart obcd host") from None
