"""What is read of a job while it runs: the lines that will be published, once each, and nothing unrecorded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from obcd.core.answer.outcomes import Response
from obcd.spool.folders.layout import Layout
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.output_lines import published_failure, published_response
from obcd.spool.outbox.publication import publish
from obcd.spool.outbox.recorded_lines import RecordedLine, RecordedLines
from tests.unit.spool.outbox.test_bytes_of_results import DATA, JOBS, accept_job
from tests.unit.spool.spools import THREE, accept_bytes, answer, failure, finish, record


def rendered(lines: Iterable[RecordedLine], header: JobHeader) -> tuple[list[bytes], list[bytes]]:
    """Return the lines of responses.jsonl and of errors.jsonl, in the order of the input."""
    responses, errors = {}, {}
    for result, request, own in lines:
        if isinstance(result, Response):
            assert request is not None
            assert result.line not in responses
            responses[result.line] = published_response(result, request, header)
        else:
            assert result.line not in errors
            errors[result.line] = published_failure(result, own, header)
    return [responses[line] for line in sorted(responses)], [errors[line] for line in sorted(errors)]


def texts(lines: Iterable[RecordedLine]) -> list[str | None]:
    return [line.result.answer.text if isinstance(line.result, Response) else None for line in lines]


@pytest.mark.parametrize(("name", "dedupe"), [*((name, False) for name in JOBS), ("ours", True)])
def test_every_line_is_read_once_as_it_is_published(tmp_path: Path, name: str, dedupe: bool) -> None:
    layout, header = accept_job(tmp_path, name, dedupe=dedupe)
    lines, found = RecordedLines(layout.jobs / header.id), []
    for raw in (DATA / f"{name}.records.jsonl").read_bytes().splitlines():
        spool_size = (layout.jobs / header.id / ledger.NAME).stat().st_size
        record(layout, header.id, [raw])
        found += list(lines.read())
        assert (layout.jobs / header.id / ledger.NAME).stat().st_size > spool_size

    folder = publish(layout, header.id, {})

    responses, errors = rendered(found, header)
    assert responses == (folder / "responses.jsonl").read_bytes().splitlines(keepends=True)
    shown = (folder / "errors.jsonl").read_bytes() if (folder / "errors.jsonl").exists() else b""
    assert errors == shown.splitlines(keepends=True)
    assert lines.is_complete
    assert list(lines.read()) == []


def test_lines_are_read_in_the_order_in_which_they_were_recorded(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    lines = RecordedLines(layout.jobs / header.id)
    assert list(lines.read()) == []

    record(layout, header.id, [answer(2, "III"), failure(0)])
    assert texts(lines.read()) == ["III", None]
    record(layout, header.id, [answer(1, "II")])
    assert texts(lines.read()) == ["II"]


def test_no_result_is_read_before_it_is_recorded(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    record(layout, header.id, [answer(2, "III"), answer(0, "I"), answer(1, "II")])
    lines = RecordedLines(layout.jobs / header.id)

    assert texts(lines.read(0)) == []
    assert texts(lines.read(1)) == ["III"]
    assert texts(lines.read(1)) == []
    assert texts(lines.read(3)) == ["I", "II"]


@pytest.mark.parametrize("cut", [1, 8, 9, 40, -1])
def test_torn_tail_is_read_when_it_is_complete(layout: Layout, cut: int) -> None:
    header = accept_bytes(layout, THREE)
    path = layout.jobs / header.id / ledger.NAME
    whole = ledger.frame(answer(1, "II"))
    lines = RecordedLines(layout.jobs / header.id)
    with path.open("ab", buffering=0) as writer:
        writer.write(ledger.frame(answer(0, "I")) + whole[:cut])
        assert texts(lines.read()) == ["I"]
        writer.write(whole[cut:])

    assert texts(lines.read()) == ["II"]
    assert lines.done == 2


def test_job_that_is_published_meanwhile_is_read_to_its_end(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    record(layout, header.id, [answer(0, "I")])
    lines = RecordedLines(layout.jobs / header.id)
    assert texts(lines.read()) == ["I"]
    removed = [lines.is_removed]

    finish(layout, header)

    assert not (layout.jobs / header.id).exists()
    removed.append(lines.is_removed)
    assert removed == [False, True]
    assert texts(lines.read()) == ["fine", "fine"]
    assert lines.is_complete


def test_files_are_closed_with_the_last_user(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    record(layout, header.id, [answer(0)])
    before = len(os.listdir("/proc/self/fd"))
    lines = RecordedLines(layout.jobs / header.id)
    assert texts(lines.read()) == ["fine"]
    assert len(os.listdir("/proc/self/fd")) == before + 3

    del lines

    assert len(os.listdir("/proc/self/fd")) == before
