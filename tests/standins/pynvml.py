"""Stands in for `pynvml` of the package nvidia-ml-py; what it shows stands in `cards.json` (see tests/gpu_support.py).

Only names and signatures that the real module has; a test compares them. Every call reads the file again, so that a
card can be lost while a process runs. It stands before the real module: in `sys.modules`, or on PYTHONPATH, which comes
before site-packages.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from dataclasses import dataclass
from typing import Any, ClassVar

#: Put here by gpu_support, for starts whose environment has no STANDIN_FOLDER.
DEFAULT_FOLDER = ""

NVML_SUCCESS = 0
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_TIMEOUT = 10
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
NVML_ERROR_UNKNOWN = 999
NVML_TEMPERATURE_GPU = 0
NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
NVML_VOLATILE_ECC = 0
NVML_DEVICE_MIG_ENABLE = 1
nvmlEventTypeXidCriticalError = 8

_STATES = {
    "not-loaded": NVML_ERROR_DRIVER_NOT_LOADED,
    "mismatch": NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    "denied": NVML_ERROR_NO_PERMISSION,
    "no-library": NVML_ERROR_LIBRARY_NOT_FOUND,
}


class NVMLError(Exception):
    """An error of the library; `value` is its number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class _Device(ctypes.Structure):
    """What a handle points to."""

    _fields_: ClassVar = [("number", ctypes.c_uint)]


#: {(UUID of the card, UUID of the MIG instance or ""): its handle}; a handle is a pointer, as in the real module
_handles: dict[tuple[str, str], Any] = {}


def _handle(uuid: str, mig: str = "") -> Any:
    return _handles.setdefault((uuid, mig), ctypes.pointer(_Device(len(_handles))))


def _named(handle: Any) -> tuple[str, str]:
    names = list(_handles)
    return names[int(handle.contents.number)]


@dataclass
class _Memory:
    total: int
    free: int
    used: int


@dataclass
class _Rates:
    gpu: int
    memory: int


@dataclass
class _Pci:
    busId: bytes


@dataclass
class _Event:
    device: Any
    eventType: int
    eventData: int


class _Set:
    def __init__(self) -> None:
        self.uuids: list[str] = []
        self.seen = 0


def _read() -> dict[str, Any]:
    folder = os.environ.get("STANDIN_FOLDER") or DEFAULT_FOLDER
    with open(os.path.join(folder, "cards.json"), encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    if document["driver"] == "hung":
        time.sleep(60)
    if document["driver"] in _STATES:
        raise NVMLError(_STATES[document["driver"]])
    return document


def _card(handle: Any) -> dict[str, Any]:
    for card in _read()["cards"]:
        if card["uuid"] == _named(handle)[0]:
            if card.get("lost"):
                raise NVMLError(NVML_ERROR_GPU_IS_LOST)
            return dict(card)
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def _known(found: Any) -> Any:
    if found is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return found


def nvmlInit() -> None:
    _read()


def nvmlShutdown() -> None:
    pass


def nvmlDeviceGetCount() -> int:
    return len(_read()["cards"])


def nvmlDeviceGetHandleByIndex(index: int) -> Any:
    card = _read()["cards"][index]
    if card.get("lost") is True:
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    return _handle(card["uuid"])


def nvmlDeviceGetHandleByUUID(uuid: str) -> Any:
    for index, card in enumerate(_read()["cards"]):
        if card["uuid"] == uuid:
            return nvmlDeviceGetHandleByIndex(index)
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetUUID(handle: Any) -> str:
    uuid, mig = _named(handle)
    if not any(card["uuid"] == uuid and card.get("lost") == "later" for card in _read()["cards"]):
        _card(handle)
    return mig or uuid


def nvmlDeviceGetName(handle: Any) -> str:
    return str(_card(handle)["name"])


def nvmlDeviceGetPciInfo(handle: Any) -> _Pci:
    return _Pci(_card(handle)["pci"].encode())


def nvmlDeviceGetMemoryInfo(handle: Any) -> _Memory:
    card = _card(handle)
    total, used = card["memory_mib"] * 2**20, card.get("used_mib", 0) * 2**20
    return _Memory(total, total - used, used)


def nvmlDeviceGetMigMode(device: Any) -> list[int]:
    mode = int(_known(_card(device).get("mig")) is not None)
    return [mode, mode]


def nvmlDeviceGetMaxMigDeviceCount(device: Any) -> int:
    return 7 if _card(device).get("mig") else 0


def nvmlDeviceGetMigDeviceHandleByIndex(device: Any, index: int) -> Any:
    for instance in _card(device).get("mig") or ():
        if instance["number"] == index:
            return _handle(_named(device)[0], instance["uuid"])
    raise NVMLError(NVML_ERROR_NOT_FOUND)


def nvmlDeviceGetUtilizationRates(handle: Any) -> _Rates:
    return _Rates(_known(_card(handle).get("utilisation")), 0)


def nvmlDeviceGetTemperature(handle: Any, sensor: int) -> int:
    assert sensor == NVML_TEMPERATURE_GPU
    return int(_known(_card(handle).get("temperature")))


def nvmlDeviceGetPowerUsage(handle: Any) -> int:
    return int(_known(_card(handle).get("power_watts")) * 1000)


def nvmlDeviceGetTotalEnergyConsumption(handle: Any) -> int:
    return int(_known(_card(handle).get("energy_joules")) * 1000)


def nvmlDeviceGetTotalEccErrors(handle: Any, errorType: int, counterType: int) -> int:
    assert (errorType, counterType) == (NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC)
    return int(_known(_card(handle).get("ecc")))


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: Any) -> int:
    return int(_card(handle).get("throttle", 0))


def nvmlEventSetCreate() -> _Set:
    return _Set()


def nvmlDeviceRegisterEvents(handle: Any, eventTypes: int, eventSet: _Set) -> None:
    assert eventTypes == nvmlEventTypeXidCriticalError
    _card(handle)
    eventSet.uuids.append(_named(handle)[0])


def nvmlEventSetWait_v2(eventSet: _Set, timeoutms: int) -> _Event:
    events = _read().get("xids", [])
    while eventSet.seen < len(events):
        uuid, xid = events[eventSet.seen]
        eventSet.seen += 1
        if uuid in eventSet.uuids:
            return _Event(_handle(uuid), nvmlEventTypeXidCriticalError, xid)
    time.sleep(timeoutms / 1000)
    raise NVMLError(NVML_ERROR_TIMEOUT)


def nvmlEventSetFree(eventSet: _Set) -> None:
    eventSet.uuids.clear()
