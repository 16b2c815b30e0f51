"""What is done about a server that answers nobody, though its control calls work: its model's process may hang.

    silence ─► is it loaded (/api/ps)? ─► no: it may be loaded anew
                 ├► yes: is one token computed? ─► yes: it is slow, nothing is done
                 │        └► no: unload, which ends the process ─► gone: it may be loaded anew
                 │                                                  └► still there ─┐
                 └► no answer at all ─────────────────────────────────────────────► stuck: it needs somebody's help

Ollama has no time limit of its own for a generation, and goes on sending requests to a process that hangs.
"""

from __future__ import annotations

import threading

from obcd.clock import monotonic
from obcd.core.faults import Fault, Harm, Remedy
from obcd.core.records import Signature
from obcd.ollama.control import ControlError, SilentError, ask_loaded, ask_one_token, unload
from obcd.ollama.loaded import find_loaded
from obcd.secret import Secret

#: Seconds for one token; it may have to wait for a slot, or for the end of another request's prompt.
TOKEN_SECONDS = 30.0
#: Seconds until an unloaded model has to be gone (Ollama itself waits five for the memory), and between looks.
GONE_SECONDS, LOOK_SECONDS = 20.0, 0.1


def revive(url: str, signature: Signature, token: Secret | None = None) -> Fault | None:
    """Find out whether a loaded model hangs, and end its process if it does; takes up to a minute.

    Returns:
        None when a request may be tried again; the fault of the server where it needs somebody's help.
    """
    try:
        # Where nothing is loaded, a token would begin a load, and giving it up would end that.
        if find_loaded(ask_loaded(url, token), signature.model) is None:
            return None
        ask_one_token(url, signature, TOKEN_SECONDS, token)
    except SilentError:
        return _unload(url, signature, token)
    except ControlError:
        return None  # it answers, if only with an error: what that means is the next load's to find out
    return None


def _unload(url: str, signature: Signature, token: Secret | None) -> Fault | None:
    try:
        unload(url, signature.model, token)
        if _is_gone(url, signature.model, token):
            return None
        reason = "its model stays loaded"
    except ControlError as error:
        reason = str(error)
    message = f"it answers nobody, and its model cannot be unloaded ({reason}): start the server again"
    return Fault("stuck", message, Remedy.ELSEWHERE, costs_attempt=False, harm=Harm.DOWN)


def _is_gone(url: str, model: str, token: Secret | None) -> bool:
    until = monotonic() + GONE_SECONDS
    while find_loaded(ask_loaded(url, token), model) is not None:
        if monotonic() > until:
            return False
        threading.Event().wait(LOOK_SECONDS)
    return True
