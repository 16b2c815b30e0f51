"""What is done, step by step, about an endpoint that answers nobody while its control calls work. Pure.

    CALM ─ silence ─► LOOK: is its model loaded? ── no, or an error ────────────► OVER: the next request loads it
                       │ yes          └─ no answer ──────────────────────────────► REST
                       ▼
                     TOKEN: is one token computed? ── yes, or an error ──────────► OVER: it is slow, nothing is done
                       │ no answer
                       ▼
                     CANCEL: break off what is in flight; Ollama ends no process that is in use
                       ▼
                     UNLOAD: end the model's process ── no answer, or an error ──► REST
                       ▼
                     GONE: has it ended? ── no, or no answer ────────────────────► REST
                       └ yes ────────────────────────────────────────────────────► OVER: the next request loads it
    REST ─ its pause is over ─► LOOK              OVER ─ silence ─► LOOK              any ─ an answer ─► CALM

The caller does what `step` says, reports with `note` what came of it, and so on until it `is_at_rest`.
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
    """Where one is."""

    CALM = "calm"  # nothing is wrong
    LOOK = "look"  # ask whether the model is loaded: a token would begin a load, and giving it up would end that
    TOKEN = "token"  # noqa: S105 - have one token computed
    CANCEL = "cancel"  # break off what is in flight
    UNLOAD = "unload"  # have the model's process ended
    GONE = "gone"  # wait until it has
    OVER = "over"  # a request may be tried
    REST = "rest"  # nothing helped: leave it alone until the pause is over


class RecoveryFinding(StrEnum):
    """What came of a step."""

    YES = "yes"
    NO = "no"
    SILENT = "silent"  # the server took the call and did not answer in time
    ERROR = "error"  # it answered with an error, or not as Ollama does


#: Steps at which nothing is to be done.
RESTING = frozenset({RecoveryStep.CALM, RecoveryStep.OVER, RecoveryStep.REST})

#: {(step, what came of it): the next step}; what is not in it cannot happen.
MOVES: Mapping[tuple[RecoveryStep, RecoveryFinding], RecoveryStep] = {
    (RecoveryStep.LOOK, RecoveryFinding.YES): RecoveryStep.TOKEN,
    (RecoveryStep.LOOK, RecoveryFinding.NO): RecoveryStep.OVER,
    (RecoveryStep.LOOK, RecoveryFinding.ERROR): RecoveryStep.OVER,  # it answers: what is wrong the next load will tell
    (RecoveryStep.LOOK, RecoveryFinding.SILENT): RecoveryStep.REST,
    (RecoveryStep.TOKEN, RecoveryFinding.YES): RecoveryStep.OVER,
    (RecoveryStep.TOKEN, RecoveryFinding.ERROR): RecoveryStep.OVER,
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

#: Why a model cannot be unloaded whose server took the call: it ends no process that is in use.
STAYS = "it stays loaded, perhaps since somebody else uses it"
#: What is said of a silence, before the first step.
SILENCE = "nobody is answered: it is found out whether it hangs"
#: {step: what is said when it is taken}; nothing is said of the others
SENTENCES: Mapping[RecoveryStep, str] = {
    RecoveryStep.TOKEN: "nobody is answered: one token is asked for, to tell whether it is slow or hangs",
    RecoveryStep.CANCEL: "it hangs, no token came: what is in flight there is broken off, and its model unloaded",
}

#: {step that was the last one: how it is said that a request may be tried}
ENDINGS: Mapping[RecoveryStep, str] = {
    RecoveryStep.LOOK: "its model is not loaded: it is loaded anew before the next request",
    RecoveryStep.TOKEN: "a token came: it is slow, and does not hang",
    RecoveryStep.GONE: "it hung: its model is unloaded, and loaded anew before the next request",
}


@dataclass(slots=True)
class RecoverySteps:
    """Where one endpoint is; one thread at a time, `now` is monotonic seconds.

    Attributes:
        sentence: What to say of the present step, for people; "" for nothing new.
        retry_at: When a rest is over.
    """

    key: str = ""
    step: RecoveryStep = RecoveryStep.CALM
    sentence: str = ""
    retry_at: float = 0.0
    _rests: int = 0

    @property
    def is_at_rest(self) -> bool:
        """Return whether there is no step to be taken now."""
        return self.step in RESTING

    def begin(self, now: float) -> bool:
        """Begin another round, unless the pause after the last one is not over; return whether it did.

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
        """Move on by what came of the present step.

        Args:
            reason: What stood in the way, for people.

        Raises:
            IllegalMoveError: If that cannot come of it; nothing has changed.
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
                f"it answers nobody, and its model cannot be unloaded ({reason or STAYS}): start the server again"
            )

    def on_answer(self) -> None:
        """Forget what was wrong: a request was answered."""
        if self.is_at_rest:
            self._move(RecoveryStep.CALM)
            self._rests = 0

    def _move(self, step: RecoveryStep) -> None:
        self.step, self.sentence = step, SENTENCES.get(step, "")
