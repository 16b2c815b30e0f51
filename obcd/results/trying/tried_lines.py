"""What became of the lines that were tried: the request as it was sent, the answer, and whether it fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obcd.core.answer.openai.openai_response import to_record
from obcd.core.request.context import ContextPlan, Gauge
from obcd.core.request.lines import parse_line
from obcd.core.request.records import PATHS, JobSettings, answers_of, format_of, request_body
from obcd.errors import InputError, LineError
from obcd.ollama.client import body_for_server
from obcd.spool.outbox.publish_rename import MANIFEST


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedLine:
    """A line that was tried.

    Attributes:
        line: Its number in the whole file.
        length: Its length in bytes.
        path: Where the request was sent, e.g. `/api/chat`; "" if the line is not a request.
        request: The body of that request; {} if there was none.
        answers: How many answers were requested.
        result: The line of responses.jsonl or errors.jsonl, in obcd's own shape.
        has_form: Whether the answer has to fit a form, a schema or JSON.
    """

    line: int
    length: int
    path: str
    request: Mapping[str, Any]
    answers: int
    result: Mapping[str, Any]
    has_form: bool

    @property
    def failed(self) -> str:
        """The class of its failure, "" if it was answered."""
        return str(self.result.get("class", ""))

    @property
    def fits(self) -> bool | None:
        """Whether the answer is complete and fits its form; None if it is complete and no form is required."""
        if self.failed or self.why:
            return False
        return True if self.has_form else None

    @property
    def why(self) -> str:
        """Why the answer is of no use, or may not be; "" if it is as it should be."""
        if self.failed:
            return f"{self.failed}: {self.result.get('message', '')}"
        if self.result.get("done_reason") == "length":
            return "the answer was cut short: raise num_predict"
        if not (self.result.get("response") or self.result.get("tool_calls") or self.result.get("embeddings")):
            return "the answer is empty"
        return ""

    @property
    def seconds(self) -> float | None:
        """The seconds that it held a slot, without the load of the model; None if that was not measured."""
        spent = self._number("seconds") - self._number("wait_seconds") - self._number("load_seconds")
        return spent if spent > 0 and not self.result.get("cached") else None

    @property
    def tokens(self) -> tuple[int, int] | None:
        """The tokens that were read and written; None if they are not known."""
        read, written = int(self._number("prompt_tokens")), int(self._number("eval_tokens"))
        return (read, written) if read or written else None

    @property
    def load_seconds(self) -> float:
        """The seconds that it waited for its model to be loaded."""
        return self._number("load_seconds")

    @property
    def eval_seconds(self) -> float:
        """The seconds in which the answer was written."""
        return self._number("eval_seconds")

    @property
    def endpoint(self) -> str:
        """The endpoint of its last attempt."""
        return str(self.result.get("endpoint", ""))

    def to_json(self) -> dict[str, object]:
        """Return it for machines."""
        return {
            "line": self.line,
            "path": self.path or None,
            "request": dict(self.request) or None,
            "result": dict(self.result),
            "fits": self.fits,
            "why": self.why or None,
        }

    def _number(self, key: str) -> float:
        value = self.result.get(key, 0)
        return float(value) if isinstance(value, (int, float)) else 0.0


def read_tried(folder: Path, numbers: Sequence[int]) -> list[TriedLine]:
    """Return the lines of a trial from its published folder, in order.

    Args:
        numbers: The number of each of its lines in the whole file.

    Raises:
        InputError: If the folder cannot be read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        settings = JobSettings.from_json(manifest["settings"])
        plan = ContextPlan(**manifest["context"]) if manifest.get("context") else None
        raw_lines = (folder / "input.jsonl").read_bytes().splitlines()
        results = {}
        for name in ("responses.jsonl", "errors.jsonl"):
            if (folder / name).exists():
                for raw in (folder / name).read_bytes().splitlines():
                    record = to_record(json.loads(raw))
                    results[record["line"]] = record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the results of the trial cannot be read in {folder}: {error}") from None
    found = []
    for place, (number, raw) in enumerate(zip(numbers, raw_lines, strict=True), 1):
        result = {key: value for key, value in results.get(place, {}).items() if key not in {"line", "prompt"}}
        if result.get("id") == place:  # a line without an id has its number
            result["id"] = number
        found.append(_tried(raw, place, number, settings, plan, result))
    return found


def _tried(
    raw: bytes, place: int, number: int, settings: JobSettings, plan: ContextPlan | None, result: Mapping[str, Any]
) -> TriedLine:
    try:
        request = parse_line(raw, place, settings.reading)
    except LineError:
        return TriedLine(line=number, length=len(raw), path="", request={}, answers=1, result=result, has_form=False)
    if plan is not None and "num_ctx" not in request.options:
        step = Gauge(settings).step(request, len(raw))
        settings = JobSettings.from_json({**settings.to_json(), "num_ctx": plan.length(step)})
    return TriedLine(
        line=number,
        length=len(raw),
        path=PATHS[request.kind],
        request=body_for_server(request_body(request, settings)),
        answers=answers_of(request, settings),
        result=result,
        has_form=bool(format_of(request, settings)),
    )
