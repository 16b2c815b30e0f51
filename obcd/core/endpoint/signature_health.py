"""Which signatures an endpoint cannot serve as it should, and when it is tried again. Pure; `now` is an argument.

For example, its server lowered the context, or has the model on the CPU. It may serve other signatures well.
"""

from __future__ import annotations

from dataclasses import dataclass

from obcd.core.endpoint.retry import pause
from obcd.core.request.records import Signature, plain_model

#: First and longest pause before the next check, in seconds: each check usually costs a load of the model.
LOOK_BASE, LOOK_LIMIT = 15.0, 600.0


@dataclass(frozen=True, slots=True)
class _Fault:
    reason: str
    since: float
    retry_at: float
    looks: int


class SignatureHealth:
    """The signatures that one endpoint cannot serve."""

    def __init__(self) -> None:
        self._faults: dict[Signature, _Fault] = {}

    @property
    def has_no_faults(self) -> bool:
        """Return whether the endpoint has no fault at present."""
        return not self._faults

    def on_fault(self, signature: Signature, reason: str, sent_at: float, now: float, key: str) -> None:
        """Record a check that found a fault; a request that was sent before the last fault is out of date.

        Args:
            key: The endpoint's name: endpoints that failed together are not tried again together.
        """
        known = self._faults.get(signature)
        if known is not None and sent_at <= known.since:
            return
        looks = known.looks + 1 if known is not None else 1
        self._faults[signature] = _Fault(reason, now, now + pause(looks, LOOK_BASE, LOOK_LIMIT, key), looks)

    def on_answer(self, signature: Signature, sent_at: float) -> bool:
        """Record a request that was answered: if it is newer than the last fault, that fault is over.

        Returns:
            Whether the endpoint had a fault until now.
        """
        known = self._faults.get(signature)
        if known is None or sent_at <= known.since:
            return False
        del self._faults[signature]
        return True

    def forgive(self) -> None:
        """Forget all faults: the requirements have changed."""
        self._faults.clear()

    def admits(self, signature: Signature, now: float, *, is_tried: bool) -> bool:
        """Return whether a request may be sent: after the pause a single one, as the next check.

        Args:
            is_tried: Whether such a request is already there.
        """
        fault = self._faults.get(signature)
        return fault is None or (now >= fault.retry_at and not is_tried)

    def reason(self, signature: Signature) -> str:
        """Return why the endpoint does not serve a signature, or "" if it does."""
        fault = self._faults.get(signature)
        return fault.reason if fault is not None else ""

    def sentences(self) -> set[str]:
        """Return the faults for people: `{"llama3.2: only 50 % of it lies on the GPU …"}`."""
        return {f"{plain_model(signature.model)}: {fault.reason}" for signature, fault in self._faults.items()}
