"""A job and its retries read as one, over folders as they are really published."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.errors import InputError
from obcd.results.merging.merge import JsonlWriter, merge_answers
from obcd.results.reading import with_retries
from obcd.results.reading.answers import Answer, FailedLine
from obcd.results.reading.sources import PublishedFolder
from obcd.results.reading.with_retries import Retries, find_wholes, read_whole
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.acceptance import Accepted, accept
from obcd.spool.outbox import publication
from obcd.spool.submit.dropping import submit
from obcd.text_files import LeftOut
from tests.golden.wording import wording
from tests.unit.spool.spools import accepted, answer, drop_of, failure, order_of, put, put_marker, record

#: Six lines, one of them blank; only the first and the last have an id.
NOTES = (
    b'{"id": "a", "prompt": "one"}\n'
    b'{"prompt": "two"}\n'
    b"\n"
    b'{"prompt": "four"}\n'
    b'{"prompt": "five"}\n'
    b'{"id": 1, "prompt": "six"}'
)

Ask = Callable[..., Path]


@pytest.fixture
def ask(layout: Layout) -> Ask:
    """Return a function that publishes a job: the given requests, from 0, fail; answers say whose they are."""
    numbers = itertools.count(1)

    def run(name: str, content: bytes | Path, failing: tuple[int, ...] = (), **marker: Any) -> Path:
        content = content.read_bytes() if isinstance(content, Path) else content
        file = put(layout, content, f"{name}.jsonl")
        if marker:
            put_marker(file, **marker)
        verdict = accept(layout, order_of(drop_of(file), f"job{next(numbers)}"))
        assert isinstance(verdict, Accepted), verdict
        header = verdict.header
        asked = [number for number, line in enumerate(content.splitlines(), 1) if line]
        results = [
            failure(ordinal, line=line) if ordinal in failing else answer(ordinal, json.dumps([name, line]), line=line)
            for ordinal, line in enumerate(asked)
        ]
        record(layout, header.id, results)
        return publication.publish(layout, header.id, {})

    return run


def whole(folder: Path) -> list[tuple[Any, ...]]:
    """Return `(line, id, answer)` of each line, `None` for the answer of one that failed."""
    items = read_whole(PublishedFolder(folder, folder.name), Retries())
    return [told(item) for item in items]


def told(item: Answer | LeftOut) -> tuple[Any, ...]:
    if isinstance(item, Answer):
        assert item.record["line"] == item.line
        return item.line, item.request_id, json.loads(str(item.response))
    return (item.line, item.id, None) if isinstance(item, FailedLine) else (item.place, item.reason)


def retries_of(folder: Path) -> list[str]:
    return [item.name for item in Retries().of(PublishedFolder(folder, folder.name))]


def change(folder: Path, **values: Any) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes()) | values
    path.chmod(0o600)
    path.write_text(json.dumps(document))


def put_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_answers_of_a_retry_stand_where_their_lines_stood(ask: Ask) -> None:
    notes = ask("notes", NOTES, failing=(1, 3, 4))
    ask("notes.retry", notes / "retry.jsonl", failing=(1,))

    assert whole(notes) == [
        (1, "a", ["notes", 1]),
        (2, 2, ["notes.retry", 1]),
        (4, 4, ["notes", 4]),
        (5, 5, None),
        (6, 1, ["notes.retry", 3]),
    ]
    items = list(read_whole(PublishedFolder(notes, "ward/notes"), Retries()))
    assert [item.place for item in items][1:4] == [
        "ward/notes.retry/responses.jsonl line 1, line 2 of ward/notes",
        "ward/notes/responses.jsonl line 2 (input line 4)",
        "ward/notes.retry/errors.jsonl line 1 (input line 2), line 5 of ward/notes",
    ]


def test_retry_of_a_retry_is_followed_to_the_end(ask: Ask) -> None:
    notes = ask("notes", NOTES, failing=(1, 2, 4))
    first = ask("notes.retry", notes / "retry.jsonl", failing=(1, 2))
    second = ask("notes.retry", first / "retry.jsonl", failing=(0,))
    ask("by-hand", second / "retry.jsonl")

    assert whole(notes) == [
        (1, "a", ["notes", 1]),
        (2, 2, ["notes.retry", 1]),
        (4, 4, ["by-hand", 1]),
        (5, 5, ["notes", 5]),
        (6, 1, ["notes.retry", 2]),
    ]
    assert whole(first) == [(1, 1, ["notes.retry", 1]), (2, 2, ["by-hand", 1]), (3, 1, ["notes.retry", 2])]


@pytest.mark.parametrize("whose", [0, os.geteuid()])
def test_retry_by_root_or_by_the_daemons_user_counts(ask: Ask, whose: int) -> None:
    notes = ask("notes", NOTES, failing=(1,))
    retry = ask("notes.retry", notes / "retry.jsonl")
    change(notes, submitter={"uid": os.geteuid() + 1})
    change(retry, submitter={"uid": whose})

    assert retries_of(notes) == ["notes.retry"]


def test_chain_of_retries_that_has_no_end_is_told_in_a_sentence(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_retries, "MOST_RETRIES", 3)
    folder = first = ask("notes", NOTES, failing=(0, 1, 2, 3))
    for number in range(3):
        folder = ask(f"retry{number}", folder / "retry.jsonl", failing=tuple(range(3 - number)))
        whole(first)
    ask("last", folder / "retry.jsonl")

    with pytest.raises(InputError, match=wording("is-the-last-of-3-retries")):
        whole(first)


def test_of_several_retries_the_newest_answer_of_each_line_counts(ask: Ask) -> None:
    notes = ask("notes", NOTES, failing=(0, 1, 2))
    ask("older", notes / "retry.jsonl", failing=(2,))
    ask("newer", notes / "retry.jsonl", failing=(1, 2))

    assert retries_of(notes) == ["newer", "older"]
    assert [text for _, _, text in whole(notes)] == [["newer", 1], ["older", 2], None, ["notes", 5], ["notes", 6]]


def test_drop_that_fails_night_after_night_is_followed_once(ask: Ask) -> None:
    same = b'{"prompt": "one"}\n{"id": "b", "prompt": "two"}\n'
    nights = [ask(f"night{number:02}", same, failing=(0, 1)) for number in range(30)]
    ask("half", nights[0] / "retry.jsonl", failing=(1,))
    assert whole(nights[0]) == whole(nights[-1]) == [(1, 1, ["half", 1]), (2, "b", None)]

    half = Retries().of(PublishedFolder(nights[29], "night29"))
    ask("rest", half[0].path / "retry.jsonl")

    assert whole(nights[0]) == whole(nights[-1]) == [(1, 1, ["half", 1]), (2, "b", ["rest", 1])]
    found = verify("night00", nights[0])
    assert (found.verdict, found.by_retries) == (Verdict.COMPLETE, {"half": 1, "rest": 1})
    assert [
        source.name for source in find_wholes([nights[0].parent], Retries()) if not isinstance(source, LeftOut)
    ] == ["night00"]


def test_lines_of_openais_shape_get_their_own_custom_ids_back(ask: Ask) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    first = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    lines = b"".join(json.dumps(item).encode() + b"\n" for item in (first, first | {"custom_id": "b"}))
    notes = ask("notes", lines + b'{"prompt": "ours"}\n', failing=(1, 2))
    ask("notes.retry", notes / "retry.jsonl")

    assert whole(notes) == [(1, "a", ["notes", 1]), (2, "b", ["notes.retry", 1]), (3, "line-3", ["notes.retry", 2])]


def test_retry_of_a_job_that_failed_in_all_lines_is_no_drop_from_before(ask: Ask) -> None:
    same = NOTES.replace(b"\n\n", b"\n") + b"\n"
    ask("notes", same)
    failed = ask("again", same, failing=(0, 1, 2, 3, 4))

    assert retries_of(failed) == []

    ask("later", same, failing=(0, 1, 2, 3, 4))
    assert retries_of(failed) == ["later"]
    assert [text for _, _, text in whole(failed)] == [None] * 5


def test_same_drop_that_was_taken_before_the_other_was_published_is_no_retry(ask: Ask) -> None:
    same = b'{"prompt": "one"}\n'
    one = ask("one", same, failing=(0,))
    ask("two", same)
    assert retries_of(one) == ["two"]

    change(one, times={"accepted_at": "2026-01-01T00:00:00.000Z", "published_at": "2999-01-01T00:00:00.000Z"})

    assert retries_of(one) == []


def test_jobs_that_name_each_other_go_round_in_no_circle(ask: Ask) -> None:
    same = b'{"prompt": "one"}\n'
    one = ask("one", same, failing=(0,), parent="job2")
    two = ask("two", same, failing=(0,), parent="job1")

    assert (retries_of(one), retries_of(two)) == (["two"], [])
    assert whole(one) == [(1, 1, None)]


def test_retry_that_names_its_parent_is_nobody_elses(ask: Ask) -> None:
    one = ask("one", NOTES, failing=(0,))
    other = ask("other", NOTES, failing=(0,))
    ask("one.retry", one / "retry.jsonl", parent="job1")

    assert retries_of(one) == ["one.retry"]
    assert retries_of(other) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda retry: change(retry, input={"sha256": "0" * 64}),
        lambda retry: change(retry, times={"accepted_at": 7, "published_at": None}),
        lambda retry: change(retry, parent="another"),
        lambda retry: change(retry, submitter={"uid": os.geteuid() + 1}),
        lambda retry: change(retry, submitter={}),
        lambda retry: change(retry, repeats={"job": "job1"}),
        lambda retry: change(retry, rejected=wording("no-prompt-in-it")),
        lambda retry: change(retry, filler=" " * 2**22),
        lambda retry: (retry / "manifest.json").write_text("[" * 100_000),
        lambda retry: (retry / "manifest.json").unlink(),
        lambda retry: put_fifo(retry / "manifest.json"),
    ],
)
def test_folder_that_is_no_retry_is_left_alone(ask: Ask, spoil: Callable[[Path], object]) -> None:
    notes = ask("notes", NOTES, failing=(0,))
    retry = ask("notes.retry", notes / "retry.jsonl")
    assert retries_of(notes) == ["notes.retry"]

    spoil(retry)

    assert retries_of(notes) == []
    assert len(whole(notes)) == 5


def test_damage_of_a_retry_is_told_and_the_rest_is_used(ask: Ask) -> None:
    notes = ask("notes", NOTES, failing=(0, 1))
    retry = ask("notes.retry", notes / "retry.jsonl")
    lines = (retry / "responses.jsonl").read_bytes().splitlines(keepends=True)
    (retry / "responses.jsonl").write_bytes(b"broken\n" + lines[1] + b"more\n")

    found = whole(notes)

    assert found[:3] == [
        ("notes.retry/responses.jsonl line 1", wording("the-line-is-not-json")),
        (1, "a", None),
        ("notes.retry/responses.jsonl line 3", wording("the-line-is-not-json")),
    ]
    assert (2, 2, ["notes.retry", 2]) in found


def test_merge_of_all_folders_has_every_line_once(ask: Ask, layout: Layout) -> None:
    notes = ask("notes", NOTES, failing=(0, 3))
    retry = ask("notes.retry", notes / "retry.jsonl", failing=(1,))
    ask("other", b'{"prompt": "x"}\n')
    expected = [["notes.retry", 1], ["notes", 2], ["notes", 4], ["notes", 6], ["other", 1]]

    def merged(*folders: Path) -> list[Any]:
        stream = io.BytesIO()
        done = merge_answers(list(folders), JsonlWriter(stream), ignore=None, report=lambda item: None)
        assert done.left_out == 1
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    assert merged(layout.outbox) == expected
    assert merged(notes, retry) == merged(retry, notes) == expected[:4]
    assert [source.name for source in find_wholes([retry], Retries()) if not isinstance(source, LeftOut)] == [
        "notes.retry"
    ]


def test_verify_counts_what_the_retries_answered(ask: Ask) -> None:
    notes = ask("notes", NOTES, failing=(0, 1, 3))
    first = ask("notes.retry", notes / "retry.jsonl", failing=(0, 2))
    ask("by-hand", first / "retry.jsonl", failing=(1,))

    found = verify("ward/notes", notes)

    assert found.verdict is Verdict.COMPLETE
    assert (found.requests, found.responses, found.failures) == (5, 2, 3)
    assert found.by_retries == {"ward/by-hand": 1, "ward/notes.retry": 1}


def test_verify_of_a_job_fails_with_its_retry(ask: Ask) -> None:
    notes = ask("notes", NOTES, failing=(0, 1))
    first = ask("notes.retry", notes / "retry.jsonl", failing=(0,))
    second = ask("again", first / "retry.jsonl")
    (second / "responses.jsonl").chmod(0o600)
    (second / "responses.jsonl").write_bytes(b"")

    found = verify("notes", notes)

    assert found.verdict is Verdict.WRONG
    assert found.problems[0].startswith(wording("its-retry-again-is-not-right"))
    json.dumps(dataclasses.asdict(found))


def test_parent_of_a_drop_stands_in_its_manifest_and_in_the_header(ask: Ask, layout: Layout) -> None:
    notes = ask("notes", NOTES, failing=(0,))

    submit(layout.inbox, notes / "retry.jsonl", name="notes.retry", parent="job1")

    header = accepted(layout, order_of(drop_of(layout.inbox / "notes.retry.jsonl"), "job2"))
    assert type(header).from_json(header.to_json()).parent == "job1"
    record(layout, "job2", [answer(0)])
    retry = publication.publish(layout, "job2", {})
    assert json.loads((retry / "manifest.json").read_bytes())["parent"] == "job1"
    assert retries_of(notes) == ["notes.retry"]
