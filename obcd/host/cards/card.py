"""The values for GPUs: a card, its MIG instances, its readings, and the reason why no GPU is found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from obcd.errors import NoEndpointError

#: What to do if no card can be used; the end of every message that says so.
WAYS_ON = (
    'Choose one of three ways: name the cards ([host] gpus = ["GPU-<uuid>"]; with vendor = "amd", [0, 1]), '
    "run one server on the CPU ([host] gpus = 0), or try obcd with its embedded server (obcd up --embedded)"
)

#: {bit: word}: NVML's nvmlClocksEventReason… that slow down a card with work. Not included: idle (1), and clocks
#: that the administrator (2) or a display (256) set.
THROTTLE_REASONS = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "thermal",
    0x040: "hardware thermal",
    0x080: "power brake",
    0x200: "board limit",
    0x400: "reliability",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """One MIG instance of a card; `number` is the Device number of `nvidia-smi -L`."""

    uuid: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One NVIDIA GPU.

    Attributes:
        index: nvidia-smi's, which is PCI order.
        uuid: `GPU-…`.
        name: The product's.
        memory_bytes: 0 if it is not known.
        instances: Its MIG instances, if it is in MIG mode.
        is_mig: Whether it is in MIG mode, in which it computes only through its instances.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    instances: tuple[MigInstance, ...] = ()
    is_mig: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What a card reports now; None for a value that it does not report.

    Attributes:
        index: nvidia-smi's; -1 for a lost card whose index is not known.
        is_lost: It fell off the bus, or the driver answers and does not have it.
        utilisation_percent: Share of the last moment in which it computed, 0 to 100.
        temperature_celsius: Of the chip.
        power_watts: Drawn now.
        energy_joules: Used since the driver was loaded; NVIDIA's cards from Volta on count it.
        ecc_uncorrected: Memory errors since the driver was loaded that ECC could not correct.
        throttle: Why its clocks are reduced; values of `THROTTLE_REASONS`.
    """

    uuid: str
    index: int
    is_lost: bool = False
    utilisation_percent: int | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: int | None = None
    power_watts: float | None = None
    energy_joules: float | None = None
    ecc_uncorrected: int | None = None
    throttle: tuple[str, ...] = ()


class Reason(Enum):
    """Why no card is found."""

    NO_LIBRARY = "the driver's library is not here, so the cards are unknown"
    NOT_LOADED = "the driver is not loaded"
    MISMATCH = "the driver and its library are of different versions"
    HUNG = "the driver does not answer"
    NO_CARD = "the driver has no card"
    FAILED = "the driver refused"


class GpuError(NoEndpointError):
    """No GPU is found.

    Attributes:
        reason: Whether the cards are unknown, there is no card, or the driver fails.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def no_gpu(reason: Reason, why: str) -> GpuError:
    """Return the error with its complete message."""
    return GpuError(reason, f"no NVIDIA GPU found: {why}. {WAYS_ON}")


def throttle_words(mask: int | None) -> tuple[str, ...]:
    """Return the reasons in NVML's mask as words."""
    return tuple(word for bit, word in THROTTLE_REASONS.items() if (mask or 0) & bit)
