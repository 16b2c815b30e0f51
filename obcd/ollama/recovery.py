"""The steps of `core.endpoint.recovery_steps` as calls to a server: what is done about one that answers nobody.

Ollama has no time limit of its own for a generation, and goes on sending requests to a process that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from obcd.clock import monotonic
from obcd.core.endpoint.recovery_steps import RecoveryFinding, RecoveryStep, RecoverySteps
from obcd.core.request.records import Signature
from obcd.ollama.control import ControlError, SilentError, ask_loaded, ask_one_token, unload
from obcd.ollama.loaded import find_loaded
from obcd.secret import Secret

#: Seconds until an unloaded model has to be gone (Ollama itself waits five for the memory), and between looks.
GONE_SECONDS, LOOK_SECONDS = 20.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveringServer:
    """Who answers nobody.

    Attributes:
        signature: What it should have loaded.
        token_seconds: How long one token may take; it may have to wait for a slot, or for another request's prompt.
        is_well: Tells whether somebody was answered meanwhile.
        break_off: Breaks off what we have in flight there.
        tell: Is told each step, in a sentence for people.
    """

    url: str
    signature: Signature
    token_seconds: float
    is_well: Callable[[], bool]
    break_off: Callable[[], None]
    tell: Callable[[str], None]
    token: Secret | None = None


def climb(ladder: RecoverySteps, patient: RecoveringServer) -> None:
    """Take one step after the other until the ladder is at rest; takes up to a minute beside the token."""
    while not ladder.is_at_rest:
        if ladder.sentence:
            patient.tell(ladder.sentence)
        reason = ""
        try:
            finding = _STEPS[ladder.step](patient)
        except SilentError as error:
            finding, reason = RecoveryFinding.SILENT, str(error)
        except ControlError as error:
            finding, reason = RecoveryFinding.ERROR, str(error)
        if ladder.step is RecoveryStep.TOKEN and finding is RecoveryFinding.SILENT and patient.is_well():
            finding = RecoveryFinding.YES  # our token only had to wait behind others
        ladder.note(finding, monotonic(), reason)
    patient.tell(ladder.sentence)


def _look(patient: RecoveringServer) -> RecoveryFinding:
    return RecoveryFinding.YES if _is_loaded(patient) else RecoveryFinding.NO


def _have_a_token(patient: RecoveringServer) -> RecoveryFinding:
    ask_one_token(patient.url, patient.signature, patient.token_seconds, patient.token)
    return RecoveryFinding.YES


def _cancel(patient: RecoveringServer) -> RecoveryFinding:
    patient.break_off()
    return RecoveryFinding.YES


def _unload(patient: RecoveringServer) -> RecoveryFinding:
    unload(patient.url, patient.signature.model, patient.token)
    return RecoveryFinding.YES


def _wait_until_gone(patient: RecoveringServer) -> RecoveryFinding:
    until = monotonic() + GONE_SECONDS
    while _is_loaded(patient):
        if monotonic() > until:
            return RecoveryFinding.NO
        threading.Event().wait(LOOK_SECONDS)
    return RecoveryFinding.YES


def _is_loaded(patient: RecoveringServer) -> bool:
    return find_loaded(ask_loaded(patient.url, patient.token), patient.signature.model) is not None


_STEPS: dict[RecoveryStep, Callable[[RecoveringServer], RecoveryFinding]] = {
    RecoveryStep.LOOK: _look,
    RecoveryStep.TOKEN: _have_a_token,
    RecoveryStep.CANCEL: _cancel,
    RecoveryStep.UNLOAD: _unload,
    RecoveryStep.GONE: _wait_until_gone,
}
