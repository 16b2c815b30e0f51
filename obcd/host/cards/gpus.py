"""The GPUs of this machine: the cards, their readings, and the faults that the driver reports.

    NVML (package nvidia-ml-py) ─► Card, Readings, Xid events

Every call has a time limit: a failing driver can block a call for ever, and no caller may hang with it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from obcd.errors import ObcdError
from obcd.host.cards import nvml
from obcd.host.cards.card import Card, Readings, Reason, no_gpu

#: Seconds to find the cards: without nvidia-persistenced the driver first wakes each card, which takes seconds.
DISCOVERY_SECONDS = 30.0
#: Seconds to read the cards; the watch does it every few seconds.
READING_SECONDS = 3.0
#: Seconds to read events, a call that should return at once.
EVENT_SECONDS = 1.0
#: Seconds after which `XidWatch` tries again if there was no NVML.
RETRY_SECONDS = 60.0

T = TypeVar("T")

#: The call that hangs, if one does; while it hangs, no other call goes to the driver.
_hanging: list[threading.Thread] = []


def answer_within(seconds: float, ask: Callable[[], T]) -> T:
    """Return the result of a call that may hang.

    It runs in its own thread, which is abandoned when the time is over: nothing ends a call inside the driver.

    Raises:
        GpuError: With `Reason.HUNG`, after `seconds`, or at once while an earlier call still hangs.
        BaseException: What the call raised.
    """
    _hanging[:] = [thread for thread in _hanging if thread.is_alive()]
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - it is raised again by the waiting caller
            errors.append(error)

    if not _hanging:
        thread = threading.Thread(target=run, name="driver", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            _hanging.append(thread)
    if errors:
        raise errors[0]
    if not answers:
        raise no_gpu(Reason.HUNG, "NVIDIA's driver does not answer: see dmesg, and reboot this machine")
    return answers[0]


def discover() -> list[Card]:
    """Return the cards that answer, in nvidia-smi's order.

    Raises:
        GpuError: If no card answers, with the reason; the message ends with what to do.
    """
    cards = answer_within(DISCOVERY_SECONDS, nvml.find_cards)
    if not cards:
        raise no_gpu(Reason.NO_CARD, "NVIDIA's driver is loaded, but no card answers")
    return cards


def read_cards(expected: Collection[str] = ()) -> dict[str, Readings]:
    """Return the readings of the cards and MIG instances, by UUID, within 3 s; raise nothing.

    {} means that the cards are unknown: there is no NVIDIA card, or the driver does not answer. If the driver answers,
    a card that it does not have is lost.

    Args:
        expected: UUIDs that should exist; the result has one with `is_lost` if the driver does not have it.
    """
    with contextlib.suppress(ObcdError):
        return answer_within(READING_SECONDS, lambda: nvml.read_cards(expected))
    return {}


class XidWatch:
    """The faults (Xid) that the driver reports after this object is made; without NVML there are none."""

    def __init__(self) -> None:
        self._events: nvml.XidEvents | None = None
        self._next_try = 0.0
        self._open()

    def poll(self) -> list[tuple[str, int]]:
        """Return the events since the last call as (UUID, Xid), within a second; an unknown UUID is ""."""
        self._open()
        events = self._events
        if events is None:
            return []
        try:
            return answer_within(EVENT_SECONDS, events.take)
        except ObcdError:
            return []

    def _open(self) -> None:
        """Make the event set; if that fails, the driver may come later."""
        if self._events is not None or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + RETRY_SECONDS
        with contextlib.suppress(ObcdError):
            self._events = answer_within(EVENT_SECONDS, nvml.XidEvents)
