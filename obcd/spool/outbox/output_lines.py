"""The lines of a job's outputs, one for each line of its input: the same bytes in a preview and when published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from obcd.core.answer.openai.openai_response import openai_failure_line, openai_response_line
from obcd.core.answer.outcomes import Failure, Response, Result
from obcd.core.answer.record_codec import failure_line, response_line, to_ascii
from obcd.core.answer.several import join
from obcd.core.request.lines import id_of_failed
from obcd.core.request.records import Request
from obcd.core.request.structure import is_mostly_structure
from obcd.spool.job.job_folder import JobHeader, Place


def result_of_line(results: Sequence[Result], place: Place) -> Result:
    """Return the one result of a line; its place is that of the index, because a failure may not know it."""
    result = join(results)
    if isinstance(result, Response):
        return result._replace(line=place.line)
    return replace(result, line=place.line)


def own_document(response: Response, request: Request) -> dict[str, object]:
    """Return a line of responses.jsonl in obcd's own shape."""
    document = response_line(response, request.id, request.echo)
    return document | {"extra": request.extra} if request.extra else document


def published_response(response: Response, request: Request, header: JobHeader) -> bytes:
    """Return a line of responses.jsonl in the shape of the job's lines, with its LF."""
    document = own_document(response, request)
    if header.asks:
        document = openai_response_line(response, document, header.id, request.kind)
    return to_ascii(document) + b"\n"


def published_failure(failure: Failure, own: object, header: JobHeader) -> bytes:
    """Return a line of errors.jsonl in the shape of the job's lines, with its LF; `own` is the user's id."""
    document = failure_line(failure, own)
    if header.asks:
        document = openai_failure_line(failure, document, header.id)
    return to_ascii(document) + b"\n"


def id_of_failure(raw: bytes | None, place: Place, header: JobHeader) -> object:
    """Return the user's id of a failed line; its number if the line is too long to hold, and `raw` is None."""
    if raw is None or is_mostly_structure(raw):  # it failed for that
        return place.line
    return id_of_failed(raw, place.line, header.settings.reading, asks_openai=bool(header.asks))
