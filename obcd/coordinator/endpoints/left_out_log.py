"""Log what endpoints are left out of: each reason once, and once when it no longer applies."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

logger = logging.getLogger(__name__)

#: {endpoint: sentences about it}
Sentences = Mapping[str, Iterable[str]]


class LeftOutLog:
    """The sentences logged so far."""

    def __init__(self) -> None:
        self._odd: set[tuple[str, str]] = set()
        self._unfit: set[tuple[str, str]] = set()

    def log_news(self, odd: Sentences, unfit: Sentences) -> bool:
        """Log the sentences that are new; return whether there were any.

        Args:
            odd: How the weights of endpoints differ from the others'. This recurs with each job and is logged once.
            unfit: What endpoints cannot serve as they should, until they can.
        """
        new_odd, now_unfit = _pairs(odd) - self._odd, _pairs(unfit)
        for name, why in sorted(new_odd):
            extra = {"action": "other_weights", "endpoint": name}
            logger.warning("endpoint %s is left out of jobs that others serve: %s", name, why, extra=extra)
        for name, why in sorted(now_unfit - self._unfit):
            extra = {"action": "unfit", "endpoint": name}
            logger.warning("endpoint %s is left out until the next check: %s", name, why, extra=extra)
        for name, why in sorted(self._unfit - now_unfit):
            extra = {"action": "fit_again", "endpoint": name}
            logger.info("endpoint %s is no longer left out: %s", name, why, extra=extra)
        has_news = bool(new_odd) or now_unfit != self._unfit
        self._odd |= new_odd
        self._unfit = now_unfit
        return has_news


def _pairs(sentences: Sentences) -> set[tuple[str, str]]:
    return {(name, why) for name, found in sentences.items() for why in found}
