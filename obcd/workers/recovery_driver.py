"""A worker's part in getting a server that answers nobody back to work; the steps are `core.endpoint.recovery_steps`'s.

slot thread ─ silence ─Stepped─► coordinator: the endpoint gets nothing …
                └─► probe thread: steps ─Stepped─► (what it does)
                                        └─Probed──► … until this says that it can be asked
"""

from __future__ import annotations

from collections.abc import Callable

from obcd.clock import monotonic
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.endpoint.faults import Fault, Remedy
from obcd.core.endpoint.recovery_steps import SILENCE, RecoveryStep, RecoverySteps
from obcd.core.request.records import Signature
from obcd.ollama.recovery import RecoveringServer, run
from obcd.secret import Secret
from obcd.workers.loader import Loader

#: The fault of what comes while it is found out whether the server hangs, and while it cannot be helped.
DOUBTED = Fault("doubted", "the server answers nobody at present", Remedy.ELSEWHERE, costs_attempt=False)


class RecoveryDriver:
    """The steps of one endpoint. `try_to_help` is the probe thread's, the rest is any thread's.

    Args:
        deadlines: What is known of its speed.
        break_off: Breaks off what is in flight there.
        tell: Called with each step.
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

    def on_silence(self, signature: Signature, sent_at: float) -> bool:
        """Record a request that was broken off since it took too long; return whether nobody else is answered.

        Told at once, before its fault: else the coordinator would send the next request to where none is answered.
        """
        is_news = self._loader.doubted is None
        is_silent = self._loader.on_silence(signature, sent_at)
        if is_silent and is_news:
            self._tell(SILENCE)
        return is_silent

    def refusal(self) -> Fault | None:
        """Return why nothing is to be sent to the server now, None when there is no reason: it costs nothing."""
        return DOUBTED if self._loader.doubted is not None else None

    def try_to_help(self, token: Secret | None) -> str | None:
        """Help the server if it answers nobody, and none of that is too soon; its control calls work.

        Returns:
            Why it cannot be asked yet, None when it can.
        """
        signature = self._loader.doubted
        if signature is None:
            self._steps.on_answer()
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
            token=token,
        )
        try:
            run(self._steps, server)
        except BaseException:
            self._steps = RecoverySteps(self._url)  # else it would stay in the middle for ever
            raise
        if self._steps.step is RecoveryStep.REST:
            return self._steps.sentence
        self._loader.on_life()
        self._loader.forget()
        return None
