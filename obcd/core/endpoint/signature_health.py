"""Which signatures an endpoint cannot serve as it should, and when it is tried again. Pure; `now` is an argument.

Its server lowered the context, say, or has the model on the CPU. Other signatures it may well serve.
"""

from __future__ import annotations

from dataclasses import dataclass

from obcd.core.endpoint.retry import pause
from obcd.core.request.records import Signature, plain_model

#: First and longest pause before another look, in seconds: each one costs a load of the model, most often.
LOOK_BASE, LOOK_LIMIT = 15.0, 600.0


@dataclass(frozen=True, slots=True)
class _Fault:
    reason: str
    since: float
    retry_at: float
    looks: int


class SignatureHealth:
    """What one endpoint cannot serve."""

    def __init__(self) -> None:
        self._faults: dict[Signature, _Fault] = {}

    @property
    def has_no_faults(self) -> bool:
        """Return whether nothing is held against it."""
        return not self._faults

    def on_fault(self, signature: Signature, reason: str, sent_at: float, now: float, key: str) -> None:
        """Take note that a look found something; what was sent before the last one is old news.

        Args:
            key: The endpoint's name: what failed together is not tried again together.
        """
        known = self._faults.get(signature)
        if known is not None and sent_at <= known.since:
            return
        looks = known.looks + 1 if known is not None else 1
        self._faults[signature] = _Fault(reason, now, now + pause(looks, LOOK_BASE, LOOK_LIMIT, key), looks)

    def on_answer(self, signature: Signature, sent_at: float) -> bool:
        """Take note of a request that was answered: the look before it found nothing, if it is a newer one.

        Returns:
            Whether something was held against the endpoint until now.
        """
        known = self._faults.get(signature)
        if known is None or sent_at <= known.since:
            return False
        del self._faults[signature]
        return True

    def forgive(self) -> None:
        """Forget what was found: something else is asked for by now."""
        self._faults.clear()

    def admits(self, signature: Signature, now: float, *, is_tried: bool) -> bool:
        """Return whether a request may be sent: after the pause one, which has it looked at again.

        Args:
            is_tried: Whether one is there already.
        """
        fault = self._faults.get(signature)
        return fault is None or (now >= fault.retry_at and not is_tried)

    def reason(self, signature: Signature) -> str:
        """Return what is held against its serving a signature, "" for nothing."""
        fault = self._faults.get(signature)
        return fault.reason if fault is not None else ""

    def sentences(self) -> set[str]:
        """Return what is wrong, for people: `{"llama3.2: only 50 % of it lies on the GPU …"}`."""
        return {f"{plain_model(signature.model)}: {fault.reason}" for signature, fault in self._faults.items()}
