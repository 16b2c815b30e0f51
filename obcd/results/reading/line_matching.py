"""Compare every line of a job's input with the lines of its outputs: each has exactly one result, and the right one.

Streams: memory holds the offset and one byte of each line (9 bytes per line), and the current line. Writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BufferedReader
from itertools import pairwise
from typing import BinaryIO

from obcd.core.answer.counts import Counts
from obcd.core.answer.openai.openai_response import custom_id_of, is_openai_line, to_record
from obcd.core.answer.record_codec import is_record_empty
from obcd.core.answer.vectors import why_no_vectors
from obcd.core.request.json_objects import is_blank_line, parse_object
from obcd.core.request.lines import id_of_failed, parse_line
from obcd.core.request.records import Kind, Request
from obcd.core.request.rows import PLAIN, Reading
from obcd.core.schema.strict_json import refuse_constant
from obcd.errors import LineError
from obcd.spool.folders.disk import BLOCK
from obcd.text_files import bounded_lines

BOM = b"\xef\xbb\xbf"
#: Not the strict decoder, which takes ten times as long on a vector: obcd itself wrote this input.
_DECODER = json.JSONDecoder(parse_constant=refuse_constant)
#: Smallest `[spool] max_line_bytes`: longer white space may have been accepted as a line that is too long.
LEAST_LINE_LIMIT = 1024
#: Largest `[spool] max_line_bytes`: no longer line was ever sent.
MOST_LINE_LIMIT = 2**28
#: Bytes of an output line beyond its echo of the input, in which each byte may become six, as in `\u00e9`.
ANSWER_BYTES = 64 * 2**20
#: Problems of one folder that are listed in full.
LISTED = 10

#: Kinds of an input line; `SEEN` is added when its result was found.
BLANK, MAY_FAIL, PROMPT, SEEN = 0, 1, 2, 4


@dataclass(slots=True)
class Problems:
    """The problems of a folder: the first sentences and their total number."""

    sentences: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, sentence: str) -> None:
        """Add a problem; the sentence must quote neither prompt nor answer."""
        self.count += 1
        if len(self.sentences) < LISTED:
            self.sentences.append(sentence)


@dataclass(slots=True)
class Index:
    """The places and kinds of the lines of an input.

    Attributes:
        starts: Offset of each line, and one more entry: the end of the last line with the LF that it may lack.
        kinds: `BLANK`, `MAY_FAIL` or `PROMPT` of each line, later with `SEEN`.
    """

    sha256: str
    size: int
    starts: array[int]
    kinds: bytearray

    @property
    def lines(self) -> int:
        """The number of lines, including blank ones."""
        return len(self.kinds)


@dataclass(slots=True)
class Sums:
    """The sums over the outputs; `endpoints` is `{name: [responses, eval_tokens]}`."""

    counts: Counts = field(default_factory=Counts)
    endpoints: dict[str, list[int]] = field(default_factory=dict)


def index_input(stream: BinaryIO) -> Index:
    """Read an input once, block by block, for its digest and the places and kinds of its lines. Holds no whole line."""
    digest, starts, kinds = hashlib.sha256(), array("Q", [0]), bytearray()
    size, place, is_blank, has_marks = 0, 0, True, False  # of the current line so far
    while block := stream.read(BLOCK):
        digest.update(block)
        if size == 0 and block.startswith(BOM):
            starts[0] = place = len(BOM)
        *ended, tail = block[place:].split(b"\n") if size == 0 else block.split(b"\n")
        size += len(block)
        for part in ended:
            place += len(part) + 1
            may_fail = place - 1 - starts[-1] > LEAST_LINE_LIMIT or has_marks or _has_marks(part)
            kinds.append(_kind(is_blank=is_blank and is_blank_line(part), may_fail=may_fail))
            starts.append(place)
            is_blank, has_marks = True, False
        place += len(tail)
        is_blank, has_marks = is_blank and is_blank_line(tail), has_marks or _has_marks(tail)
    if size > starts[-1]:
        kinds.append(_kind(is_blank=is_blank, may_fail=size - starts[-1] > LEAST_LINE_LIMIT or has_marks))
        starts.append(size + 1)
    return Index(digest.hexdigest(), size, starts, kinds)


def _has_marks(part: bytes) -> bool:
    """Return whether a blank line has something else than white space in it, such as Ctrl-Z."""
    return bool(part) and not part.isspace()


def _kind(*, is_blank: bool, may_fail: bool) -> int:
    """Return the kind of a line; an earlier obcd had failures for blank lines with marks in them."""
    if not is_blank:
        return PROMPT
    return MAY_FAIL if may_fail else BLANK


class Pairing:
    """Reads the lines of the outputs one by one and finds the input line of each.

    Args:
        lines: The open input; it is read at the offsets in `index`.
        reading: The settings with which its lines were read.

    Attributes:
        sums: The sums over the outputs.
        answers: The number of answers of each input line; element 0 stands for no line.
    """

    def __init__(self, lines: BinaryIO, index: Index, problems: Problems, reading: Reading = PLAIN) -> None:
        self._lines = lines
        self._reading = reading
        self._index = index
        self._problems = problems
        longest = max((end - start for start, end in pairwise(index.starts)), default=0)
        self._limit = ANSWER_BYTES + 6 * min(longest, MOST_LINE_LIMIT)
        self._last = 0  # the input line of the previous output line
        self._is_openai = False  # whether the outputs are of OpenAI's shape, which has no place for the prompt
        self.sums = Sums()
        self.answers = array("Q", bytes(8 * (index.lines + 1)))

    @property
    def requests(self) -> int:
        """The number of input lines that must have a result, or have one."""
        kinds = self._index.kinds
        return len(kinds) - kinds.count(BLANK) - kinds.count(MAY_FAIL)

    def take_responses(self, stream: BinaryIO) -> None:
        """Check `responses.jsonl` against the input."""
        self._last = 0
        for where, record in self._records(stream, "responses.jsonl"):
            line = self._line_of(where, record)
            if line is not None:
                self._check_response(where, line, record)
                self._add(where, record)
                self.answers[line] = len(_answers(record))

    def take_failures(self, stream: BinaryIO, retry: BufferedReader | None) -> None:
        """Check `errors.jsonl` against the input, and `retry.jsonl` against both."""
        self._last, failed = 0, 0
        for where, record in self._records(stream, "errors.jsonl"):
            line = self._line_of(where, record)
            if line is None:
                continue
            failed += 1
            self._add_failure(where, record)
            self._check_failure(where, line, record)
            if retry is not None and not self._is_retried(retry, line):
                self._problems.add(f"retry.jsonl: its line {failed} is not line {line} of the input, byte for byte")
                retry = None  # all following lines would differ as well
        if retry is not None and retry.read(1):
            self._problems.add(f"retry.jsonl: it has more than the {failed} lines that errors.jsonl names")

    def report_missing(self) -> None:
        """Add a problem for the lines that have no result; must be called last."""
        kinds, start = self._index.kinds, 0
        while (start := kinds.find(PROMPT, start)) >= 0:
            end = start
            while end < len(kinds) and kinds[end] in (PROMPT, BLANK, MAY_FAIL):
                end += 1
            last = kinds.rfind(PROMPT, start, end) + 1
            lines = f"line {last} of the input has" if last == start + 1 else f"lines {start + 1} to {last} have"
            self._problems.add(f"input.jsonl: {lines} no result")
            start = end

    def _records(self, stream: BinaryIO, name: str) -> Iterator[tuple[str, dict[str, object]]]:
        """Yield `(place, record)` of each valid line; add a problem for each of the others."""
        for number, data in enumerate(bounded_lines(stream, self._limit), 1):
            where = f"{name} line {number}"
            fault, document = _parse(data, self._limit)
            if document is None:
                self._problems.add(f"{where}: {fault}")
            elif is_openai_line(document):
                self._is_openai = True
                yield where, to_record(document)
            else:
                yield where, document

    def _line_of(self, where: str, record: dict[str, object]) -> int | None:
        """Return the input line of a record; add a problem and return None if it is not allowed to have one."""
        line = record.get("line")
        if type(line) is not int:
            self._problems.add(f"{where}: it does not say to which line of the input it belongs")
            return None
        kind = self._index.kinds[line - 1] if 1 <= line <= self._index.lines else None
        if kind is None or kind == BLANK:
            what = "the input does not have" if kind is None else "is blank in the input"
            self._problems.add(f"{where}: it belongs to line {str(line)[:20]}, which {what}")
            return None
        if kind & SEEN:
            self._problems.add(f"{where}: it is a second result of line {line}")
            return None
        self._index.kinds[line - 1] = PROMPT | SEEN
        if line < self._last:
            self._problems.add(f"{where}: line {line} comes after line {self._last}, out of the input's order")
        self._last = line
        return line

    def _raw(self, line: int) -> bytes:
        start, end = self._index.starts[line - 1], self._index.starts[line] - 1
        self._lines.seek(start)
        return self._lines.read(end - start)

    def _length(self, line: int) -> int:
        return self._index.starts[line] - 1 - self._index.starts[line - 1]

    def _check_response(self, where: str, line: int, record: dict[str, object]) -> None:
        if self._length(line) > MOST_LINE_LIMIT:
            self._problems.add(f"{where}: line {line} is answered, but is longer than any line that obcd sends")
            return
        try:
            request = parse_line(self._raw(line), line, self._reading)
        except LineError as error:
            self._problems.add(f"{where}: line {line} is answered, but is not a valid prompt: {error}")
            return
        if not self._is_id(record.get("id"), request.id, line):
            self._problems.add(f"{where}: its id is not that of line {line}")
        if not self._is_openai and record.get("prompt") not in (request.echo, list(request.inputs)):
            self._problems.add(f"{where}: its prompt is not that of line {line}")
        if not _same(record.get("extra", {}), dict(request.extra)):
            self._problems.add(f"{where}: the other keys it repeats are not those of line {line}")
        if lack := _lack(record, request):
            self._problems.add(f"{where}: {lack}")

    def _check_failure(self, where: str, line: int, record: dict[str, object]) -> None:
        texts = all(isinstance(record.get(key), str) for key in ("class", "message"))
        if not texts or type(record.get("attempts")) is not int:
            self._problems.add(f"{where}: class, message or attempts are missing")
        if not self._is_id(record.get("id"), self._failed_id(line), line):
            self._problems.add(f"{where}: its id is not that of line {line}")

    def _failed_id(self, line: int) -> object:
        if self._length(line) > BLOCK:
            return line
        return id_of_failed(self._raw(line), line, self._reading, asks_openai=self._is_openai)

    def _is_id(self, recorded: object, own: object, line: int) -> bool:
        """Return whether a record has the id of a line; up to 0.2 a `custom_id` beside a prompt was only echoed."""
        if _same(recorded, self._shown_id(own, line)):
            return True
        return not self._is_openai and recorded == line and self._has_custom_id(own, line)

    def _has_custom_id(self, own: object, line: int) -> bool:
        try:
            document = parse_object(self._raw(line))
        except LineError:
            return False
        return document.get("id") is None and _same(document.get("custom_id"), own)

    def _shown_id(self, value: object, line: int) -> object:
        return custom_id_of(value, line) if self._is_openai else value

    def _is_retried(self, retry: BufferedReader, line: int) -> bool:
        """Return whether a line of the input is the next in `retry.jsonl`; a byte order mark may be missing there."""
        start, left = self._index.starts[line - 1], self._length(line)
        if line == 1 and start and retry.peek(start).startswith(BOM):  # a first line that is too long to hold keeps it
            retry.read(start)
        self._lines.seek(start)
        while left:
            block = self._lines.read(min(left, BLOCK))
            if not block or retry.read(len(block)) != block:
                return False
            left -= len(block)
        return retry.read(1) == b"\n"

    def _add_failure(self, where: str, record: dict[str, object]) -> None:
        counts = _counts(record)
        if counts is None:
            self._problems.add(f"{where}: its seconds, tokens or repairs are not numbers")
        self.sums.counts.add(replace(counts or Counts(), failures=1))

    def _add(self, where: str, record: dict[str, object]) -> None:
        counts, endpoint, is_cut = _counts(record), record.get("endpoint"), record.get("done_reason") == "length"
        if counts is None or not isinstance(endpoint, str):
            self._problems.add(f"{where}: endpoint, seconds or tokens are missing or not numbers")
            counts, record = Counts(), {}
        is_cached = record.get("cached") is True
        is_empty = any(map(is_record_empty, _answers(record)))
        self.sums.counts.add(
            replace(counts, responses=1, cut_short=int(is_cut), empty=int(is_empty), cached=int(is_cached))
        )
        if isinstance(endpoint, str):
            for answer in _answers(record):
                share = self.sums.endpoints.setdefault(str(answer.get("endpoint")), [0, 0])
                tokens = answer.get("eval_tokens", 0)
                share[0] += 1
                share[1] += tokens if type(tokens) is int else 0


def _counts(record: Mapping[str, object]) -> Counts | None:
    """Return the counts of an output line; None if they are not numbers."""
    seconds, waited = record.get("seconds", 0.0), record.get("wait_seconds", 0.0)
    evaluating, cached = record.get("prompt_eval_seconds", 0.0), record.get("cached_tokens")
    read, written, repairs = (record.get(key, 0) for key in ("prompt_tokens", "eval_tokens", "repairs"))
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isinstance(waited, int | float):
        return None
    if not (type(read) is int and type(written) is int and type(repairs) is int):
        return None
    if not (isinstance(evaluating, int | float) and (cached is None or type(cached) is int)):
        return None
    same = int("same_as" in record)
    return Counts(
        repairs=repairs,
        same=same,
        prompt_tokens=read,
        eval_tokens=written,
        work_seconds=max(0.0, seconds - waited),
        wait_seconds=waited,
        prompt_eval_seconds=evaluating,
        evaluated_tokens=0 if cached is None else read - cached,
        cached_tokens=cached or 0,
    )


def _lack(record: dict[str, object], request: Request) -> str:
    """Return what a response line lacks, "" if nothing."""
    if request.kind is Kind.EMBED:
        return why_no_vectors(record.get("embeddings"), len(request.inputs))
    answers = _answers(record)
    if "responses" in record and answers is not record["responses"]:
        return "its responses are not a list of objects"
    if not all(isinstance(answer.get("response"), str) for answer in (record, *answers)):
        return "there is no response in it"
    wanted = request.count or len(answers)
    return "" if len(answers) == wanted else f"it has {len(answers)} responses where {wanted} were requested"


def _answers(record: dict[str, object]) -> list[dict[str, object]]:
    """Return the answers of a response line: the line itself, or those in its `responses`."""
    answers = record.get("responses")
    if isinstance(answers, list) and all(isinstance(answer, dict) for answer in answers):
        return answers
    return [record]


def _parse(data: bytes, limit: int) -> tuple[str, dict[str, object] | None]:
    """Return what is wrong with a line of an output, or its object."""
    if not data.endswith(b"\n"):
        return ("it is longer than any answer" if len(data) > limit else "its end is missing"), None
    try:
        document = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        return "it is not UTF-8", None
    except (LineError, ValueError, RecursionError):
        return "it is not JSON", None
    if not isinstance(document, dict):
        return "it is JSON, but not an object", None
    return "", document


def _same(one: object, other: object) -> bool:
    """Return whether two JSON values are equal; 1, 1.0 and true differ, although Python says that they are equal."""
    if type(one) is type(other) and isinstance(one, str | int):
        return bool(one == other)
    try:
        return json.dumps(one) == json.dumps(other)
    except RecursionError:
        return False
