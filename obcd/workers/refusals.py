"""Whether an error that obcd does not know is the request's fault: the endpoint proves itself with one token.

the token comes                            ─► the request is at fault: the endpoint refuses it, and serves others
it comes after the model was loaded again  ─► the model's process crashed; any request may have caused that
it does not come                           ─► the endpoint is at fault
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import Signature
from obcd.ollama.control import RELOADED_SECONDS, ControlError, ask_loaded, ask_one_token
from obcd.ollama.loaded import find_loaded
from obcd.secret import Secret

#: Kinds of faults that the request or the endpoint may have caused.
UNCLEAR = (FaultKind.SERVER_ERROR, FaultKind.ABORTED)
#: Least seconds between two proofs of one endpoint.
PROOF_SECONDS = 3.0


class Proof(StrEnum):
    """The finding of a proof."""

    SERVES = "serves"  # a token came
    RELOADED = "reloaded"  # a token came, after the model was loaded again
    FAILS = "fails"  # none came


@dataclass(frozen=True, slots=True)
class _Proven:
    proof: Proof
    signature: Signature
    began: float
    ended: float


class Refusals:
    """The proofs of one endpoint. Any thread may call it; one of them makes the proof, the others wait for it.

    Args:
        token_seconds: Returns how long a token may take, in seconds.
        pause: Waits for so many seconds.
    """

    def __init__(
        self, url: str, token_seconds: Callable[[Signature], float], pause: Callable[[float], object] | None = None
    ) -> None:
        self._url = url
        self._token_seconds = token_seconds
        self._pause = pause or threading.Event().wait
        self._lock = threading.Lock()
        self._last: _Proven | None = None

    def needs_proof(self, fault: Fault, signature: Signature, sent_at: float) -> bool:
        """Return whether `weigh` would have to wait for a proof."""
        return fault.kind in UNCLEAR and self._known(signature, sent_at) is None

    def weigh(
        self, fault: Fault, signature: Signature, sent_at: float, load_seconds: float, token: Secret | None
    ) -> Fault:
        """Return a fault as it counts: the request's, the endpoint's, or that of a crash. Other kinds stay as they are.

        Args:
            sent_at: When the request was sent, in monotonic seconds.
            load_seconds: How long a load of the model may take.
        """
        if fault.kind not in UNCLEAR:
            return fault
        before = self._last
        with self._lock:
            others = self._last is not before  # another request's proof came while this one waited
            proof = self._known(signature, sent_at) or self._prove(signature, load_seconds, token)
        if proof is Proof.FAILS and others:  # it was sent before anybody knew
            return replace(fault, costs_attempt=False)
        if proof is Proof.SERVES:
            return replace(fault, remedy=Remedy.ELSEWHERE, costs_attempt=True, harm=Harm.NONE, is_refusal=True)
        if proof is Proof.RELOADED:
            sentence = "the model's process ended during this request"
            return replace(fault, kind=FaultKind.CRASHED, message=sentence, costs_attempt=False, harm=Harm.STRIKE)
        return fault

    def _known(self, signature: Signature, sent_at: float) -> Proof | None:
        """Return the last proof if it is fresh and says something about a request that was sent at that time."""
        last = self._last
        if last is None or last.signature != signature or monotonic() - last.ended >= PROOF_SECONDS:
            return None
        # A load says of requests that were sent before it that they were in the crash, and nothing of later ones.
        return last.proof if last.proof is not Proof.RELOADED or sent_at < last.began else None

    def _prove(self, signature: Signature, load_seconds: float, token: Secret | None) -> Proof:
        began = monotonic()
        if self._last is not None and (wait := self._last.ended + PROOF_SECONDS - began) > 0:
            self._pause(wait)
            began = monotonic()
        proof = self._ask(signature, load_seconds, token)
        self._last = _Proven(proof, signature, began, monotonic())
        return proof

    def _ask(self, signature: Signature, load_seconds: float, token: Secret | None) -> Proof:
        # A load that is given up ends, and the next request has to begin it again.
        limit = self._token_seconds(signature) + (0.0 if self._is_loaded(signature, token) else load_seconds)
        try:
            loaded_for = ask_one_token(self._url, signature, limit, token)
        except ControlError:
            return Proof.FAILS
        return Proof.SERVES if loaded_for < RELOADED_SECONDS else Proof.RELOADED

    def _is_loaded(self, signature: Signature, token: Secret | None) -> bool:
        try:
            return find_loaded(ask_loaded(self._url, token), signature.model) is not None
        except ControlError:  # perhaps a proxy that lets only some paths through
            return True
