"""How long requests for vectors waited at their server, which does not report it. Pure.

Ollama runs embedding models with one slot, whatever `OLLAMA_NUM_PARALLEL` says: it works on a request from the end of
the one before.
"""

from __future__ import annotations

import threading

from obcd.core.answer.outcomes import ModelAnswer


class EmbeddingTurns:
    """The end of the last such request at one endpoint. Any thread may call it."""

    def __init__(self) -> None:
        self._last = 0.0
        self._lock = threading.Lock()

    def with_wait(self, answer: ModelAnswer, sent_at: float, ended_at: float) -> ModelAnswer:
        """Return the vectors of a request with the seconds for which it waited; any other answer as it is.

        Args:
            sent_at, ended_at: In monotonic seconds.
        """
        if answer.embeddings is None:
            return answer
        with self._lock:
            wait = round(min(max(0.0, self._last - sent_at), answer.cost.seconds), 3)
            self._last = max(self._last, ended_at)
        computing = round(max(0.0, answer.cost.prompt_eval_seconds - wait), 3)
        return answer._replace(cost=answer.cost._replace(wait_seconds=wait, prompt_eval_seconds=computing))
