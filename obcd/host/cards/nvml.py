"""NVML, the driver's own library, through `pynvml` (package nvidia-ml-py): the cards and their readings.

A query that a card does not support gives None. A driver may hang in any call: the caller sets the time limit
(`gpus.answer_within`).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from obcd.host.cards.card import Card, MigInstance, Readings, Reason, no_gpu, throttle_words
from obcd.text import printable

logger = logging.getLogger(__name__)

#: Most events of one call; a broken card can send them without end.
MAX_EVENTS = 100

#: {name in pynvml: (reason, why)} of errors that make the whole library fail; NVML API reference, nvmlReturn_t
_FAILURES = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": (
        Reason.NO_LIBRARY,
        "NVIDIA's library libnvidia-ml.so.1 is not on this machine: install NVIDIA's driver, which includes nvidia-smi",
    ),
    "NVML_ERROR_DRIVER_NOT_LOADED": (
        Reason.NOT_LOADED,
        "NVIDIA's library is installed, but its driver is not loaded: try sudo modprobe nvidia, then see dmesg",
    ),
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": (
        Reason.MISMATCH,
        "the loaded NVIDIA driver and its library are of different versions, as after an update: reboot this machine",
    ),
    "NVML_ERROR_NO_PERMISSION": (
        Reason.FAILED,
        "this user may not use NVIDIA's driver: check the permissions of /dev/nvidia* and the unit's DeviceAllow",
    ),
}


T = TypeVar("T")


class _Memory(Protocol):
    total: int
    used: int


class _PciInfo(Protocol):
    busId: str | bytes


class _Utilisation(Protocol):
    gpu: int


class _Event(Protocol):
    device: object
    eventData: int


class _Nvml(Protocol):
    """The used part of the module `pynvml`, which has no types; handles of cards, instances and events are opaque."""

    NVMLError: type[Exception]
    NVML_DEVICE_MIG_ENABLE: int
    NVML_ERROR_GPU_IS_LOST: int
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED: int
    NVML_TEMPERATURE_GPU: int
    NVML_VOLATILE_ECC: int
    nvmlEventTypeXidCriticalError: int

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int, /) -> object: ...
    def nvmlDeviceGetMemoryInfo(self, handle: object, /) -> _Memory: ...
    def nvmlDeviceGetPciInfo(self, handle: object, /) -> _PciInfo: ...
    def nvmlDeviceGetUUID(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: object, /) -> str | bytes: ...
    def nvmlDeviceGetMigMode(self, handle: object, /) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: object, /) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: object, number: int, /) -> object: ...
    def nvmlDeviceGetPowerUsage(self, handle: object, /) -> int: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, /) -> int: ...
    def nvmlDeviceGetUtilizationRates(self, handle: object, /) -> _Utilisation: ...
    def nvmlDeviceGetTemperature(self, handle: object, sensor: int, /) -> int: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: object, kind: int, counter: int, /) -> int: ...
    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object, /) -> int: ...
    def nvmlEventSetCreate(self) -> object: ...
    def nvmlDeviceRegisterEvents(self, handle: object, kinds: int, events: object, /) -> None: ...
    def nvmlEventSetWait_v2(self, events: object, milliseconds: int, /) -> _Event: ...


@contextlib.contextmanager
def session() -> Iterator[_Nvml]:
    """Yield the module with the library started.

    Raises:
        GpuError: If library or driver are missing, or the driver fails.
    """
    nvml = _start()
    try:
        yield nvml
    except nvml.NVMLError as error:
        raise no_gpu(Reason.FAILED, f"NVIDIA's driver reports: {error}") from None
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _start() -> _Nvml:
    try:
        import pynvml  # noqa: PLC0415 - takes 40 ms of CPU, which a host without NVIDIA cards does not need
    except OSError as error:  # no descriptor is left to read the file
        raise no_gpu(Reason.FAILED, f"NVIDIA's library cannot be loaded: {error.strerror}") from None
    nvml: _Nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        for name, (reason, why) in _FAILURES.items():
            if _code(error) == getattr(nvml, name):
                raise no_gpu(reason, why) from None
        raise no_gpu(Reason.FAILED, f"NVIDIA's driver reports: {error}") from None
    return nvml


def find_cards() -> list[Card]:
    """Return the cards that answer, in nvidia-smi's order.

    Raises:
        GpuError: If library or driver are missing, or the driver fails.
    """
    with session() as nvml:
        found = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found.append(_card(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index)))
            except nvml.NVMLError as error:
                logger.warning("GPU %d does not answer: %s", index, error, extra={"action": "card_lost"})
        return found


def _card(nvml: _Nvml, index: int, handle: object) -> Card:
    memory = _asked(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return Card(
        index=index,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=printable(_text(_asked(nvml, lambda: nvml.nvmlDeviceGetName(handle)) or "")),
        memory_bytes=memory or 0,
        instances=tuple(
            MigInstance(uuid=_text(nvml.nvmlDeviceGetUUID(part)), number=number)
            for number, part in _instances(nvml, handle)
        ),
        is_mig=_is_mig(nvml, handle),
    )


def _is_mig(nvml: _Nvml, handle: object) -> bool:
    mode = _asked(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
    return bool(mode == nvml.NVML_DEVICE_MIG_ENABLE)


def _instances(nvml: _Nvml, handle: object) -> Iterator[tuple[int, object]]:
    """Yield number and handle of each MIG instance; the numbers may have gaps."""
    count = _asked(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) if _is_mig(nvml, handle) else 0
    for number in range(count or 0):
        with contextlib.suppress(nvml.NVMLError):  # this number is not in use
            yield number, nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)


def read_cards(expected: Collection[str]) -> dict[str, Readings]:
    """Return the readings of every card and MIG instance, by UUID.

    Args:
        expected: UUIDs; one that the driver does not have is lost in the result.

    Raises:
        GpuError: If library or driver are missing, or the driver fails.
    """
    with session() as nvml:
        found: dict[str, Readings] = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError):  # a lost card may have no UUID; `expected` reports it
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found |= _read(nvml, index, handle, handle)
                for _, part in _instances(nvml, handle):
                    found |= _read(nvml, index, handle, part)
        return {uuid: Readings(uuid=uuid, index=-1, is_lost=True) for uuid in expected} | found


def _read(nvml: _Nvml, index: int, card: object, device: object) -> dict[str, Readings]:
    """Return the readings of a card, or of one of its instances, by UUID."""
    uuid = _text(nvml.nvmlDeviceGetUUID(device))
    try:
        return {uuid: _queried(nvml, index, uuid, card, device)}
    except nvml.NVMLError:  # see `_asked`
        return {uuid: Readings(uuid=uuid, index=index, is_lost=True)}


def _queried(nvml: _Nvml, index: int, uuid: str, card: object, device: object) -> Readings:
    """Read memory and load from an instance, and all other values from its card."""
    memory = _asked(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(device))
    power = _asked(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(card))  # milliwatts
    energy = _asked(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(card))  # millijoules
    uncorrected, volatile = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    return Readings(
        uuid=uuid,
        index=index,
        utilisation_percent=_asked(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu),
        memory_used_bytes=memory.used if memory else None,
        memory_total_bytes=memory.total if memory else None,
        temperature_celsius=_asked(nvml, lambda: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),
        power_watts=None if power is None else power / 1000,
        energy_joules=None if energy is None else energy / 1000,
        ecc_uncorrected=_asked(nvml, lambda: nvml.nvmlDeviceGetTotalEccErrors(card, uncorrected, volatile)),
        throttle=throttle_words(_asked(nvml, lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(card))),
    )


def _asked(nvml: _Nvml, query: Callable[[], T]) -> T | None:
    """Return the result of a query, or None if the card does not support it.

    Raises:
        NVMLError: If the card is lost: then its other values are not valid either.
    """
    try:
        return query()
    except nvml.NVMLError as error:
        if _code(error) == nvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return None


def _code(error: Exception) -> object:
    """Return the number of an `NVMLError`, one of `nvmlReturn_t`."""
    return getattr(error, "value", None)


def _text(value: str | bytes) -> str:
    """Return text; releases of the package differ in the returned type."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class XidEvents:
    """An NVML event set of the Xid events of all cards; NVML stays started as long as it exists.

    Raises:
        GpuError: From the constructor, if library or driver are missing, or the driver fails.
    """

    def __init__(self) -> None:
        self._nvml = _start()
        #: {address of a card: its UUID}: a card that fell off the bus sends an event and no longer knows its UUID
        self._uuids: dict[int, str] = {}
        try:
            self._set = self._nvml.nvmlEventSetCreate()
            for index in range(self._nvml.nvmlDeviceGetCount()):
                self._register(self._nvml, index)
        except self._nvml.NVMLError as error:
            raise no_gpu(Reason.FAILED, f"NVIDIA's driver gives no events: {error}") from None

    def _register(self, nvml: _Nvml, index: int) -> None:
        with contextlib.suppress(nvml.NVMLError):  # the card is already lost, or has no such events
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)
            self._uuids[_address(handle)] = _text(nvml.nvmlDeviceGetUUID(handle))

    def take(self) -> list[tuple[str, int]]:
        """Return the events since the last call, as (UUID, Xid), without waiting."""
        found: list[tuple[str, int]] = []
        with contextlib.suppress(self._nvml.NVMLError):  # a timeout: no event is left
            while len(found) < MAX_EVENTS:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                found.append((self._uuids.get(_address(event.device), ""), int(event.eventData)))
        return found


def _address(handle: Any) -> int:
    """Return the identity of a handle: nvmlDevice_t is an opaque pointer."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
