"""The steps to recover an endpoint that answers no request while its control calls work. Pure.

    CALM ─ silence ─► LOOK: is its model loaded? ── no, or an error ────────────► OVER: the next request loads it
                       │ yes          └─ no answer ──────────────────────────────► REST
                       ▼
                     TOKEN: is one token computed? ── yes, or an error ──────────► OVER: it is slow, nothing is done
                       │ no answer    └─ yes, by another process ─► DROP: break off what is in flight ─► OVER
                       ▼
                     CANCEL: break off what is in flight; Ollama ends no process that is in use
                       ▼
                     UNLOAD: end the model's process ── no answer, or an error ──► REST
                       ▼
                     GONE: has it ended? ── no, or no answer ────────────────────► REST
                       └ yes ────────────────────────────────────────────────────► OVER: the next request loads it
    REST ─ its pause is over ─► LOOK              OVER ─ silence ─► LOOK              any ─ an answer ─► CALM

The caller performs `step`, reports the finding with `note`, and so on until it `is_at_rest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from obcd.core.endpoint.retry import pause
from obcd.errors import IllegalMoveError

#: First and longest pause after a round that did not help, in seconds.
REST_BASE, REST_LIMIT = 5.0, 300.0


class RecoveryStep(StrEnum):
    """The present step."""

    CALM = "calm"  # nothing is wrong
    LOOK = "look"  # ask whether the model is loaded: a token would begin a load, and giving it up would end that load
    TOKEN = "token"  # noqa: S105 - request the computation of one token
    DROP = "drop"  # the server has replaced the process that hung: abort what is in flight at that one
    CANCEL = "cancel"  # abort what is in flight
    UNLOAD = "unload"  # have the model's process ended
    GONE = "gone"  # wait until it has ended
    OVER = "over"  # a request may be tried
    REST = "rest"  # nothing helped: do nothing until the pause is over


class RecoveryFinding(StrEnum):
    """The finding of a step."""

    YES = "yes"
    RELOADED = "reloaded"  # yes, after the server had loaded the model again by itself
    NO = "no"
    SILENT = "silent"  # the server accepted the call and did not answer in time
    ERROR = "error"  # it answered with an error, or not as Ollama does


#: Steps at which there is nothing to do.
RESTING = frozenset({RecoveryStep.CALM, RecoveryStep.OVER, RecoveryStep.REST})

#: {(step, finding): the next step}; other pairs cannot occur.
MOVES: Mapping[tuple[RecoveryStep, RecoveryFinding], RecoveryStep] = {
    (RecoveryStep.LOOK, RecoveryFinding.YES): RecoveryStep.TOKEN,
    (RecoveryStep.LOOK, RecoveryFinding.NO): RecoveryStep.OVER,
    (RecoveryStep.LOOK, RecoveryFinding.ERROR): RecoveryStep.OVER,  # it answers: the next load will show the error
    (RecoveryStep.LOOK, RecoveryFinding.SILENT): RecoveryStep.REST,
    (RecoveryStep.TOKEN, RecoveryFinding.YES): RecoveryStep.OVER,
    (RecoveryStep.TOKEN, RecoveryFinding.ERROR): RecoveryStep.OVER,
    (RecoveryStep.TOKEN, RecoveryFinding.RELOADED): RecoveryStep.DROP,
    (RecoveryStep.DROP, RecoveryFinding.YES): RecoveryStep.OVER,
    (RecoveryStep.TOKEN, RecoveryFinding.SILENT): RecoveryStep.CANCEL,
    (RecoveryStep.CANCEL, RecoveryFinding.YES): RecoveryStep.UNLOAD,
    (RecoveryStep.UNLOAD, RecoveryFinding.YES): RecoveryStep.GONE,
    (RecoveryStep.UNLOAD, RecoveryFinding.ERROR): RecoveryStep.REST,
    (RecoveryStep.UNLOAD, RecoveryFinding.SILENT): RecoveryStep.REST,
    (RecoveryStep.GONE, RecoveryFinding.YES): RecoveryStep.OVER,
    (RecoveryStep.GONE, RecoveryFinding.NO): RecoveryStep.REST,
    (RecoveryStep.GONE, RecoveryFinding.ERROR): RecoveryStep.REST,
    (RecoveryStep.GONE, RecoveryFinding.SILENT): RecoveryStep.REST,
}

#: Why a model cannot be unloaded although the server accepted the call: Ollama ends no process that is in use.
STAYS = "it stays loaded, perhaps because another program uses it"
#: The sentence before the first step.
SILENCE = "no request gets an answer: checking whether the server hangs"
#: {step: the sentence when it is taken}; the other steps have none
SENTENCES: Mapping[RecoveryStep, str] = {
    RecoveryStep.TOKEN: "no request gets an answer: one token is requested, to see whether the server is slow or hangs",
    RecoveryStep.DROP: "a token came, after the server had loaded the model again: its requests in flight are aborted",
    RecoveryStep.CANCEL: "it hangs, no token came: its requests in flight are aborted, and its model is unloaded",
}

#: {the last step: the sentence that a request may be tried}
ENDINGS: Mapping[RecoveryStep, str] = {
    RecoveryStep.LOOK: "its model is not loaded: it is loaded again before the next request",
    RecoveryStep.TOKEN: "a token came: it is slow, and does not hang",
    RecoveryStep.DROP: "it hung, and the server has loaded its model again by itself",
    RecoveryStep.GONE: "it hung: its model is unloaded, and loaded again before the next request",
}


@dataclass(slots=True)
class RecoverySteps:
    """The progress at one endpoint; one thread at a time, `now` is monotonic seconds.

    Attributes:
        sentence: What to report about the present step, for people; "" if there is nothing new.
        retry_at: When the present rest is over.
    """

    key: str = ""
    step: RecoveryStep = RecoveryStep.CALM
    sentence: str = ""
    retry_at: float = 0.0
    _rests: int = 0

    @property
    def is_at_rest(self) -> bool:
        """Return whether there is no step to take now."""
        return self.step in RESTING

    def begin(self, now: float) -> bool:
        """Begin another round, unless the pause after the last one is not over; return whether it began.

        Raises:
            IllegalMoveError: If a round is under way.
        """
        if not self.is_at_rest:
            raise IllegalMoveError(f"{self.step} has begun")
        if self.step is RecoveryStep.REST and now < self.retry_at:
            return False
        self._move(RecoveryStep.LOOK)
        return True

    def note(self, finding: RecoveryFinding, now: float, reason: str = "") -> None:
        """Move on by the finding of the present step.

        Args:
            reason: What prevented the step, for people.

        Raises:
            IllegalMoveError: If the present step cannot have this finding; nothing has changed.
        """
        before = self.step
        after = MOVES.get((before, finding))
        if after is None:
            raise IllegalMoveError(f"{finding} after {before}")
        self._move(after)
        if after is RecoveryStep.OVER:
            self.sentence = ENDINGS[before]
        elif after is RecoveryStep.REST:
            self._rests += 1
            self.retry_at = now + pause(self._rests, REST_BASE, REST_LIMIT, self.key)
            self.sentence = (
                f"no request gets an answer, and its model cannot be unloaded ({reason or STAYS}): restart the server"
            )

    def on_answer(self) -> None:
        """Forget what was wrong: a request was answered."""
        if self.is_at_rest:
            self._move(RecoveryStep.CALM)
            self._rests = 0

    def _move(self, step: RecoveryStep) -> None:
        self.step, self.sentence = step, SENTENCES.get(step, "")
