"""Which weights answer a job: its first request of a model decides, and this stays. Pure; `now` is an argument.

Servers can hold different weights under one name, e.g. pulled a year ago and yesterday. Their digests differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from obcd.core.endpoint.health import EndpointState
from obcd.core.pending.backlog import Backlog
from obcd.core.request.records import Signature, plain_model
from obcd.core.scheduling.holder import Holder

#: Seconds to wait for the report of a new endpoint, so that a job does not start with the weights of the odd endpoint
#: only because that one reported first.
TELL_SECONDS = 2.0
#: Characters of a digest that count: those that `ollama list` shows; they are stored with each answer.
DIGEST_CHARS = 12


def shorten(digests: Mapping[str, str]) -> dict[str, str]:
    """Return `{model: the characters of its digest that count}`."""
    return {model: digest[:DIGEST_CHARS] for model, digest in digests.items()}


def could_ask(backlog: Backlog, signature: Signature, holder: Holder) -> bool:
    """Return whether an endpoint serves the job's user and has its weights; any do while it has not started."""
    digests, model = holder.digests, signature.model
    if digests is None or model not in digests or not holder.is_for(backlog.submitter):
        return False
    return not backlog.weights or backlog.weights.get(model, digests[model]) == digests[model]


class Weights:
    """The choice that each job makes, from the endpoints that are there when it starts."""

    def __init__(self) -> None:
        self._holders: Collection[Holder] = ()
        self._now = 0.0
        self._is_early: bool | None = None
        #: The number of choices so far.
        self.choices = 0
        #: {(signature, submitter): the digest for a job that starts now, None if there is none}
        self._favourites: dict[tuple[Signature, int], str | None] = {}

    def look(self, holders: Collection[Holder], now: float) -> None:
        """Look at the present endpoints; called before each round of decisions."""
        self._holders, self._now, self._is_early = holders, now, None
        self._favourites.clear()

    def may_ask(self, backlog: Backlog, signature: Signature, holder: Holder) -> bool:
        """Return whether an endpoint may get a request of a job now."""
        if backlog.weights is None or signature.model in backlog.weights:
            return could_ask(backlog, signature, holder)
        if self._waits_to_hear() or not could_ask(backlog, signature, holder):
            return False
        return holder.digest(signature) == self._favourite(signature, backlog.submitter)

    def choose(self, backlog: Backlog, signature: Signature, holder: Holder) -> str:
        """Bind a job to the weights of the endpoint that gets one of its requests.

        Returns:
            The digest that has to answer, "" for any.
        """
        if backlog.weights is None:
            return ""
        if signature.model not in backlog.weights:
            backlog.weights[signature.model] = holder.digest(signature) or ""
            self.choices += 1
        return backlog.weights[signature.model]

    def _waits_to_hear(self) -> bool:
        """Return whether a new endpoint has not reported yet; checked only when a job starts, which is rare."""
        if self._is_early is None:
            self._is_early = any(
                item.health.state is EndpointState.STARTING and self._now - item.health.since < TELL_SECONDS
                for item in self._holders
            )
        return self._is_early

    def _favourite(self, signature: Signature, submitter: int) -> str | None:
        """Return the digest with the most slots among those that can get requests now; of equals, the first one."""
        if (signature, submitter) not in self._favourites:
            slots: Counter[str | None] = Counter()
            for item in self._holders:
                if item.is_for(submitter) and item.fits(signature, self._now):
                    slots[item.digest(signature)] += item.health.open_slots(item.slots)
            chosen, count = slots.most_common(1)[0] if slots else (None, 0)
            self._favourites[signature, submitter] = chosen if count else None
        return self._favourites[signature, submitter]


def odd_ones(holders: Iterable[Holder], backlogs: Iterable[Backlog]) -> dict[str, set[str]]:
    """Return `{endpoint: {sentence, …}}` for endpoints whose weights differ from those of a job.

    Example: `{"gpu3": {"its llama3.2 is another one (digest 6a0746a1ec1a) than the others' (a80c4f17acd5)"}}`.
    """
    chosen = {(model, digest) for item in backlogs for model, digest in (item.weights or {}).items()}
    found: dict[str, set[str]] = {}
    for holder in holders:
        for model, digest in chosen:
            own = (holder.digests or {}).get(model, digest)
            if own != digest:
                found.setdefault(holder.name, set()).add(describe_odd(model, own, digest))
    return found


def describe_odd(model: str, own: str, others: str) -> str:
    """Return the sentence for an endpoint whose weights of a model differ from those of the others."""
    return (
        f"its {plain_model(model)} is another one (digest {own or 'unknown'}) than the others' ({others or 'unknown'})"
    )
