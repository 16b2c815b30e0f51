"""The steps of `core.ladder` as calls to a server: what is done about one that answers nobody.

Ollama has no time limit of its own for a generation, and goes on sending requests to a process that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from obcd.clock import monotonic
from obcd.core.ladder import Finding, Ladder, Step
from obcd.core.records import Signature
from obcd.ollama.control import ControlError, SilentError, ask_loaded, ask_one_token, unload
from obcd.ollama.loaded import find_loaded
from obcd.secret import Secret

#: Seconds until an unloaded model has to be gone (Ollama itself waits five for the memory), and between looks.
GONE_SECONDS, LOOK_SECONDS = 20.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
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


def climb(ladder: Ladder, patient: Patient) -> None:
    """Take one step after the other until the ladder is at rest; takes up to a minute beside the token."""
    while not ladder.is_at_rest:
        if ladder.sentence:
            patient.tell(ladder.sentence)
        reason = ""
        try:
            finding = _STEPS[ladder.step](patient)
        except SilentError as error:
            finding, reason = Finding.SILENT, str(error)
        except ControlError as error:
            finding, reason = Finding.ERROR, str(error)
        if ladder.step is Step.TOKEN and finding is Finding.SILENT and patient.is_well():
            finding = Finding.YES  # our token only had to wait behind others
        ladder.note(finding, monotonic(), reason)
    patient.tell(ladder.sentence)


def _look(patient: Patient) -> Finding:
    return Finding.YES if _is_loaded(patient) else Finding.NO


def _have_a_token(patient: Patient) -> Finding:
    ask_one_token(patient.url, patient.signature, patient.token_seconds, patient.token)
    return Finding.YES


def _cancel(patient: Patient) -> Finding:
    patient.break_off()
    return Finding.YES


def _unload(patient: Patient) -> Finding:
    unload(patient.url, patient.signature.model, patient.token)
    return Finding.YES


def _wait_until_gone(patient: Patient) -> Finding:
    until = monotonic() + GONE_SECONDS
    while _is_loaded(patient):
        if monotonic() > until:
            return Finding.NO
        threading.Event().wait(LOOK_SECONDS)
    return Finding.YES


def _is_loaded(patient: Patient) -> bool:
    return find_loaded(ask_loaded(patient.url, patient.token), patient.signature.model) is not None


_STEPS: dict[Step, Callable[[Patient], Finding]] = {
    Step.LOOK: _look,
    Step.TOKEN: _have_a_token,
    Step.CANCEL: _cancel,
    Step.UNLOAD: _unload,
    Step.GONE: _wait_until_gone,
}
