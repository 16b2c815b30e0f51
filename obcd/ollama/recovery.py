"""The steps of `core.endpoint.recovery_steps` as calls to a server, to recover one that responds to no request.

Ollama has no time limit for a generation, and keeps sending requests to a process that hangs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from obcd.clock import monotonic
from obcd.core.endpoint.recovery_steps import RecoveryFinding, RecoveryStep, RecoverySteps
from obcd.core.request.records import Signature
from obcd.ollama.control import (
    RELOADED_SECONDS,
    ControlError,
    SilentError,
    ask_loaded,
    ask_one_token,
    find_shared,
    unload,
)
from obcd.ollama.loaded import find_loaded
from obcd.secret import Secret

#: Seconds until an unloaded model has to be gone (Ollama itself waits five for the memory), and between checks.
GONE_SECONDS, LOOK_SECONDS = 20.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveringServer:
    """A server that responds to no request.

    Attributes:
        signature: The signature that it should have loaded.
        token_seconds: How long one token may take; it may have to wait for a slot, or for another request's prompt.
        is_well: Returns whether a request has got a response meanwhile.
        break_off: Cancels obcd's requests in flight there.
        tell: Called with a sentence for people at each step.
        on_token: Called with the finding of the token.
    """

    url: str
    signature: Signature
    token_seconds: float
    is_well: Callable[[], bool]
    break_off: Callable[[], None]
    tell: Callable[[str], None]
    on_token: Callable[[RecoveryFinding], None] = lambda _: None
    token: Secret | None = None


def run(steps: RecoverySteps, server: RecoveringServer) -> None:
    """Take one step after the other until no step is due; this takes up to a minute in addition to the token."""
    while not steps.is_at_rest:
        if steps.sentence:
            server.tell(steps.sentence)
        reason = ""
        try:
            finding = _STEPS[steps.step](server)
        except SilentError as error:
            finding, reason = RecoveryFinding.SILENT, str(error)
        except ControlError as error:
            finding, reason = RecoveryFinding.ERROR, str(error)
        if steps.step is RecoveryStep.TOKEN and finding is RecoveryFinding.SILENT and server.is_well():
            finding = RecoveryFinding.YES  # the token only had to wait behind other requests
        if steps.step is RecoveryStep.TOKEN:
            server.on_token(finding)
        steps.note(finding, monotonic(), reason)
    server.tell(steps.sentence)


def _look(server: RecoveringServer) -> RecoveryFinding:
    return RecoveryFinding.YES if _is_loaded(server) else RecoveryFinding.NO


def _have_a_token(server: RecoveringServer) -> RecoveryFinding:
    loaded_for = ask_one_token(server.url, server.signature, server.token_seconds, server.token)
    # Ollama itself notices a process that was stopped: it loads the model again after 10 s (v0.33, v0.24).
    return RecoveryFinding.RELOADED if loaded_for and loaded_for >= RELOADED_SECONDS else RecoveryFinding.YES


def _cancel(server: RecoveringServer) -> RecoveryFinding:
    server.break_off()
    return RecoveryFinding.YES


def _unload(server: RecoveringServer) -> RecoveryFinding:
    unload(server.url, server.signature.model, server.token)
    return RecoveryFinding.YES


def _wait_until_gone(server: RecoveringServer) -> RecoveryFinding:
    until = monotonic() + GONE_SECONDS
    while _is_loaded(server):
        if monotonic() > until:
            return RecoveryFinding.NO
        threading.Event().wait(LOOK_SECONDS)
    return RecoveryFinding.YES


def _is_loaded(server: RecoveringServer) -> bool:
    models, model = ask_loaded(server.url, server.token), server.signature.model
    return (find_loaded(models, model) or find_shared(models, server.url, model, server.token)) is not None


_STEPS: dict[RecoveryStep, Callable[[RecoveringServer], RecoveryFinding]] = {
    RecoveryStep.LOOK: _look,
    RecoveryStep.TOKEN: _have_a_token,
    RecoveryStep.DROP: _cancel,
    RecoveryStep.CANCEL: _cancel,
    RecoveryStep.UNLOAD: _unload,
    RecoveryStep.GONE: _wait_until_gone,
}
