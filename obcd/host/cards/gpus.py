"""The GPUs of this machine: which there are, how they are, and what went wrong with them.

    NVML (package nvidia-ml-py) ─► Card, Readings, Xid events

Every question has a time limit: a sick driver can hold a call for ever, and no caller may hang with it.
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

#: Seconds for finding the cards: without nvidia-persistenced the driver first wakes each of them, seconds a card.
DISCOVERY_SECONDS = 30.0
#: Seconds for reading them; the watch does it every few seconds.
READING_SECONDS = 3.0
#: Seconds for asking for events, which is to return at once.
EVENT_SECONDS = 1.0
#: Seconds after which `XidWatch` tries again where there was no NVML.
RETRY_SECONDS = 60.0

T = TypeVar("T")

#: The question that hangs, if one does; while it hangs, no other is put to the driver.
_hanging: list[threading.Thread] = []


def answer_within(seconds: float, ask: Callable[[], T]) -> T:
    """Return the answer of a call that may hang.

    It runs in a thread of its own, which is left behind when the time is over: nothing ends a call inside the driver.

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
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
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
        raise no_gpu(Reason.HUNG, "NVIDIA's driver does not answer: look at dmesg, and reboot this machine")
    return answers[0]


def discover() -> list[Card]:
    """Return the cards that answer, in nvidia-smi's order.

    Raises:
        GpuError: If there is none, with its reason; the message ends with the ways on.
    """
    cards = answer_within(DISCOVERY_SECONDS, nvml.find_cards)
    if not cards:
        raise no_gpu(Reason.NO_CARD, "NVIDIA's driver is loaded, and no card answers")
    return cards


def read_cards(expected: Collection[str] = ()) -> dict[str, Readings]:
    """Return what the cards and MIG instances tell of themselves now, by UUID, within 3 s; raises nothing.

    {} where nothing can tell: no NVIDIA card here, or a driver that does not answer. Where the driver answers, a card
    that is not in it is lost.

    Args:
        expected: UUIDs that should be there; each that the driver does not have is in the answer with `is_lost`.
    """
    with contextlib.suppress(ObcdError):
        return answer_within(READING_SECONDS, lambda: nvml.read_cards(expected))
    return {}


class XidWatch:
    """The driver's own reports of trouble (Xid) since this object was made; none where there is no NVML."""

    def __init__(self) -> None:
        self._events: nvml.XidEvents | None = None
        self._next_try = 0.0
        self._open()

    def poll(self) -> list[tuple[str, int]]:
        """Return what happened since the last call as (UUID, Xid), within a second; the UUID is "" when not known."""
        self._open()
        events = self._events
        if events is None:
            return []
        try:
            return answer_within(EVENT_SECONDS, events.take)
        except ObcdError:
            return []

    def _open(self) -> None:
        """Make the event set; where that fails, the driver may come later."""
        if self._events is not None or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + RETRY_SECONDS
        with contextlib.suppress(ObcdError):
            self._events = answer_within(EVENT_SECONDS, nvml.XidEvents)
