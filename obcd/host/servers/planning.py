"""Decide which servers this machine runs: make a `HostPlan` from the `[host]` table and the cards.

The plan is final: ports follow the card's index, pins are UUIDs, every variable of a server is in the plan.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from obcd.config.settings import Settings
from obcd.config.tables import Host
from obcd.errors import ConfigurationError
from obcd.host.cards.card import Card, GpuError, MigInstance
from obcd.host.cards.given import find_engine, read_given, select
from obcd.host.cards.gpus import discover
from obcd.host.servers.binding import PortRange, choose_ports
from obcd.host.servers.plan import HostPlan, Server

#: {variable: the key to use instead}: in `environment` these would contradict the plan. With one OLLAMA_HOST all
#: servers would share a port; a card named there would be the card of all; the coordinator must know the slots.
OWNED = {
    "OLLAMA_HOST": "bind and base_port",
    "OLLAMA_NUM_PARALLEL": "num_parallel",
    "OLLAMA_MODELS": "models",
    "CUDA_VISIBLE_DEVICES": "gpus",
    "ROCR_VISIBLE_DEVICES": "gpus",
    "HIP_VISIBLE_DEVICES": "gpus",
    "GPU_DEVICE_ORDINAL": "gpus",
}

Choice = str | int | Sequence[int | str]


@dataclass(frozen=True, slots=True)
class _Pin:
    """The card of one server: see `Server` for the fields."""

    label: str
    uuid: str
    index: int
    card: str = ""
    memory_bytes: int = 0


def make_plan(
    settings: Settings,
    gpus: Choice | None = None,
    base_port: int | None = None,
    *,
    ports: PortRange | None = None,
    bind: str | None = None,
) -> HostPlan:
    """Decide which servers this machine runs.

    Args:
        settings: `[host]`, and the load timeout and context length of `[requests]`.
        gpus: The value of `--gpus`, instead of `[host] gpus`.
        base_port: Instead of `[host] base_port`.
        ports: Free ports instead of those that follow from `base_port`.
        bind: The address instead of `[host] bind`.

    Raises:
        ConfigurationError: If a key cannot be followed here; the message names it and the possible values.
        GpuError: If cards are wanted and no card is found.
    """
    host = settings.host
    first = host.base_port if base_port is None else base_port
    key = "[host] gpus" if gpus is None else "--gpus"
    bind = _checked_bind(host.bind if bind is None else bind)
    _check_environment(host)
    shared = _shared_variables(settings)
    ollama = _find_ollama(host.ollama)
    pins = _choose(_wanted(host) if gpus is None else gpus, host.vendor, key)
    numbers = _ports(pins, first) if ports is None else choose_ports(bind, [pin.uuid for pin in pins], ports)
    if max(numbers) > 65535:
        raise ConfigurationError(
            f"[host] base_port = {first} is too high: {len(pins)} servers need ports up to {max(numbers)}, above 65535"
        )
    servers = tuple(_server(pin, port, bind, host, shared) for pin, port in zip(pins, numbers, strict=True))
    return HostPlan(
        bind=bind,
        name=host.name or _reached_as(bind),
        vendor=host.vendor,
        ollama=ollama,
        parallel=host.num_parallel,
        yields=host.yields,
        servers=servers,
    )


def _server(pin: _Pin, port: int, bind: str, host: Host, shared: dict[str, str]) -> Server:
    listen = {"OLLAMA_HOST": f"{_in_url(bind)}:{port}"}  # with the address: a bare `:port` would bind every interface
    return Server(
        label=pin.label,
        pin=pin.uuid,
        gpu=pin.index,
        card=pin.card,
        memory_bytes=pin.memory_bytes,
        port=port,
        variables={**_pin_variables(pin, host.vendor), **listen, **shared, **host.environment},
    )


def _ports(pins: list[_Pin], first: int) -> list[int]:
    """Return a port for each pin by the card's index, so that a missing card does not shift the others.

    If a card has several servers (MIG), ports go by position.
    """
    indices = [pin.index for pin in pins]
    is_plain = len(set(indices)) == len(pins) and not any("." in pin.label for pin in pins)
    return [first + number for number in (indices if is_plain else range(len(pins)))]


def _pin_variables(pin: _Pin, vendor: str) -> dict[str, str]:
    """Return the variables that show a server one card and no other (`ollama-contract` 5.1, 5.2)."""
    if not pin.uuid:  # -1 is the documented way to hide every card, NVIDIA's and AMD's
        return {"CUDA_VISIBLE_DEVICES": "-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "ROCR_VISIBLE_DEVICES": "-1"}
    if (
        vendor == "amd"
    ):  # only this one: numeric HIP and CUDA variables filter AMD's cards too; the launcher removes them
        return {"ROCR_VISIBLE_DEVICES": pin.uuid}
    # a UUID, because indices change when a card fails; the order, so that Ollama's log counts as nvidia-smi does
    return {"CUDA_VISIBLE_DEVICES": pin.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _shared_variables(settings: Settings) -> dict[str, str]:
    """Return the variables that all servers share; they override the environment of the host."""
    host, requests = settings.host, settings.requests
    variables = {
        # slots: Ollama's own default is 1
        "OLLAMA_NUM_PARALLEL": str(host.num_parallel),
        # -1: a model stays loaded; otherwise a pause between two jobs costs a load
        "OLLAMA_KEEP_ALIVE": host.keep_alive,
        # loading stalls on slow disks; Ollama must not give up before the coordinator does
        "OLLAMA_LOAD_TIMEOUT": f"{requests.load_timeout_seconds:g}s",
        # for other clients, which name no context; Ollama's default follows the card, and obcd's requests would reload
        "OLLAMA_CONTEXT_LENGTH": str(host.context_length or requests.usual_context),
        # Vulkan ignores CUDA_VISIBLE_DEVICES: a server would use the card with the most free memory
        "OLLAMA_VULKAN": "0",
        # servers share one models folder: the start of one must not prune files that another is pulling
        "OLLAMA_NOPRUNE": "1",
        # prompts do not leave this machine
        "OLLAMA_NO_CLOUD": "1",
        # limits the old prompts that each runner keeps in the host's memory (default 8 GiB each)
        "LLAMA_ARG_CACHE_RAM": str(host.cache_ram_mib),
        # Ollama does not run without it: it keeps a key in ~/.ollama, even if the models are elsewhere
        "HOME": _find_home(),
    }
    if host.models is not None:
        models = os.path.expanduser(host.models)
        if not os.path.isabs(models):
            raise ConfigurationError(f'[host] models = "{host.models}" is not an absolute path: begin it with /')
        variables["OLLAMA_MODELS"] = models
    return variables


def _wanted(host: Host) -> Choice:
    """Return `[host] gpus`; inside Slurm and Ray `all` means the cards that they gave: the others are other people's.

    An installed configuration names every key, so it is not known whether a person chose the word.
    """
    return "given" if host.gpus == "all" and find_engine(os.environ) is not None else host.gpus


def _choose(chosen: Choice, vendor: str, key: str) -> list[_Pin]:
    if chosen == 0:
        return [_Pin("cpu", "", 0)]
    if chosen not in ("all", "given") and (isinstance(chosen, str | int) or not chosen):
        raise ConfigurationError(f'{key} names no card: write "all", "given", a list as [0, 1], or 0 for the CPU')
    pins = _choose_amd(chosen, key) if vendor == "amd" else _choose_nvidia(chosen, key)
    seen = set[str]()
    for pin in pins:
        if pin.uuid in seen:
            raise ConfigurationError(f"{key} names GPU {pin.label} ({pin.uuid}) twice: each server needs its own card")
        seen.add(pin.uuid)
    return pins


def _choose_amd(chosen: Choice, key: str) -> list[_Pin]:
    """Use the list unchecked: obcd does not query AMD's driver."""
    if chosen == "given":
        given = read_given(os.environ, "amd")
        chosen = given.indices or given.entries
    if isinstance(chosen, str | int):
        raise ConfigurationError(
            f'{key} = "all" needs NVIDIA\'s driver: with vendor = "amd" name the cards, e.g. [0, 1] (see rocminfo)'
        )
    indices = [item for item in chosen if isinstance(item, int)]
    numbers = indices if len(indices) == len(chosen) else range(len(chosen))  # by position if a UUID is among them
    return [_Pin(str(number), str(item), number) for number, item in zip(numbers, chosen, strict=True)]


def _choose_nvidia(chosen: Choice, key: str) -> list[_Pin]:
    if chosen == "given":
        given = read_given(os.environ)  # first: where nothing was given, the driver does not matter
        found = select(given, discover(), os.environ)
        return [pin for card, part in found for pin in (_pins(card) if part is None else [_part_pin(card, part)])]
    try:
        cards = discover()
    except GpuError:
        taken = _as_they_are(chosen)
        if taken:  # a container build, or a driver that comes later: a user who names UUIDs knows the cards
            return taken
        raise
    if isinstance(chosen, str | int):
        return [pin for card in cards for pin in _pins(card)]
    return [pin for item in chosen for pin in _resolve(item, cards, key)]


def _as_they_are(chosen: Choice) -> list[_Pin]:
    """Return pins for a list of complete UUIDs, by position; nothing for any other choice."""
    if isinstance(chosen, str | int) or not all(_is_whole(item) for item in chosen):
        return []
    return [_Pin(str(place), str(item), place) for place, item in enumerate(chosen)]


def _is_whole(item: int | str) -> bool:
    # `GPU-` or `MIG-`, and a UUID of 36 characters; older drivers write MIG-GPU-<uuid>/1/0
    return isinstance(item, str) and item.startswith(("GPU-", "MIG-")) and len(item) >= 40


def _resolve(item: int | str, cards: list[Card], key: str) -> list[_Pin]:
    """Return the pins of one entry of the list: an index, a UUID, or the beginning of a UUID."""
    if isinstance(item, int):
        found = [_pins(card) for card in cards if card.index == item]
    else:
        is_enough = item.startswith(("GPU-", "MIG-")) and len(item) > len("GPU-")
        found = [_pins(card) for card in cards if is_enough and card.uuid.startswith(item)]
        parts = [(card, part) for card in cards for part in card.instances if is_enough and part.uuid.startswith(item)]
        found += [[_part_pin(card, part)] for card, part in parts]
    if not found:
        raise ConfigurationError(f"{key} names {item!r}, which is not on this machine; it has {_listed(cards)}")
    if len(found) > 1:
        raise ConfigurationError(
            f"{key} names {item!r}, with which several UUIDs begin; this machine has {_listed(cards)}"
        )
    return found[0]


def _pins(card: Card) -> list[_Pin]:
    """Return the servers of a card: one, or one per MIG instance."""
    if card.is_mig and not card.instances:
        raise ConfigurationError(
            f"GPU {card.index} ({card.name}) is in MIG mode and has no instances, so nothing can compute on it: "
            "create instances (nvidia-smi mig), turn the mode off, or name the other cards in [host] gpus"
        )
    if not card.instances:
        return [_Pin(str(card.index), card.uuid, card.index, card.name, card.memory_bytes)]
    return [_part_pin(card, part) for part in card.instances]


def _part_pin(card: Card, part: MigInstance) -> _Pin:
    return _Pin(f"{card.index}.{part.number}", part.uuid, card.index, card.name)


def _listed(cards: list[Card]) -> str:
    """Return e.g. `GPU 0 (GPU-…, NVIDIA L4) and GPU 1 (GPU-…, NVIDIA L4)`."""
    *others, last = (
        f"GPU {card.index} ({', '.join([card.uuid, *(part.uuid for part in card.instances)])}, {card.name})"
        for card in cards
    )
    return f"{', '.join(others)} and {last}" if others else last


def _check_environment(host: Host) -> None:
    for name, value in host.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ConfigurationError(f"[host.environment] {name!r:.80} is not a variable that a process can have")
        if name in OWNED:
            raise ConfigurationError(f"[host.environment] {name} would be the same for every server: use {OWNED[name]}")
        if name.startswith("OBCD_"):
            raise ConfigurationError(f"[host.environment] {name} is reserved for obcd: remove it")


def _checked_bind(bind: str) -> str:
    """Return an address or a host name, without brackets."""
    bare = bind[1:-1] if bind.startswith("[") and bind.endswith("]") else bind
    if _address(bare) is None and (not bare or any(not (char.isalnum() or char in "-.") for char in bare)):
        raise ConfigurationError(
            f'[host] bind = "{bind}" is not an address: write e.g. "127.0.0.1" or "10.0.0.5"; the port is base_port'
        )
    return bare


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reached_as(bind: str) -> str:
    """Return the name for `host:port`: IPv6 in brackets."""
    address = _address(bind)
    return socket.gethostname() if address is not None and address.is_unspecified else _in_url(bind)


def _find_ollama(name: str) -> str:
    found = shutil.which(os.path.expanduser(name))
    if found is None:
        raise ConfigurationError(
            f"there is no program `{name}` on PATH: install Ollama (https://ollama.com/download), "
            'or give its path: [host] ollama = "/path/to/ollama"'
        )
    return os.path.abspath(found)


def _find_home() -> str:
    """Return $HOME, else a folder that exists for this user and can be written to."""
    if home := os.environ.get("HOME"):
        return home
    try:
        own = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container's user without an entry in passwd
        own = ""
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]  # systemd's, systemd.exec(5)
    for folder in (own, state):
        if folder and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ConfigurationError(
        f"HOME is not set and user {os.getuid()} has no home folder, without which Ollama does not start: "
        "set HOME to a folder that this user can write to"
    )
