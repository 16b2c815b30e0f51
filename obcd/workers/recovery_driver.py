"""The worker's part in the recovery of a server that does not respond; `core.endpoint.recovery_steps` has the steps.

slot thread ─ silence ─Stepped─► coordinator: the endpoint gets no requests …
                └─► probe thread: steps ─Stepped─► (the step being taken)
                                        └─Probed──► … until this says that it can be used
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.endpoint.recovery_steps import SILENCE, RecoveryFinding, RecoveryStep, RecoverySteps
from obcd.core.request.records import Signature
from obcd.ollama.recovery import RecoveringServer, run
from obcd.secret import Secret
from obcd.workers.cut_connections import CutConnections
from obcd.workers.loader import Loader
from obcd.workers.refusals import Refusals

#: The fault of requests that come while the worker finds out whether the server hangs, or cannot recover it.
DOUBTED = Fault(FaultKind.DOUBTED, "the server responds to no request", Remedy.ELSEWHERE, costs_attempt=False)

#: The fault of the request whose silence led to the finding that the server had loaded the model again by itself.
REPLACED = Fault(
    FaultKind.CRASHED,
    "the model's process hung during this request, and the server has replaced it",
    Remedy.ELSEWHERE,
    costs_attempt=False,
    harm=Harm.STRIKE,
)
#: Seconds beyond the limit of a token in which a round of recovery begins.
GRACE_SECONDS = 15.0


class RecoveryDriver:
    """The recovery of one endpoint. Only the probe thread calls `try_to_help`; any thread may call the other methods.

    Args:
        deadlines: The time limits that follow from its measured speed.
        break_off: Cancels the requests in flight there.
        tell: Called with each step.

    Attributes:
        refusals: Finds out whether an unknown error is that of the endpoint.
        cuts: Finds out whether the server ended.
    """

    def __init__(
        self,
        url: str,
        loader: Loader,
        deadlines: Deadlines,
        break_off: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self._url = url
        self._loader = loader
        self.deadlines = deadlines
        self._break_off = break_off
        self._tell = tell
        self._steps = RecoverySteps(url)
        #: The finding of the token of the present round, None while there is none; and its lock.
        self._token_finding: RecoveryFinding | None = None
        self._is_known = threading.Condition()
        self.refusals = Refusals(url, deadlines.token_limit)
        self.cuts = CutConnections(url)

    def on_silence(self, signature: Signature, sent_at: float) -> bool:
        """Record a request that was cancelled because it took too long; return whether no other request is answered.

        The step is reported at once, before the request's fault: otherwise the coordinator would send the next request
        to a server that does not respond.
        """
        is_news = self._loader.doubted is None
        is_silent = self._loader.on_silence(signature, sent_at)
        if is_silent and is_news:
            with self._is_known:
                self._token_finding = None
            self._tell(SILENCE)
        return is_silent

    def wait_for_reload(self, signature: Signature) -> bool:
        """Wait for the token, and return whether the server loaded the model again for it: then the process hung."""
        limit = self.deadlines.token_limit(signature) + GRACE_SECONDS
        with self._is_known:
            self._is_known.wait_for(lambda: self._token_finding is not None, limit)
            return self._token_finding is RecoveryFinding.RELOADED

    def _on_token(self, finding: RecoveryFinding) -> None:
        with self._is_known:
            self._token_finding = finding
            self._is_known.notify_all()

    def _end_wait(self) -> None:
        if self._token_finding is None:  # no token was requested
            self._on_token(RecoveryFinding.NO)

    def refusal(self) -> Fault | None:
        """Return why no request may be sent to the server now, None when there is no reason; the call is cheap."""
        return DOUBTED if self._loader.doubted is not None else None

    def try_to_help(self, token: Secret | None) -> str | None:
        """Take the recovery steps that are due if the server does not respond to requests; its control calls work.

        Returns:
            Why the server cannot be used yet, None when it can.
        """
        signature = self._loader.doubted
        if signature is None:
            self._steps.on_answer()
            self._end_wait()
            return None
        if not self._steps.begin(monotonic()):
            return self._steps.sentence
        server = RecoveringServer(
            url=self._url,
            signature=signature,
            token_seconds=self.deadlines.token_limit(signature),
            is_well=lambda: self._loader.doubted is None,
            break_off=self._break_off,
            tell=self._tell,
            on_token=self._on_token,
            token=token,
        )
        try:
            run(self._steps, server)
        except BaseException:
            self._steps = RecoverySteps(self._url)  # otherwise the steps would stay in the middle for ever
            raise
        finally:
            self._end_wait()
        if self._steps.step is RecoveryStep.REST:
            return self._steps.sentence
        self._loader.on_life()
        self._loader.forget()
        return None
