"""Read responses and failures from the sources that `sources` found, one at a time, in the order of the input.

A damaged file or line is a value (`LeftOut`), not an exception, because the others can still be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from obcd.core.answer.openai.openai_response import to_record
from obcd.core.answer.outcomes import NOT_PARSED
from obcd.core.schema.extract import NoJson, parse_strict
from obcd.results.reading.input_lines import InputLines, our_answer
from obcd.results.reading.sources import PromptFile, PublishedFolder, Source
from obcd.text import plural
from obcd.text_files import LeftOut, bounded_lines

#: longest line and largest per-prompt file that is read; an answer has a few KB, one of this size is damaged
MAX_RECORD_BYTES = 64 * 1024 * 1024
#: keys that a line has for all its answers; each answer has the other keys itself
OF_LINE = ("id", "line", "prompt", "model", "extra")
#: text in place of a missing prompt or response, as the seed prints it
NO_PROMPT = "No prompt found"
NO_RESPONSE = "No response found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response, or one of its answers if the request has several."""

    place: str  # where it was read, ready to print: `notes/responses.jsonl line 7`
    file: str  # `notes/responses.jsonl`, ready to print
    line: int | None  # line of the prompt file, from 1; None for a per-prompt file
    record: Mapping[str, object]  # all its keys, as read: {"id": 7, "line": 7, "prompt": "…", "response": "…", …}
    by_retry: bool = False  # whether a retry of the job gave it; `line` is that of the job's own prompt file
    index: int = 0  # its index among the answers of its line

    @property
    def request_id(self) -> object:
        """Return the user's own id of the request, any JSON value, or None."""
        return self.record.get("id")

    @property
    def prompt(self) -> object:
        """Return the prompt as the record repeats it: a text, or the texts of an `embed`; None if it is missing."""
        return self.record.get("prompt")

    @property
    def response(self) -> object:
        """Return the text of the answer; any JSON value in a file of another program; None if it is missing."""
        return self.record.get("response")

    @property
    def parsed(self) -> object:
        """Return the JSON value that obcd found in the text when it arrived; NOT_PARSED if it looked for none."""
        return self.record.get("parsed", NOT_PARSED)

    @property
    def tool_calls(self) -> list[object]:
        """Return its calls of tools."""
        calls = self.record.get("tool_calls")
        return calls if isinstance(calls, list) else []

    @property
    def embeddings(self) -> object:
        """Return its vectors, unchecked; None if it is a text."""
        return self.record.get("embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedLine(LeftOut):
    """A failed request."""

    line: int  # line of the prompt file, from 1
    id: object = None  # the user's own
    # all its keys, as read: {"class": "timeout", "message": "…", …}; for its user alone, because it may quote an answer
    record: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AnswerTally:
    """The counts of a published job's requests and failures."""

    requests: int
    failures: int


def read_answers(source: Source) -> Iterator[Answer | LeftOut]:
    """Yield a source's answers; of a file whose end is damaged, all answers before the damage."""
    if isinstance(source, LeftOut):
        yield source
    elif isinstance(source, PromptFile):
        yield _read_prompt_file(source)
    else:
        file = f"{source.name}/responses.jsonl"
        with InputLines(source.path / "input.jsonl") as lines:
            for number, record in _records(source.path / "responses.jsonl", file):
                yield record if isinstance(record, LeftOut) else _answer(file, number, our_answer(record, lines))


def each_answer(answer: Answer) -> list[Answer]:
    """Return the answers of a line in order: those in its `responses`, with the line's own keys, or the line itself."""
    several = answer.record.get("responses")
    if not isinstance(several, list) or not several or not all(isinstance(item, dict) for item in several):
        return [answer]
    of_line = {key: answer.record[key] for key in OF_LINE if key in answer.record}
    return [
        replace(answer, place=f"{answer.place}, answer {index + 1}", record=item | of_line, index=index)
        for index, item in enumerate(several)
    ]


def read_failures(folder: PublishedFolder) -> Iterator[LeftOut]:
    """Yield the failed requests of a published job, by class; their messages stay in errors.jsonl.

    A message may quote an answer that did not match its schema, and standard error ends up in logs and mails.
    """
    file = f"{folder.name}/errors.jsonl"
    for number, record in _records(folder.path / "errors.jsonl", file):
        yield record if isinstance(record, LeftOut) else _failure(file, number, to_record(record))


def read_tally(folder: PublishedFolder) -> AnswerTally:
    """Return how many requests a job had and how many failed, by the manifest or else by counting the lines."""
    try:
        counts = json.loads((folder.path / "manifest.json").read_bytes())["counts"]
        requests, failures = counts["requests"], counts["failures"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        requests = failures = None
    if isinstance(requests, int) and isinstance(failures, int):
        return AnswerTally(requests, failures)
    failed = _count_lines(folder.path / "errors.jsonl")
    return AnswerTally(_count_lines(folder.path / "responses.jsonl") + failed, failed)


def read_schema(folder: PublishedFolder) -> dict[str, object]:
    """Return the JSON schema against which a job's answers were checked; {} if there was none or it is unknown."""
    try:
        schema = json.loads((folder.path / "manifest.json").read_bytes())["settings"]["format"]
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return {}
    return schema if isinstance(schema, dict) else {}


def _read_prompt_file(file: PromptFile) -> Answer | LeftOut:
    try:
        with open(file.path, "rb") as stream:
            data = stream.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        return LeftOut(file.name, f"the file cannot be read: {error.strerror}")
    record = _parse(data.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(record, str):
        return LeftOut(file.name, f"the file {record}")
    return Answer(place=file.name, file=file.name, line=None, record=record)


def _answer(file: str, number: int, record: dict[str, object]) -> Answer:
    line = record.get("line")
    if not isinstance(line, int) or isinstance(line, bool):
        line = number
    return Answer(place=_place(file, number, line), file=file, line=line, record=record)


def _failure(file: str, number: int, record: dict[str, object]) -> FailedLine:
    line, attempts, name = record.get("line"), record.get("attempts"), record.get("class")
    line = line if type(line) is int else number
    reason = f"the request failed ({name})" if isinstance(name, str) and name.isidentifier() else "the request failed"
    if isinstance(attempts, int) and attempts > 0:
        reason += f" after {plural(attempts, 'attempt')}"
    return FailedLine(_place(file, number, line), reason, line=line, id=record.get("id"), record=record)


def _place(file: str, number: int, line: int) -> str:
    """Return the name of a line of the file, with the line of the prompt file if the two numbers differ."""
    return f"{file} line {number}" + ("" if line == number else f" (input line {line})")


def _records(path: Path, name: str) -> Iterator[tuple[int, dict[str, object] | LeftOut]]:
    """Yield (line number from 1, record) of a JSONL file; nothing if there is no such file."""
    try:
        with open(path, "rb") as stream:
            for number, data in enumerate(bounded_lines(stream, MAX_RECORD_BYTES), 1):
                if data.isspace():
                    continue
                record = _parse(data.removesuffix(b"\n"))
                if isinstance(record, str):
                    yield number, LeftOut(f"{name} line {number}", f"the line {record}")
                else:
                    yield number, record
    except FileNotFoundError:
        return
    except OSError as error:
        yield 0, LeftOut(name, f"the file cannot be read: {error.strerror}")


def _parse(data: bytes) -> dict[str, object] | str:
    """Return a JSON object, or the end of a sentence that says what is wrong with it."""
    if len(data) > MAX_RECORD_BYTES:
        return f"is longer than {MAX_RECORD_BYTES // 1024 // 1024} MiB"
    try:
        text = data.decode("utf-8")  # decoded here: json.loads(bytes) would guess UTF-16
    except UnicodeDecodeError:
        return "is not UTF-8"
    parsed = parse_strict(text)
    if isinstance(parsed, NoJson):
        return "is not JSON"
    return parsed.value if isinstance(parsed.value, dict) else "is not a JSON object"


def _count_lines(path: Path) -> int:
    try:
        with open(path, "rb") as stream:
            return sum(1 for line in bounded_lines(stream, MAX_RECORD_BYTES) if not line.isspace())
    except OSError:
        return 0
