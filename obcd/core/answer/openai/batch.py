"""The batch object of OpenAI: the state of a job of such lines, in its manifest and in its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The only window that OpenAI has.
WINDOW = "24h"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The state of a job, as a batch.

    Attributes:
        job: Its id.
        endpoint: The OpenAI endpoint that its first line names, e.g. `/v1/chat/completions`.
        status: `in_progress`, `finalizing`, `completed` or `cancelled`.
        total, completed, failed: Lines.
        input_tokens, output_tokens: Over all lines that were answered.
        times: Unix seconds of past events, e.g. `{"created_at": 1795888865, "completed_at": 1795888901}`.
        model: The one model of all lines; None if there are several.
    """

    job: str
    endpoint: str
    status: str
    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    times: Mapping[str, float] = field(default_factory=dict)
    model: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the object in the form of openai.types.Batch; its files are the ones beside it."""
        is_over = self.status in ("completed", "cancelled")
        return {
            "id": f"batch_{self.job}",
            "object": "batch",
            "endpoint": self.endpoint,
            "completion_window": WINDOW,
            "status": self.status,
            "model": self.model,
            "input_file_id": "input.jsonl",
            "output_file_id": "responses.jsonl" if is_over else None,
            "error_file_id": "errors.jsonl" if is_over and self.failed else None,
            "errors": None,
            **{key: int(seconds) for key, seconds in self.times.items() if seconds},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.input_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": self.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.input_tokens + self.output_tokens,
            },
            "metadata": None,
        }
